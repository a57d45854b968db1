#include "engine/quantize/qoq/rotate_layer.h"

#include <algorithm>

namespace tessera::quantize {

namespace {

constexpr size_t kRowBlock = 16;
constexpr size_t kColumnBlock = 16;  // a cache line of floats

void turn_row(const Rotation& rotation, std::span<const float> norm, std::span<float> row,
              std::vector<double>& scratch) {
  scratch.assign(row.begin(), row.end());
  for (size_t i = 0; i < norm.size(); ++i) scratch[i] *= static_cast<double>(norm[i]);
  for (size_t begin = 0; begin < row.size(); begin += rotation.size())
    rotation.apply(std::span(scratch).subspan(begin, rotation.size()));
  std::transform(scratch.begin(), scratch.end(), row.begin(), [](double x) { return static_cast<float>(x); });
}

// The input side: every row times diag(norm), then each run of rotation.size() columns times Q.
void turn_inputs(DenseProducts& products, const Rotation& rotation, std::span<const float> norm,
                 FloatMatrix& matrix) {
  std::vector<std::vector<double>> scratch(products.threads());
  for_row_blocks(products, matrix.rows, kRowBlock, [&](size_t first, size_t count, size_t thread) {
    for (size_t row = first; row < first + count; ++row)
      turn_row(rotation, norm, matrix.row(row), scratch[thread]);
  });
}

// The output side: Q^T * W, which is every column taken as a row times Q, each run of rotation.size() rows by
// itself.
void turn_outputs(DenseProducts& products, const Rotation& rotation, FloatMatrix& matrix) {
  const size_t size = rotation.size();
  std::vector<std::vector<double>> scratch(products.threads());
  for_row_blocks(products, matrix.columns, kColumnBlock, [&](size_t first, size_t count, size_t thread) {
    std::vector<double>& columns = scratch[thread];
    columns.resize(count * size);
    for (size_t begin = 0; begin < matrix.rows; begin += size) {
      for (size_t i = 0; i < size; ++i) {
        const float* row = &matrix.values[(begin + i) * matrix.columns + first];
        for (size_t c = 0; c < count; ++c) columns[c * size + i] = static_cast<double>(row[c]);
      }
      for (size_t c = 0; c < count; ++c) rotation.apply(std::span(columns).subspan(c * size, size));
      for (size_t i = 0; i < size; ++i) {
        float* row = &matrix.values[(begin + i) * matrix.columns + first];
        for (size_t c = 0; c < count; ++c) row[c] = static_cast<float>(columns[c * size + i]);
      }
    }
  });
}

}  // namespace

ModelRotation::ModelRotation(const DecoderShape& shape) : residual_(shape.hidden), head_(shape.head_dim) {}

void ModelRotation::residual_row(std::span<float> row, std::vector<double>& scratch) const {
  turn_row(residual_, {}, row, scratch);
}

void ModelRotation::head_row(std::span<const float> norm, std::span<float> row,
                             std::vector<double>& scratch) const {
  turn_row(residual_, norm, row, scratch);
}

void ModelRotation::layer(DenseProducts& products, LayerWeights& weights) const {
  for (FloatMatrix* matrix : {&weights.q, &weights.k, &weights.v})
    turn_inputs(products, residual_, weights.attention_norm, *matrix);
  for (FloatMatrix* matrix : {&weights.gate, &weights.up})
    turn_inputs(products, residual_, weights.ffn_norm, *matrix);
  std::fill(weights.attention_norm.begin(), weights.attention_norm.end(), 1.0f);
  std::fill(weights.ffn_norm.begin(), weights.ffn_norm.end(), 1.0f);
  for (FloatMatrix* matrix : {&weights.o, &weights.down}) turn_outputs(products, residual_, *matrix);
  std::vector<double> scratch;
  if (!weights.o_bias.empty()) turn_row(residual_, {}, weights.o_bias, scratch);

  turn_outputs(products, head_, weights.v);
  if (!weights.v_bias.empty()) turn_row(head_, {}, weights.v_bias, scratch);
  turn_inputs(products, head_, {}, weights.o);
}

}  // namespace tessera::quantize
