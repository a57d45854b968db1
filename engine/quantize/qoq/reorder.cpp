#include "engine/quantize/qoq/reorder.h"

#include <algorithm>
#include <numeric>

namespace tessera::quantize {

namespace {

constexpr size_t kRowBlock = 16;

size_t queries_per_kv_head(const Attention& shape) { return shape.query_heads / shape.kv_heads; }

void reorder_columns(DenseProducts& products, FloatMatrix& matrix, std::span<const size_t> order) {
  std::vector<std::vector<float>> scratch(products.threads());
  for_row_blocks(products, matrix.rows, kRowBlock, [&](size_t first, size_t count, size_t thread) {
    std::vector<float>& former = scratch[thread];
    for (size_t row = first; row < first + count; ++row) {
      const std::span<float> values = matrix.row(row);
      former.assign(values.begin(), values.end());
      for (size_t i = 0; i < order.size(); ++i) values[i] = former[order[i]];
    }
  });
}

void reorder_rows(FloatMatrix& matrix, std::span<const size_t> order) {
  FloatMatrix reordered(matrix.rows, matrix.columns);
  for (size_t i = 0; i < order.size(); ++i) {
    const std::span<const float> from = matrix.row(order[i]);
    std::copy(from.begin(), from.end(), reordered.row(i).begin());
  }
  matrix = std::move(reordered);
}

// bias: empty when there is none.
void reorder_entries(std::span<float> bias, std::span<const size_t> order) {
  const std::vector<float> former(bias.begin(), bias.end());
  for (size_t i = 0; i < bias.size(); ++i) bias[i] = former[order[i]];
}

}  // namespace

std::vector<size_t> descending_order(std::span<const float> largest) {
  std::vector<size_t> order(largest.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return largest[a] > largest[b]; });
  return order;
}

std::vector<float> maximum_over_queries(const Attention& shape, std::span<const float> by_query_channel) {
  std::vector<float> result(shape.kv_heads * shape.head_dim, 0.0f);
  for (size_t i = 0; i < by_query_channel.size(); ++i) {
    const size_t kv_head = i / shape.head_dim / queries_per_kv_head(shape);
    float& most = result[kv_head * shape.head_dim + i % shape.head_dim];
    most = std::max(most, by_query_channel[i]);
  }
  return result;
}

std::vector<float> repeated_for_queries(const Attention& shape, std::span<const float> by_kv_channel) {
  std::vector<float> result(shape.query_heads * shape.head_dim);
  for (size_t i = 0; i < result.size(); ++i) {
    const size_t kv_head = i / shape.head_dim / queries_per_kv_head(shape);
    result[i] = by_kv_channel[kv_head * shape.head_dim + i % shape.head_dim];
  }
  return result;
}

void reorder_values(DenseProducts& products, FloatLayer& layer, LayerStatistics& statistics) {
  const AttentionBlock& block = *layer.graph().attention;
  const Attention& shape = block.shape;
  InputStatistics& inputs = statistics.inputs.at(block.output);
  const std::vector<float> largest = maximum_over_queries(shape, inputs.largest);
  std::vector<size_t> value_order;
  for (size_t head = 0; head < shape.kv_heads; ++head) {
    const size_t begin = head * shape.head_dim;
    for (const size_t channel : descending_order(std::span(largest).subspan(begin, shape.head_dim)))
      value_order.push_back(begin + channel);
  }
  std::vector<size_t> input_order(shape.query_heads * shape.head_dim);
  for (size_t i = 0; i < input_order.size(); ++i) {
    const size_t head = i / shape.head_dim;
    const size_t kv_head = head / queries_per_kv_head(shape);
    const size_t channel = value_order[kv_head * shape.head_dim + i % shape.head_dim] % shape.head_dim;
    input_order[i] = head * shape.head_dim + channel;
  }
  reorder_rows(layer.matrix(block.v.weight), value_order);
  reorder_entries(layer.bias(block.v), value_order);
  reorder_columns(products, layer.matrix(block.o.weight), input_order);
  reorder_inputs(products, inputs, input_order);
}

void reorder_ffn(DenseProducts& products, FloatLayer& layer, LayerStatistics& statistics) {
  const FeedForwardBlock& block = *layer.graph().feed_forward;
  InputStatistics& inputs = statistics.inputs.at(block.output);
  const std::vector<size_t> order = descending_order(inputs.largest);
  for (const LinearPart& part : {block.gate, block.up}) {
    reorder_rows(layer.matrix(part.weight), order);
    reorder_entries(layer.bias(part), order);
  }
  reorder_columns(products, layer.matrix(block.down.weight), order);
  reorder_inputs(products, inputs, order);
}

}  // namespace tessera::quantize
