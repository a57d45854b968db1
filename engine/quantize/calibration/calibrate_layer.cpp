#include "engine/quantize/calibration/calibrate_layer.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numeric>
#include <optional>

#include "engine/quantize/calibration/float_ops.h"
#include "engine/quantize/calibration/run_ops.h"

namespace tessera::quantize {

namespace {

constexpr size_t kBlockTokens = 1024;      // windows are run together up to this many
constexpr size_t kSampleRows = 512;        // inputs kept for searches by output error
constexpr size_t kAttentionTokens = 1024;  // tokens kept for searches by the attention block's output
constexpr size_t kAttentionWindow = 256;   // of one window at most

// How many tokens at the beginning of each window belong to the attention sample: windows are chosen evenly
// spread over the text until there are enough tokens, all others have 0.
std::vector<size_t> sample_lengths(std::span<const size_t> windows) {
  const auto kept = [&](size_t i) { return std::min(windows[i], kAttentionWindow); };
  size_t all = 0;
  for (size_t i = 0; i < windows.size(); ++i) all += kept(i);
  const double average = static_cast<double>(all) / static_cast<double>(windows.size());
  const size_t count = std::clamp<size_t>(
      static_cast<size_t>(std::ceil(static_cast<double>(kAttentionTokens) / average)), 1, windows.size());
  std::vector<size_t> lengths(windows.size(), 0);
  for (size_t i = 0; i < count; ++i) lengths[i * windows.size() / count] = kept(i * windows.size() / count);
  return lengths;
}

void keep_sample(std::span<const size_t> windows, std::span<const size_t> sampled, const FloatMatrix& inputs,
                 AttentionSample& sample) {
  size_t first = 0;
  for (size_t i = 0; i < windows.size(); ++i) {
    if (sampled[i] > 0) {
      const auto begin = inputs.values.begin() + static_cast<std::ptrdiff_t>(first * inputs.columns);
      sample.windows.push_back(sampled[i]);
      sample.input.values.insert(sample.input.values.end(), begin,
                                 begin + static_cast<std::ptrdiff_t>(sampled[i] * inputs.columns));
      sample.input.rows += sampled[i];
    }
    first += windows[i];
  }
}

void keep_largest(DenseProducts& products, const FloatMatrix& x, ColumnRange columns,
                  std::span<float> largest) {
  for_row_blocks(products, columns.count, 64, [&](size_t first, size_t count, size_t) {
    for (size_t row = 0; row < x.rows; ++row)
      for (size_t i = first; i < first + count; ++i)
        largest[i] = std::max(largest[i], std::abs(x.row(row)[columns.first + i]));
  });
}

}  // namespace

LayerStatistics calibrate_layer(DenseProducts& products, DenseProduct::Precision precision,
                                const FloatLayer& layer, bool with_moments, std::span<const size_t> windows,
                                std::span<const float> before,
                                const std::function<void(std::span<const float>)>& after,
                                const std::function<void(size_t)>& done) {
  const LayerGraph& graph = layer.graph();
  const std::optional<AttentionBlock>& attention = graph.attention;
  const size_t hidden = graph.stream_columns();
  const size_t tokens = std::accumulate(windows.begin(), windows.end(), size_t{0});
  assert(before.size() == tokens * hidden);
  LayerStatistics statistics;
  for (const size_t op : graph.linears) {
    const size_t columns = graph.graph->tensors[graph.graph->ops[op].inputs[0]].columns;
    statistics.inputs.emplace(op, InputStatistics(columns, tokens, kSampleRows, with_moments));
  }
  std::vector<size_t> sampled;
  ColumnRange keys;
  if (attention) {
    const Attention& shape = attention->shape;
    keys = {shape.query_heads * shape.head_dim, shape.kv_heads * shape.head_dim};
    statistics.largest_key.assign(keys.count, 0.0f);
    statistics.sample.input.columns =
        graph.graph->tensors[graph.graph->ops[attention->input].inputs[0]].columns;
    sampled = sample_lengths(windows);
  }

  FloatMatrix residual;
  size_t first_token = 0;
  for (size_t first = 0; first < windows.size();) {
    size_t count = 0;
    size_t block = 0;
    while (first + count < windows.size() && (count == 0 || block + windows[first + count] <= kBlockTokens))
      block += windows[first + count++];
    const std::span<const float> values = before.subspan(first_token * hidden, block * hidden);
    const std::span<const size_t> block_windows = windows.subspan(first, count);
    residual.rows = block;
    residual.columns = hidden;
    residual.values.assign(values.begin(), values.end());
    OpObserver observer;
    observer.linear = [&](size_t op, const FloatMatrix& inputs) {
      statistics.inputs.at(op).add(products, inputs.values, block);
      if (attention && op == attention->input)
        keep_sample(block_windows, std::span(sampled).subspan(first, count), inputs, statistics.sample);
    };
    observer.attention = [&](size_t op, const FloatMatrix& inputs) {
      if (attention && op == attention->attention)
        keep_largest(products, inputs, keys, statistics.largest_key);
    };
    run_layer(products, precision, layer, block_windows, residual, observer);
    after(residual.values);
    first += count;
    first_token += block;
    done(block);
  }
  return statistics;
}

}  // namespace tessera::quantize
