#include "engine/quantize/calibration/float_layer.h"

#include <algorithm>
#include <cassert>
#include <exception>

#include "engine/quantize/plan/checkpoint_values.h"

namespace tessera::quantize {

namespace {

constexpr size_t kReadElements = size_t{1} << 18;

}  // namespace

FloatLayer::FloatLayer(const LayerGraph& graph) : graph_(&graph) {
  for (const WeightId id : graph.weights) {
    const Weight& weight = graph.graph->weights[id];
    weights_.emplace_back(weight.rows, weight.columns);
  }
}

size_t FloatLayer::index_of(WeightId id) const {
  const auto found = std::lower_bound(graph_->weights.begin(), graph_->weights.end(), id);
  assert(found != graph_->weights.end() && *found == id);
  return static_cast<size_t>(found - graph_->weights.begin());
}

std::span<float> FloatLayer::bias(const LinearPart& part) {
  return part.bias ? values(*part.bias) : std::span<float>();
}

std::span<const float> FloatLayer::bias(const LinearPart& part) const {
  return part.bias ? values(*part.bias) : std::span<const float>();
}

FloatLayer load_layer(DenseProducts& products, const std::string& folder, const LayerGraph& graph,
                      std::span<const PlannedWeight* const> planned) {
  assert(planned.size() == graph.weights.size());
  FloatLayer layer(graph);
  for (size_t i = 0; i < planned.size(); ++i) {
    const std::span<float> target = layer.values(graph.weights[i]);
    // Tasks must not throw: the failure of the first block is kept and thrown afterwards.
    const size_t blocks = (target.size() + kReadElements - 1) / kReadElements;
    std::vector<std::exception_ptr> failures(blocks);
    for_row_blocks(products, target.size(), kReadElements, [&](size_t first, size_t count, size_t) {
      try {
        read_finite(folder, *planned[i], first, target.subspan(first, count));
      } catch (...) {
        failures[first / kReadElements] = std::current_exception();
      }
    });
    for (const std::exception_ptr& failure : failures)
      if (failure) std::rethrow_exception(failure);
  }
  return layer;
}

}  // namespace tessera::quantize
