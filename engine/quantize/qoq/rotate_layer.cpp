#include "engine/quantize/qoq/rotate_layer.h"

#include <algorithm>

namespace tessera::quantize {

namespace {

constexpr size_t kRowBlock = 16;
constexpr size_t kColumnBlock = 16;  // a cache line of floats

void rotate_row(const Rotation& rotation, std::span<const float> norm, std::span<float> row,
                std::vector<double>& scratch) {
  scratch.assign(row.begin(), row.end());
  for (size_t i = 0; i < norm.size(); ++i) scratch[i] *= static_cast<double>(norm[i]);
  for (size_t begin = 0; begin < row.size(); begin += rotation.size())
    rotation.apply(std::span(scratch).subspan(begin, rotation.size()));
  std::transform(scratch.begin(), scratch.end(), row.begin(), [](double x) { return static_cast<float>(x); });
}

// The input side: every row times diag(norm), then each run of rotation.size() columns times Q.
void rotate_inputs(DenseProducts& products, const Rotation& rotation, std::span<const float> norm,
                   FloatMatrix& matrix) {
  std::vector<std::vector<double>> scratch(products.threads());
  for_row_blocks(products, matrix.rows, kRowBlock, [&](size_t first, size_t count, size_t thread) {
    for (size_t row = first; row < first + count; ++row)
      rotate_row(rotation, norm, matrix.row(row), scratch[thread]);
  });
}

// The output side: Q^T * W, that is every column, read as a row vector, times Q. Each run of rotation.size()
// rows is rotated by itself.
void rotate_outputs(DenseProducts& products, const Rotation& rotation, FloatMatrix& matrix) {
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

std::string rotation_obstacle(std::span<const LayerGraph> layers) {
  for (const LayerGraph& layer : layers)
    if (!layer.rotation_obstacle.empty()) return layer.rotation_obstacle;
  return {};
}

ModelRotation::ModelRotation(size_t hidden, std::span<const LayerGraph> layers) : residual_(hidden) {
  for (const LayerGraph& layer : layers)
    if (layer.attention) heads_.try_emplace(layer.attention->shape.head_dim, layer.attention->shape.head_dim);
}

void ModelRotation::rotate_residual(std::span<float> row, std::vector<double>& scratch) const {
  rotate_row(residual_, {}, row, scratch);
}

void ModelRotation::rotate_head(std::span<const float> norm, std::span<float> row,
                                std::vector<double>& scratch) const {
  rotate_row(residual_, norm, row, scratch);
}

void ModelRotation::rotate_layer(DenseProducts& products, FloatLayer& layer) const {
  const LayerGraph& graph = layer.graph();
  std::vector<double> scratch;
  for (const NormedLinears& normed : graph.norms) {
    const std::span<float> gain = layer.values(std::get<Norm>(graph.graph->ops[normed.norm].kind).gain);
    for (const size_t op : normed.linears)
      for (const LinearPart& part : graph.linear(op).parts)
        rotate_inputs(products, residual_, gain, layer.matrix(part.weight));
    std::fill(gain.begin(), gain.end(), 1.0f);
  }
  for (const size_t op : graph.writers) {
    for (const LinearPart& part : graph.linear(op).parts) {
      rotate_outputs(products, residual_, layer.matrix(part.weight));
      if (part.bias) rotate_row(residual_, {}, layer.bias(part), scratch);
    }
  }
  if (!graph.attention) return;
  const Rotation& head = heads_.at(graph.attention->shape.head_dim);
  const LinearPart& v = graph.attention->v;
  rotate_outputs(products, head, layer.matrix(v.weight));
  if (v.bias) rotate_row(head, {}, layer.bias(v), scratch);
  rotate_inputs(products, head, {}, layer.matrix(graph.attention->o.weight));
}

}  // namespace tessera::quantize
