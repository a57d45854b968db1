#include "engine/measure/product_speed.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <stdexcept>

#include "engine/value_or_throw.h"

namespace tessera {

namespace {

constexpr size_t kInputRows = 16;  // of the table that tokens are looked up in
// How often all copies of a product run in one program, beyond the first time.
constexpr size_t kFewestRepeats = 2;
constexpr size_t kMostRepeats = 512;
constexpr size_t kWarmUps = 2;  // a backend may prepare for further runs in its second one
constexpr size_t kRuns = 5;

// Linear ops of the same shape and scheme.
struct Kind {
  ProductSpeed speed;
  std::vector<const Linear*> ops;
};

bool same(const Graph& graph, const Linear& a, const Linear& b) {
  return std::equal(a.parts.begin(), a.parts.end(), b.parts.begin(), b.parts.end(),
                    [&](const LinearPart& x, const LinearPart& y) {
                      const Weight& v = graph.weights[x.weight];
                      const Weight& w = graph.weights[y.weight];
                      return v.scheme == w.scheme && v.rows == w.rows && v.columns == w.columns &&
                             x.bias.has_value() == y.bias.has_value();
                    });
}

std::vector<Kind> kinds_of(const Graph& graph, const std::function<size_t(const Weight&)>& stored_bytes) {
  std::vector<Kind> kinds;
  for_each_op<Linear>(graph, [&](const Op& op, const Linear& linear) {
    auto kind = std::find_if(kinds.begin(), kinds.end(),
                             [&](const Kind& known) { return same(graph, *known.ops.front(), linear); });
    if (kind == kinds.end()) {
      kind = kinds.emplace(kinds.end());
      const Weight& first = graph.weights[linear.parts.front().weight];
      kind->speed.name = op.name.substr(op.name.rfind('.') + 1);
      kind->speed.scheme = scheme_name(first.scheme);
      kind->speed.shape.columns = first.columns;
      for (const LinearPart& part : linear.parts) {
        kind->speed.shape.rows += graph.weights[part.weight].rows;
        kind->speed.weight_bytes += stored_bytes(graph.weights[part.weight]);
      }
    }
    kind->ops.push_back(&linear);
    ++kind->speed.copies;
  });
  return kinds;
}

// A graph that looks up rows of inputs and returns one cheap row; the ops to be measured go in between.
class MeasuringGraph {
 public:
  // table, gain: the two weights that InputWeights adds behind the model's own.
  MeasuringGraph(const Graph& model, size_t columns, WeightId table, WeightId gain) : gain_(gain) {
    graph_.weights = model.weights;
    graph_.weights.push_back({"inputs", Scheme::f32, kInputRows, columns});
    graph_.weights.push_back({"ones", Scheme::f32, 1, columns});
    x_ = tensor(RowExtent::tokens, columns, ElementType::f32);
    graph_.ops.push_back({"inputs", Embed{table}, {}, {x_}});
  }

  TensorId x() const { return x_; }
  // An op whose results nobody reads.
  TensorId add(OpKind kind, TensorId input, size_t columns, ElementType type = ElementType::f32) {
    const TensorId y = tensor(RowExtent::tokens, columns, type);
    graph_.ops.push_back({op_name(kind), std::move(kind), {input}, {y}});
    return y;
  }
  Graph finish() {
    graph_.logits = tensor(RowExtent::outputs, graph_.tensors[x_].columns, ElementType::f32);
    graph_.ops.push_back({"result", Norm{gain_, 1e-5f, true}, {x_}, {graph_.logits}});
    return std::move(graph_);
  }

 private:
  TensorId tensor(RowExtent rows, size_t columns, ElementType type) {
    graph_.tensors.push_back({"t" + std::to_string(graph_.tensors.size()), rows, columns, type});
    return static_cast<TensorId>(graph_.tensors.size() - 1);
  }

  Graph graph_;
  WeightId gain_;
  TensorId x_ = 0;
};

// Seconds of the fastest of a few runs of `tokens` sequences with one token each at this position. Layers
// with a window have window_pages pages of their own.
double fastest_run(Program& program, size_t tokens, size_t position, size_t columns,
                   size_t window_pages = 0) {
  std::vector<uint32_t> ids(tokens);
  std::vector<uint32_t> pages(position / kKvPageTokens + 1);
  std::iota(pages.begin(), pages.end(), 0u);
  std::vector<uint32_t> used_again;
  for (size_t i = 0; window_pages != 0 && i < pages.size(); ++i)
    used_again.push_back(static_cast<uint32_t>(i % window_pages));
  std::vector<BatchSequence> sequences;
  for (size_t i = 0; i < tokens; ++i) {
    ids[i] = static_cast<uint32_t>(i % kInputRows);
    sequences.push_back({i, 1, position, pages, used_again});
  }
  const uint32_t output = 0;
  std::vector<float> result(columns);
  double best = 0;
  for (size_t run = 0; run < kWarmUps + kRuns; ++run) {
    const auto begun = std::chrono::steady_clock::now();
    const Status status = program.run({ids, sequences, {&output, 1}}, result);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
    if (!status.ok()) throw std::runtime_error(status.error());
    if (run == kWarmUps || (run > kWarmUps && seconds < best)) best = seconds;
  }
  return best;
}

// Appends two weights to the model's for as long as it lives: rows of inputs, and a gain of ones.
class InputWeights {
 public:
  InputWeights(Backend& backend, std::vector<WeightHandle>& weights, size_t columns)
      : weights_(weights),
        size_(weights.size()),
        inputs_(tensor("inputs", {kInputRows, columns})),
        ones_(tensor("ones", {columns})) {
    for (const Owned* each : {&inputs_, &ones_})
      weights_.push_back(value_or_throw(backend.adopt(each->stored)));
  }
  ~InputWeights() { weights_.resize(size_); }
  InputWeights(const InputWeights&) = delete;
  InputWeights& operator=(const InputWeights&) = delete;

