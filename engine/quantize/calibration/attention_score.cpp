#include "engine/quantize/calibration/attention_score.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <numeric>

#include "engine/codec/rounding.h"
#include "gguf-like-format/float_types.h"

namespace tessera::quantize {

namespace {

constexpr size_t kRowBlock = 16;

float through_f16(float value) { return f16_to_f32(f32_to_f16(value)); }

void round_head(std::span<float> x) {
  const auto [smallest, largest] = std::minmax_element(x.begin(), x.end());
  const float low = through_f16(*smallest);
  const float scale = through_f16((*largest - *smallest) / 15.0f);
  for (float& value : x)
    value =
        scale == 0.0f
            ? low
            : static_cast<float>(rounding::half_even_clamped((value - low) / scale, 0.0f, 15.0f)) * scale +
                  low;
}

}  // namespace

void round_to_kv4(DenseProducts& products, size_t head_dim, FloatMatrix& x) {
  for_row_blocks(products, x.rows, kRowBlock, [&](size_t first, size_t count, size_t) {
    const std::span<float> rows = std::span(x.values).subspan(first * x.columns, count * x.columns);
    for (size_t begin = 0; begin < rows.size(); begin += head_dim) round_head(rows.subspan(begin, head_dim));
  });
}

void round_to_int8(DenseProducts& products, FloatMatrix& x) {
  for_row_blocks(products, x.rows, kRowBlock, [&](size_t first, size_t count, size_t) {
    for (size_t row = first; row < first + count; ++row) {
      const std::span<float> values = x.row(row);
      const float scale = rounding::largest_magnitude(values) / 127.0f;
      if (scale < std::numeric_limits<float>::min()) continue;  // zeros, or too small to matter
      for (float& value : values) value = static_cast<float>(rounding::half_even(value / scale)) * scale;
    }
  });
}

double squared_difference(DenseProducts& products, const FloatMatrix& a, const FloatMatrix& b) {
  assert(a.rows == b.rows && a.columns == b.columns);
  std::vector<double> by_row(a.rows);
  for_row_blocks(products, a.rows, kRowBlock, [&](size_t first, size_t count, size_t) {
    for (size_t row = first; row < first + count; ++row) {
      constexpr size_t kLanes = 8;
      std::array<double, kLanes> sums{};
      const std::span<const float> x = a.row(row);
      const std::span<const float> y = b.row(row);
      for (size_t i = 0; i < x.size(); ++i) {
        const double difference = static_cast<double>(x[i]) - static_cast<double>(y[i]);
        sums[i % kLanes] += difference * difference;
      }
      by_row[row] = std::accumulate(sums.begin(), sums.end(), 0.0);
    }
  });
  return std::accumulate(by_row.begin(), by_row.end(), 0.0);
}

AttentionScore::AttentionScore(DenseProducts& products, DenseProduct::Precision precision,
                               const DecoderShape& shape, const LayerWeights& weights,
                               const AttentionSample& sample)
    : products_(&products), precision_(precision), shape_(&shape), weights_(&weights), sample_(&sample) {
  query_ = queries_with(weights.q, weights.q_bias);
  key_ = queries_with(weights.k, weights.k_bias);
  value_ = project(products, precision, sample.input, weights.v, weights.v_bias);
  output_ = project(products, precision, attended(query_, key_, value_), weights.o, {});
}

FloatMatrix AttentionScore::queries_with(const FloatMatrix& q, std::span<const float> bias) const {
  FloatMatrix out = project(*products_, precision_, sample_->input, q, bias);
  turn_to_positions(*products_, *shape_, sample_->windows, out);
  return out;
}

FloatMatrix AttentionScore::attended(const FloatMatrix& query, const FloatMatrix& key,
                                     const FloatMatrix& value) const {
  return attend(*products_, *shape_, sample_->windows, query, key, value);
}

double AttentionScore::error(const FloatMatrix& attended) const { return error(attended, weights_->o); }

double AttentionScore::error(const FloatMatrix& attended, const FloatMatrix& o) const {
  return squared_difference(*products_, project(*products_, precision_, attended, o, {}), output_);
}

}  // namespace tessera::quantize
