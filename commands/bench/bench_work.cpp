#include "commands/bench/bench_work.h"

#include <algorithm>

#include "graph/op_weights.h"

namespace tessera {

namespace {

// Multiply-adds of the linear layers, counted as two operations each.
struct LinearWork {
  double every_token = 0;   // layers that run for every token
  double every_output = 0;  // layers that run only for rows of logits: the head
};

LinearWork linear_work(const Graph& graph) {
  LinearWork work;
  for (const Op& op : graph.ops) {
    double weights = 0;
    for_each_weight(op, [&](WeightId id, WeightRole role) {
      const Weight& weight = graph.weights[id];
      if (role == WeightRole::matrix)
        weights += static_cast<double>(weight.rows) * static_cast<double>(weight.columns);
    });
    const bool outputs = graph.tensors[op.outputs.front()].rows == RowExtent::outputs;
    (outputs ? work.every_output : work.every_token) += 2 * weights;
  }
  return work;
}

// Operations of attention for one token and one key it sees.
double attention_work(const Graph& graph) {
  double work = 0;
  for_each_op<Attention>(graph, [&](const Op&, const Attention& attention) {
    work += 4.0 * static_cast<double>(attention.query_heads * attention.head_dim);
  });
  return work;
}

}  // namespace

TokenWork token_work(const BenchTest& test, const Model& model, const MemoryFigures& memory, size_t batch) {
  const LinearWork linear = linear_work(model.graph());
  const auto weight_bytes = static_cast<double>(model.weight_bytes_per_token());
  const double kv_bytes = static_cast<double>(memory.kv_bytes) / static_cast<double>(memory.context);
  const auto count = static_cast<double>(test.count);
  // The cache in front of a token that is generated, on average.
  const double keys = static_cast<double>(test.depth) + count / 2;
  TokenWork work;
  switch (test.kind) {
    case BenchTest::Kind::prompt:
      work.weight_bytes =
          weight_bytes / static_cast<double>(std::min(test.count, batch));  // read once per run
      for (size_t end = 0; end < test.count;) {  // every run reads all of the cache up to its end once
        end = std::min(end + batch, test.count);
        work.kv_bytes += kv_bytes * static_cast<double>(end) / count;
      }
      work.operations = linear.every_token + linear.every_output / count;
      break;
    case BenchTest::Kind::generate:
      work.weight_bytes = weight_bytes;
      work.kv_bytes = kv_bytes * keys;
      work.operations = linear.every_token + linear.every_output;
      break;
    case BenchTest::Kind::batch:
      work.weight_bytes = weight_bytes / count;
      work.kv_bytes = kv_bytes * static_cast<double>(kBatchTestTokens) / 2;
      work.operations = linear.every_token + linear.every_output;
      break;
    case BenchTest::Kind::attention:
      work.kv_bytes = kv_bytes * keys;
      work.operations = attention_work(model.graph()) * keys;
      break;
    case BenchTest::Kind::product:
      break;
  }
  return work;
}

}  // namespace tessera
