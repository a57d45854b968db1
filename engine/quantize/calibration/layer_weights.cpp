#include "engine/quantize/calibration/layer_weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <exception>
#include <utility>

#include "engine/models/rope_frequencies.h"
#include "engine/quantize/plan/checkpoint_values.h"

namespace tessera::quantize {

namespace {

constexpr size_t kReadElements = size_t{1} << 18;

}  // namespace

DecoderShape::DecoderShape(const Hyperparameters& hyperparameters)
    : hidden(static_cast<size_t>(hyperparameters.hidden)),
      query_heads(static_cast<size_t>(hyperparameters.query_heads)),
      kv_heads(static_cast<size_t>(hyperparameters.kv_heads)),
      head_dim(static_cast<size_t>(hyperparameters.head_dim)),
      ffn(static_cast<size_t>(hyperparameters.ffn)),
      norm_epsilon(static_cast<float>(hyperparameters.norm_epsilon)),
      inverse_frequency(
          rope_inverse_frequencies(head_dim, hyperparameters.rope_theta, hyperparameters.rope_scaling)) {}

FloatMatrix* LayerWeights::matrix(std::string_view part) {
  const std::array<std::pair<std::string_view, FloatMatrix*>, 7> parts = {
      {{"q", &q}, {"k", &k}, {"v", &v}, {"o", &o}, {"gate", &gate}, {"up", &up}, {"down", &down}}};
  for (const auto& [name, matrix] : parts)
    if (name == part) return matrix;
  return nullptr;
}

std::vector<float>* LayerWeights::vector(std::string_view part) {
  const std::array<std::pair<std::string_view, std::vector<float>*>, 6> parts = {
      {{"attention_norm", &attention_norm},
       {"ffn_norm", &ffn_norm},
       {"q_bias", &q_bias},
       {"k_bias", &k_bias},
       {"v_bias", &v_bias},
       {"o_bias", &o_bias}}};
  for (const auto& [name, vector] : parts)
    if (name == part) return vector;
  return nullptr;
}

std::string_view part_name(const PlannedWeight& weight) {
  const std::string_view name = weight.expected.name;
  return name.substr(name.rfind('.') + 1);
}

std::span<const PlannedWeight> layer_plan(std::span<const PlannedWeight> plan, size_t layer) {
  const std::string prefix = fmt::format("layers.{}.", layer);
  const auto belongs = [&](const PlannedWeight& weight) {
    return weight.expected.name.compare(0, prefix.size(), prefix) == 0;
  };
  const auto first = std::find_if(plan.begin(), plan.end(), belongs);
  const auto end = std::find_if_not(first, plan.end(), belongs);
  return {first, end};
}

void for_row_blocks(DenseProducts& products, size_t rows, size_t block,
                    const std::function<void(size_t, size_t, size_t)>& work) {
  products.for_each((rows + block - 1) / block, [&](size_t task, size_t thread) {
    work(task * block, std::min(block, rows - task * block), thread);
  });
}

LayerWeights load_layer(DenseProducts& products, const std::string& folder,
                        std::span<const PlannedWeight> layer) {
  LayerWeights weights;
  for (const PlannedWeight& planned : layer) {
    std::span<float> target;
    if (planned.expected.shape.size() == 2) {
      FloatMatrix* matrix = weights.matrix(part_name(planned));
      if (matrix == nullptr) continue;
      *matrix = FloatMatrix(static_cast<size_t>(planned.expected.shape[0]),
                            static_cast<size_t>(planned.expected.shape[1]));
      target = matrix->values;
    } else if (std::vector<float>* vector = weights.vector(part_name(planned))) {
      vector->resize(static_cast<size_t>(planned.expected.shape[0]));
      target = *vector;
    }
    // Tasks must not throw: the failure of the first block is kept and thrown afterwards.
    const size_t blocks = (target.size() + kReadElements - 1) / kReadElements;
    std::vector<std::exception_ptr> failures(blocks);
    for_row_blocks(products, target.size(), kReadElements, [&](size_t first, size_t count, size_t) {
      try {
        read_finite(folder, planned, first, target.subspan(first, count));
      } catch (...) {
        failures[first / kReadElements] = std::current_exception();
      }
    });
    for (const std::exception_ptr& failure : failures)
      if (failure) std::rethrow_exception(failure);
  }
  return weights;
}

}  // namespace tessera::quantize