 private:
  struct Owned {
    std::vector<float> values;
    StoredTensor stored;
  };
  static Owned tensor(const char* name, std::vector<uint64_t> shape) {
    Owned made;
    const std::optional<uint64_t> bytes = stored_bytes(Scheme::f32, shape);
    if (!bytes) throw std::runtime_error("a matrix too large to be measured");
    made.values.resize(static_cast<size_t>(*bytes) / sizeof(float));
    for (size_t i = 0; i < made.values.size(); ++i)
      made.values[i] = static_cast<float>(i * 2654435761u % 2001) / 1000 - 1;
    made.stored = {name, Scheme::f32, std::move(shape), std::as_bytes(std::span(made.values))};
    return made;
  }

  std::vector<WeightHandle>& weights_;
  size_t size_;
  Owned inputs_;
  Owned ones_;
};

}  // namespace

std::vector<ProductSpeed> measure_products(Backend& backend, const Graph& graph,
                                           std::vector<WeightHandle>& weights, KvStorage& kv,
                                           const std::function<size_t(const Weight&)>& stored_bytes,
                                           size_t tokens) {
  std::vector<ProductSpeed> speeds;
  for (Kind& kind : kinds_of(graph, stored_bytes)) {
    const size_t columns = kind.speed.shape.columns;
    const auto table = static_cast<WeightId>(weights.size());
    const InputWeights added(backend, weights, columns);
    const ElementType type = linear_input(graph.weights[kind.ops.front()->parts.front().weight].scheme);
    const auto seconds = [&](size_t times) {
      MeasuringGraph built(graph, columns, table, table + 1);
      const TensorId x =
          type == ElementType::f32 ? built.x() : built.add(Quantize{}, built.x(), columns, type);
      for (size_t i = 0; i < times; ++i) {
        for (const Linear* linear : kind.ops) built.add(*linear, x, kind.speed.shape.rows);
      }
      const Graph repeated = built.finish();
      const auto program =
          value_or_throw(backend.compile(repeated, plan_memory(repeated, {tokens, 1}), weights, kv));
      return fastest_run(*program, tokens, 0, columns);
    };
    const double once = seconds(1);
    kind.speed.shape.tokens = tokens;
    // The repeats must take at least as long as everything else in the program, in which the products of a
    // small model would be lost.
    for (size_t repeats = kFewestRepeats; repeats <= kMostRepeats; repeats *= 4) {
      const double difference = seconds(1 + repeats) - once;
      kind.speed.seconds = std::max(difference, 0.0) / static_cast<double>(repeats * kind.speed.copies);
      if (difference >= once) break;
    }
    kind.speed.library_f16 = backend.library_seconds(kind.speed.shape, 16);
    kind.speed.library_int8 = backend.library_seconds(kind.speed.shape, 8);
    speeds.push_back(std::move(kind.speed));
  }
  return speeds;
}

double measure_attention(Backend& backend, const Graph& graph, std::vector<WeightHandle>& weights,
                         KvStorage& kv, size_t position) {
  std::vector<const Attention*> ops;
  for_each_op<Attention>(graph, [&](const Op&, const Attention& attention) { ops.push_back(&attention); });
  if (ops.empty()) return 0;
  const Attention& first = *ops.front();
  const size_t columns = (first.query_heads + 2 * first.kv_heads) * first.head_dim;
  const auto table = static_cast<WeightId>(weights.size());
  const InputWeights added(backend, weights, columns);
  const auto seconds = [&](bool with_attention) {
    MeasuringGraph built(graph, columns, table, table + 1);
    for (const Attention* attention : ops) {
      if (with_attention) built.add(*attention, built.x(), attention->query_heads * attention->head_dim);
    }
    const Graph measured = built.finish();
    const auto program =
        value_or_throw(backend.compile(measured, plan_memory(measured, {1, 1}), weights, kv));
    return fastest_run(*program, 1, position, columns,
                       kv.geometry().any_slides() ? kv.geometry().window_pages : 0);
  };
  const double without = seconds(false);
  return std::max(seconds(true) - without, 0.0);
}

}  // namespace tessera
