// Drives single ops through the public Backend interface with random weights, inputs and ragged batches, so
// that any two backends can be compared op by op without back doors:
//
//   for (const rig::OpCase& test : rig::op_cases(seed))
//     CHECK(rig::difference(test, rig::run_case(*reference, test), rig::run_case(*cpu, test)) == "");
//
// How an op is reached: an embed op reads float32 inputs from an f32 table (exact on every backend), and its
// result becomes the logits as the "sum" output of a row-selecting norm whose other input is zero (exact
// too). q8 results pass a w8a8 identity first, which gives scale * code, and bf16 results a table identity.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <limits>
#include <numeric>
#include <optional>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "backends/backend.h"
#include "tests/unit/packed_tensors.h"

namespace tessera::rig {

struct CaseSequence {
  size_t token_count = 0;
  size_t position = 0;
  std::vector<uint32_t> pages;
};

// One batch; rows of its sequences follow each other.
struct CaseRun {
  std::vector<uint32_t> tokens;
  std::vector<CaseSequence> sequences;
  std::vector<uint32_t> output_rows;
};

// How far a row of results may be off: |error| relative to the row's largest expected magnitude. 0 means
// equal.
struct Bound {
  double largest = 0;
  double rms = 0;           // root mean square over all results
  double smallest = 1e-37;  // a row of smaller magnitude counts as this large
};

struct OpCase {
  std::string name;
  Graph graph;
  std::vector<PackedTensor> weights;  // weights[i] belongs to graph.weights[i]
  KvGeometry kv;
  size_t pages = 1;
  PlanLimits limits;
  std::vector<CaseRun>
      runs;  // run in order on one program: later ones see the arena and cache of earlier ones
  Bound bound;
};

// Builds the graph of a case op by op; every function returns the tensor or weight it added.
class CaseBuilder {
 public:
  explicit CaseBuilder(OpCase& target) : case_(target) {}

  WeightId weight(PackedTensor tensor) {
    case_.graph.weights.push_back({tensor.name, tensor.scheme, tensor.rows(), tensor.columns()});
    case_.weights.push_back(std::move(tensor));
    return static_cast<WeightId>(case_.weights.size() - 1);
  }
  TensorId tensor(RowExtent rows, size_t columns, ElementType type) {
    case_.graph.tensors.push_back({"t" + std::to_string(case_.graph.tensors.size()), rows, columns, type});
    return static_cast<TensorId>(case_.graph.tensors.size() - 1);
  }
  void op(OpKind kind, std::vector<TensorId> inputs, std::vector<TensorId> outputs) {
    case_.graph.ops.push_back({op_name(kind), std::move(kind), std::move(inputs), std::move(outputs)});
  }
  const Tensor& info(TensorId id) const { return case_.graph.tensors[id]; }

  TensorId embed(PackedTensor table, float multiplier = 1.0f) {
    const TensorId out = tensor(RowExtent::tokens, table.columns(), ElementType::f32);
    op(Embed{weight(std::move(table)), multiplier}, {}, {out});
    return out;
  }
  TensorId quantize(TensorId x, ElementType type = ElementType::q8) {
    const TensorId out = tensor(info(x).rows, info(x).columns, type);
    op(Quantize{}, {x}, {out});
    return out;
  }
  TensorId linear(TensorId x, std::vector<LinearPart> parts) {
    size_t columns = 0;
    for (const LinearPart& part : parts) columns += case_.graph.weights[part.weight].rows;
    const TensorId out = tensor(info(x).rows, columns, ElementType::f32);
    op(Linear{std::move(parts)}, {x}, {out});
    return out;
  }
  // The selected rows of an f32 tensor of tokens, exactly.
  TensorId select_rows(TensorId x) {
    const size_t columns = info(x).columns;
    const size_t vocabulary = case_.weights.front().rows();
    const TensorId zero = embed(packed_matrix("zero", Scheme::f32, vocabulary, columns,
                                              std::vector<float>(vocabulary * columns, 0.0f)));
    const WeightId gain = weight(packed_vector("ones", std::vector<float>(columns, 1.0f)));
    const TensorId y = tensor(RowExtent::outputs, columns, ElementType::f32);
    const TensorId sum = tensor(RowExtent::outputs, columns, ElementType::f32);
    op(Norm{gain, 1e-5f, true}, {x, zero}, {y, sum});
    return sum;
  }
  // Makes any tensor the result of the case.
  void read_out(TensorId x) {
    if (info(x).type == ElementType::q8)
      x = linear(x, {{weight(identity_matrix("identity", info(x).columns)), std::nullopt}});
    if (info(x).type == ElementType::bf16)
      x = linear(x, {{weight(bf16_identity_matrix("identity", info(x).columns)), std::nullopt}});
    case_.graph.logits = info(x).rows == RowExtent::outputs ? x : select_rows(x);
  }

