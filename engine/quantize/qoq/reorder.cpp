#include "engine/quantize/qoq/reorder.h"

#include <algorithm>
#include <numeric>

namespace tessera::quantize {

namespace {

constexpr size_t kRowBlock = 16;

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

}  // namespace

std::vector<size_t> descending_order(std::span<const float> largest) {
  std::vector<size_t> order(largest.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return largest[a] > largest[b]; });
  return order;
}

std::vector<float> maximum_over_queries(const DecoderShape& shape, std::span<const float> by_query_channel) {
  std::vector<float> result(shape.kv_columns(), 0.0f);
  for (size_t i = 0; i < by_query_channel.size(); ++i) {
    const size_t kv_head = i / shape.head_dim / shape.queries_per_kv_head();
    float& most = result[kv_head * shape.head_dim + i % shape.head_dim];
    most = std::max(most, by_query_channel[i]);
  }
  return result;
}

std::vector<float> repeated_for_queries(const DecoderShape& shape, std::span<const float> by_kv_channel) {
  std::vector<float> result(shape.query_columns());
  for (size_t i = 0; i < result.size(); ++i) {
    const size_t kv_head = i / shape.head_dim / shape.queries_per_kv_head();
    result[i] = by_kv_channel[kv_head * shape.head_dim + i % shape.head_dim];
  }
  return result;
}

void reorder_values(DenseProducts& products, const DecoderShape& shape, LayerWeights& weights,
                    LayerStatistics& statistics) {
  const std::vector<float> largest = maximum_over_queries(shape, statistics.o.largest);
  std::vector<size_t> value_order;
  for (size_t head = 0; head < shape.kv_heads; ++head) {
    const size_t begin = head * shape.head_dim;
    for (const size_t channel : descending_order(std::span(largest).subspan(begin, shape.head_dim)))
      value_order.push_back(begin + channel);
  }
  std::vector<size_t> input_order(shape.query_columns());
  for (size_t i = 0; i < input_order.size(); ++i) {
    const size_t head = i / shape.head_dim;
    const size_t kv_head = head / shape.queries_per_kv_head();
    const size_t channel = value_order[kv_head * shape.head_dim + i % shape.head_dim] % shape.head_dim;
    input_order[i] = head * shape.head_dim + channel;
  }
  reorder_rows(weights.v, value_order);
  const std::vector<float> bias = weights.v_bias;
  for (size_t i = 0; i < bias.size(); ++i) weights.v_bias[i] = bias[value_order[i]];
  reorder_columns(products, weights.o, input_order);
  reorder_inputs(products, statistics.o, input_order);
}

void reorder_ffn(DenseProducts& products, LayerWeights& weights, LayerStatistics& statistics) {
  const std::vector<size_t> order = descending_order(statistics.down.largest);
  reorder_rows(weights.gate, order);
  reorder_rows(weights.up, order);
  reorder_columns(products, weights.down, order);
  reorder_inputs(products, statistics.down, order);
}

}  // namespace tessera::quantize
