#include "engine/quantize/calibration/calibrate_layer.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numeric>

#include "engine/quantize/calibration/float_layer.h"

namespace tessera::quantize {

namespace {

constexpr size_t kBlockTokens = 1024;      // windows are run together up to this many
constexpr size_t kSampleRows = 512;        // inputs kept for searches by output error
constexpr size_t kAttentionTokens = 1024;  // tokens kept for searches by the attention block's output
constexpr size_t kAttentionWindow = 256;   // of one window at most

// For every window the tokens of its beginning that belong to the attention sample: windows evenly spread
// over the text until there are enough.
std::vector<size_t> attention_sample(std::span<const size_t> windows) {
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

void keep_sample(std::span<const size_t> windows, std::span<const size_t> wanted, const FloatMatrix& inputs,
                 AttentionSample& sample) {
  size_t first = 0;
  for (size_t i = 0; i < windows.size(); ++i) {
    if (wanted[i] > 0) {
      const auto begin = inputs.values.begin() + static_cast<std::ptrdiff_t>(first * inputs.columns);
      sample.windows.push_back(wanted[i]);
      sample.input.values.insert(sample.input.values.end(), begin,
                                 begin + static_cast<std::ptrdiff_t>(wanted[i] * inputs.columns));
      sample.input.rows += wanted[i];
    }
    first += windows[i];
  }
}

void keep_largest(DenseProducts& products, const FloatMatrix& x, std::span<float> largest) {
  for_row_blocks(products, x.columns, 64, [&](size_t first, size_t count, size_t) {
    for (size_t row = 0; row < x.rows; ++row)
      for (size_t i = first; i < first + count; ++i)
        largest[i] = std::max(largest[i], std::abs(x.values[row * x.columns + i]));
  });
}

}  // namespace

LayerStatistics calibrate_layer(DenseProducts& products, DenseProduct::Precision precision,
                                const DecoderShape& shape, const LayerWeights& weights, bool with_moments,
                                std::span<const size_t> windows, std::span<const float> before,
                                const std::function<void(std::span<const float>)>& after,
                                const std::function<void(size_t)>& done) {
  const size_t tokens = std::accumulate(windows.begin(), windows.end(), size_t{0});
  assert(before.size() == tokens * shape.hidden);
  LayerStatistics statistics;
  statistics.attention = InputStatistics(shape.hidden, tokens, kSampleRows, with_moments);
  statistics.o = InputStatistics(shape.query_columns(), tokens, kSampleRows, with_moments);
  statistics.ffn = InputStatistics(shape.hidden, tokens, kSampleRows, with_moments);
  statistics.down = InputStatistics(shape.ffn, tokens, kSampleRows, with_moments);
  statistics.largest_key.assign(shape.kv_columns(), 0.0f);
  statistics.sample.input.columns = shape.hidden;
  const std::vector<size_t> wanted = attention_sample(windows);

  FloatMatrix residual;
  size_t first_token = 0;
  for (size_t first = 0; first < windows.size();) {
    size_t count = 0;
    size_t block = 0;
    while (first + count < windows.size() && (count == 0 || block + windows[first + count] <= kBlockTokens))
      block += windows[first + count++];
    const std::span<const float> values = before.subspan(first_token * shape.hidden, block * shape.hidden);
    residual.rows = block;
    residual.columns = shape.hidden;
    residual.values.assign(values.begin(), values.end());
    const LayerInputs inputs =
        run_layer(products, precision, shape, weights, windows.subspan(first, count), residual);
    statistics.attention.add(products, inputs.attention.values, block);
    statistics.o.add(products, inputs.o.values, block);
    statistics.ffn.add(products, inputs.ffn.values, block);
    statistics.down.add(products, inputs.down.values, block);
    keep_largest(products, inputs.key, statistics.largest_key);
    keep_sample(windows.subspan(first, count), std::span(wanted).subspan(first, count), inputs.attention,
                statistics.sample);
    after(residual.values);
    first += count;
    first_token += block;
    done(block);
  }
  return statistics;
}

}  // namespace tessera::quantize