 private:
  OpCase& case_;
};

struct RunShape {
  size_t sequences = 3;
  size_t runs = 2;
  size_t most_tokens = 9;     // per sequence and run
  size_t first_position = 0;  // sequences start at a random position up to this
  bool all_outputs = false;
};

// Several sequences that grow from run to run: chunks, single tokens, now and then not part of a run.
inline void random_runs(Random& random, OpCase& target, const RunShape& shape) {
  const size_t vocabulary = target.weights.front().rows();
  std::vector<size_t> length(shape.sequences);
  for (size_t& l : length) l = pick(random, 0, shape.first_position);
  const size_t longest = shape.first_position + shape.runs * shape.most_tokens;
  const size_t pages_each = longest / kKvPageTokens + 1;
  target.pages = shape.sequences * pages_each + 3;
  std::vector<uint32_t> ids(target.pages);
  std::iota(ids.begin(), ids.end(), 0u);
  std::shuffle(ids.begin(), ids.end(), random);
  target.limits = {};
  target.runs.clear();
  for (size_t r = 0; r < shape.runs; ++r) {
    CaseRun run;
    for (size_t s = 0; s < shape.sequences; ++s) {
      const bool leave_out = pick(random, 0, 4) == 0 && !(s + 1 == shape.sequences && run.tokens.empty());
      if (leave_out) continue;
      const size_t count = pick(random, 0, 2) == 0 ? 1 : pick(random, 1, shape.most_tokens);
      const auto first = ids.begin() + static_cast<std::ptrdiff_t>(s * pages_each);
      run.sequences.push_back({count, length[s], {first, first + static_cast<std::ptrdiff_t>(pages_each)}});
      for (size_t i = 0; i < count; ++i)
        run.tokens.push_back(static_cast<uint32_t>(pick(random, 0, vocabulary - 1)));
      length[s] += count;
    }
    for (uint32_t row = 0; row < run.tokens.size(); ++row) {
      if (shape.all_outputs || pick(random, 0, 2) != 0) run.output_rows.push_back(row);
    }
    if (run.output_rows.empty()) run.output_rows.push_back(static_cast<uint32_t>(run.tokens.size() - 1));
    target.limits.max_tokens = std::max(target.limits.max_tokens, run.tokens.size());
    target.limits.max_outputs = std::max(target.limits.max_outputs, run.output_rows.size());
    target.runs.push_back(std::move(run));
  }
}

template <class Value>
Value unwrap(Result<Value> result, const std::string& what) {
  if (!result.ok()) throw std::runtime_error(what + ": " + result.error());
  return std::move(result.value());
}

// The logits of all runs one after another, [output rows of all runs, columns]; they are poisoned with NaN
// before each run. Throws std::runtime_error with the backend's line when it refuses.
// With a plan of one's own the case runs in that instead.
inline std::vector<float> run_case(Backend& backend, const OpCase& test,
                                   const std::optional<MemoryPlan>& plan = std::nullopt) {
  std::vector<WeightHandle> handles;
  for (const PackedTensor& weight : test.weights)
    handles.push_back(unwrap(backend.adopt(weight.view()), test.name + ": adopt"));
  const std::unique_ptr<KvStorage> kv =
      unwrap(backend.create_kv(test.kv, test.pages), test.name + ": create_kv");
  const std::unique_ptr<Program> program =
      unwrap(backend.compile(test.graph, plan ? *plan : plan_memory(test.graph, test.limits), handles, *kv),
             test.name + ": compile");
  const size_t columns = test.graph.tensors[test.graph.logits].columns;
  std::vector<float> results;
  for (const CaseRun& run : test.runs) {
    std::vector<BatchSequence> sequences;
    std::deque<std::vector<uint32_t>> window_pages;
    size_t row = 0;
    for (const CaseSequence& sequence : run.sequences) {
      // In a pool of another size, so that the pages of both kinds of layers cannot be confused unnoticed.
      std::vector<uint32_t>& window = window_pages.emplace_back();
      if (test.kv.any_slides()) {
        for (const uint32_t page : sequence.pages)
          window.push_back(static_cast<uint32_t>(test.kv.window_pages - 1 - page));
      }
      sequences.push_back({row, sequence.token_count, sequence.position, sequence.pages, window});
      row += sequence.token_count;
    }
    std::vector<float> logits(run.output_rows.size() * columns, std::numeric_limits<float>::quiet_NaN());
    const Status status = program->run({run.tokens, sequences, run.output_rows}, logits);
    if (!status.ok()) throw std::runtime_error(test.name + ": run: " + status.error());
    results.insert(results.end(), logits.begin(), logits.end());
  }
  return results;
}

// Empty when got is within the case's bound of expected; otherwise one line that names the worst place.
inline std::string difference(const OpCase& test, std::span<const float> expected,
                              std::span<const float> got) {
  if (expected.size() != got.size())
    return fmt::format("{}: expected {} results, found {}", test.name, expected.size(), got.size());
  const size_t columns = test.graph.tensors[test.graph.logits].columns;
  // All of a few results may be sums that cancelled, so that the largest says little about the terms behind
  // it; with more results one of them has the size of the terms.
  const double allowance = columns < 8 ? 1000 : 1;
  double worst = 0;
  double squares = 0;
  size_t place = 0;
  for (size_t row = 0; row * columns < expected.size(); ++row) {
    double largest = 0;
    for (size_t i = 0; i < columns; ++i)
      largest = std::max(largest, std::abs(double{expected[row * columns + i]}));
    for (size_t i = row * columns; i < (row + 1) * columns; ++i) {
      if (!std::isfinite(got[i]) || !std::isfinite(expected[i]))
        return fmt::format("{}: row {}, column {}: not finite: expected {}, found {}", test.name, row,
                           i - row * columns, expected[i], got[i]);
      if (expected[i] == got[i]) continue;
      const double error =
          std::abs(double{expected[i]} - double{got[i]}) / std::max(largest, test.bound.smallest) / allowance;
      squares += error * error;
      if (error > worst) {
        worst = error;
        place = i;
      }
    }
  }
  const double results = std::max<double>(1.0, static_cast<double>(expected.size()));
  const double rms = std::sqrt(squares / results);
  // However few results there are, a token that several rows show may be off in one place.
  const double most_rms = std::max(test.bound.rms, 2 * test.bound.largest / std::sqrt(results));
  if (worst <= test.bound.largest && rms <= most_rms) return {};
  return fmt::format(
      "{}: row {}, column {}: expected {}, found {}, relative error {:.3g} (bound {}), root mean square "
      "{:.3g} "
      "(bound {})",
      test.name, place / columns, place % columns, expected[place], got[place], worst, test.bound.largest,
      rms, most_rms);
}

}  // namespace tessera::rig
