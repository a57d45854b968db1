#include "engine/quantize/calibration/attention_score.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <limits>
#include <numeric>
#include <utility>

#include "engine/codec/rounding.h"
#include "engine/quantize/calibration/run_ops.h"
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
                               const FloatLayer& layer, const AttentionSample& sample)
    : products_(&products),
      precision_(precision),
      layer_(&layer),
      block_(&*layer.graph().attention),
      sample_(&sample) {
  const Attention& shape = block_->shape;
  keys_ = {shape.query_heads * shape.head_dim, shape.kv_heads * shape.head_dim};
  values_ = {keys_.first + keys_.count, keys_.count};
  projected_ = FloatMatrix(sample.input.rows, values_.first + values_.count);
  size_t first = 0;
  for (const LinearPart& part : {block_->q, block_->k, block_->v}) {
    const FloatMatrix& weights = layer.matrix(part.weight);
    project_into(products, precision, sample.input, weights, layer.bias(part), projected_, first);
    first += weights.rows;
  }
  inputs_ = inputs_of(projected_);
  output_ = project(products, precision, attended(inputs_), layer.matrix(block_->o.weight), {});
}

FloatMatrix AttentionScore::inputs_with(const LinearPart& part, const FloatMatrix& weights) const {
  FloatMatrix projected = projected_;
  const size_t first = part.weight == block_->q.weight   ? 0
                       : part.weight == block_->k.weight ? keys_.first
                                                         : values_.first;
  project_into(*products_, precision_, sample_->input, weights, layer_->bias(part), projected, first);
  return inputs_of(std::move(projected));
}

FloatMatrix AttentionScore::inputs_of(FloatMatrix projected) const {
  const std::vector<Op>& ops = layer_->graph().graph->ops;
  OpRun run(*products_, precision_, *layer_, sample_->windows);
  run.set(ops[block_->input].outputs[0], std::move(projected));
  run.run(block_->input + 1, block_->attention);
  return run.release(ops[block_->attention].inputs[0]);
}

FloatMatrix AttentionScore::attended(const FloatMatrix& inputs) const {
  return attend(*products_, block_->shape, sample_->windows, inputs);
}

double AttentionScore::error(const FloatMatrix& attended) const {
  return error(attended, layer_->matrix(block_->o.weight));
}

double AttentionScore::error(const FloatMatrix& attended, const FloatMatrix& o) const {
  return squared_difference(*products_, project(*products_, precision_, attended, o, {}), output_);
}

}  // namespace tessera::quantize
