// Drives single ops through the public Backend interface with random weights, inputs and ragged batches, so
// that any two backends can be compared op by op without back doors:
//
//   for (const rig::OpCase& test : rig::op_cases(seed))
//     CHECK(rig::difference(test, rig::run_case(*reference, test), rig::run_case(*cpu, test)) == "");
//
// How an op is reached: an embed op reads float32 inputs from an f32 table (exact on every backend), and its
// result becomes the logits as the "sum" output of a row-selecting norm whose other input is zero (exact
// too). q8 results pass a w8a8 identity first, which gives scale * code.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
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
#include "gguf-like-format/float_types.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera::rig {

using Random = std::mt19937_64;

inline size_t pick(Random& random, size_t low, size_t high) {  // both ends included
  return std::uniform_int_distribution<size_t>(low, high)(random);
}

inline float normal(Random& random) { return std::normal_distribution<float>(0.0f, 1.0f)(random); }

// A stored tensor that owns its bytes, with what they mean.
struct PackedTensor {
  std::string name;
  Scheme scheme = Scheme::f32;
  std::vector<uint64_t> shape;
  std::vector<std::byte> bytes;
  std::vector<double> values;     // [rows * columns], exact
  std::vector<int32_t> integers;  // integer schemes: code - offset, so that value = scales[row] * integer
  std::vector<float> scales;      // integer schemes: one per row

  StoredTensor view() const { return {name, scheme, shape, bytes}; }
  size_t columns() const { return static_cast<size_t>(shape.back()); }
  size_t rows() const { return shape.size() == 2 ? static_cast<size_t>(shape[0]) : 1; }
};

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

namespace detail {

template <class Value>
void put(PackedTensor& tensor, size_t byte, Value value) {
  if (byte + sizeof value > tensor.bytes.size()) throw std::logic_error("op rig: packed past the end");
  std::memcpy(tensor.bytes.data() + byte, &value, sizeof value);
}

inline void put_nibble(PackedTensor& tensor, size_t panel, tile::Nibble where, unsigned code) {
  std::byte& byte = tensor.bytes.at(panel + where.byte);
  byte |= static_cast<std::byte>(where.high ? code << 4 : code);
}

inline PackedTensor empty_tensor(std::string name, Scheme scheme, std::vector<uint64_t> shape) {
  PackedTensor tensor;
  tensor.name = std::move(name);
  tensor.scheme = scheme;
  tensor.shape = std::move(shape);
  tensor.bytes.resize(static_cast<size_t>(stored_bytes(scheme, tensor.shape).value()));
  return tensor;
}

// Fills the integer schemes with random codes over their whole valid range; padding has code = zero point.
inline void fill_integer_row(Random& random, PackedTensor& tensor, size_t row) {
  const size_t columns = tensor.columns();
  const bool real = row < tensor.rows();
  const size_t padded = padded_columns(tensor.scheme, columns);
  const size_t panel = row / tile::kPanelRows * panel_bytes(tensor.scheme, columns);
  const size_t r = row % tile::kPanelRows;
  const RowTail tail = row_tail(tensor.scheme, tensor.rows(), columns);
  const float scale = real ? std::ldexp(std::abs(normal(random)) + 0.1f, -8) : 0.0f;
  put(tensor, tail.scales + 4 * row, scale);
  if (real) tensor.scales.push_back(scale);
  const unsigned row_zero = static_cast<unsigned>(pick(random, 0, 15));
  if (tensor.scheme == Scheme::w4a8) put(tensor, tail.zeros + row, static_cast<uint8_t>(row_zero));
  int s1 = 1;
  int zero = 0;
  for (size_t k = 0; k < padded; ++k) {
    const bool inside = real && k < columns;
    int integer = 0;
    if (tensor.scheme == Scheme::w8a8) {
      integer = inside ? static_cast<int>(pick(random, 0, 254)) - 127 : 0;
      put(tensor, panel + tile::byte_in_panel(r, k), static_cast<uint8_t>(integer + 128));
    } else if (tensor.scheme == Scheme::w4a8) {
      const unsigned code = inside ? static_cast<unsigned>(pick(random, 0, 15)) : row_zero;
      integer = static_cast<int>(code) - static_cast<int>(row_zero);
      put_nibble(tensor, panel, tile::nibble_in_panel(r, k), code);
    } else {
      if (k % tile::kGroupColumns == 0) {
        s1 = static_cast<int>(pick(random, 1, 16));
        zero = static_cast<int>(pick(random, 0, static_cast<size_t>(std::min(15, 127 / s1))));
        const size_t group = k / tile::kGroupColumns;
        put(tensor, panel + tile::group_scale_byte(r, group), static_cast<uint8_t>(s1));
        put(tensor, panel + tile::group_offset_byte(r, group), static_cast<uint8_t>(128 - zero * s1));
      }
      // Any code whose meaning stays within the -127 … 127 that the scheme guarantees.
      const int lowest = std::max(0, zero - 127 / s1);
      const int highest = std::min(15, zero + 127 / s1);
      const int code =
          inside ? static_cast<int>(pick(random, static_cast<size_t>(lowest), static_cast<size_t>(highest)))
                 : zero;
      integer = (code - zero) * s1;
      put_nibble(tensor, panel, tile::nibble_in_grouped_panel(r, k), static_cast<unsigned>(code));
    }
    if (inside) {
      tensor.integers.push_back(integer);
      tensor.values.push_back(double{scale} * integer);
    }
  }
}

inline void put_float(PackedTensor& tensor, size_t row, size_t column, float value) {
  const size_t panel = row / tile::kPanelRows * panel_bytes(tensor.scheme, tensor.columns());
  const size_t r = row % tile::kPanelRows;
  double& meaning = tensor.values[row * tensor.columns() + column];
  if (tensor.scheme == Scheme::f32) {
    put(tensor, panel + 4 * tile::element_in_panel(r, column), value);
    meaning = value;
  } else if (tensor.scheme == Scheme::f16) {
    put(tensor, panel + 2 * tile::element_in_panel(r, column), f32_to_f16(value));
    meaning = f16_to_f32(f32_to_f16(value));
  } else {
    put(tensor, panel + 2 * tile::bf16_in_panel(r, column), f32_to_bf16(value));
    meaning = bf16_to_f32(f32_to_bf16(value));
  }
}

}  // namespace detail

// An f32 vector with the given entries.
inline PackedTensor packed_vector(std::string name, std::span<const float> entries) {
  PackedTensor tensor = detail::empty_tensor(std::move(name), Scheme::f32, {entries.size()});
  std::memcpy(tensor.bytes.data(), entries.data(), entries.size_bytes());
  tensor.values.assign(entries.begin(), entries.end());
  return tensor;
}

inline PackedTensor random_vector(Random& random, std::string name, size_t length) {
  std::vector<float> entries(length);
  for (float& entry : entries) entry = 1.0f + 0.5f * normal(random);
  return packed_vector(std::move(name), entries);
}

// An f32, f16 or bf16 matrix with the given entries, [rows * columns].
inline PackedTensor packed_matrix(std::string name, Scheme scheme, size_t rows, size_t columns,
                                  std::span<const float> entries) {
  PackedTensor tensor = detail::empty_tensor(std::move(name), scheme, {rows, columns});
  tensor.values.resize(rows * columns);
  for (size_t i = 0; i < entries.size(); ++i) detail::put_float(tensor, i / columns, i % columns, entries[i]);
  return tensor;
}

// A matrix of any scheme: normal values, or random codes over all that the scheme allows.
inline PackedTensor random_matrix(Random& random, std::string name, Scheme scheme, size_t rows,
                                  size_t columns) {
  if (activation_type(scheme) == ActivationType::f32) {
    std::vector<float> entries(rows * columns);
    for (float& entry : entries) entry = normal(random);
    return packed_matrix(std::move(name), scheme, rows, columns, entries);
  }
  PackedTensor tensor = detail::empty_tensor(std::move(name), scheme, {rows, columns});
  for (size_t row = 0; row < tile::round_up(rows, tile::kPanelRows); ++row)
    detail::fill_integer_row(random, tensor, row);
  return tensor;
}

// The w8a8 matrix that turns a q8 row into scale * code.
inline PackedTensor identity_matrix(std::string name, size_t columns) {
  PackedTensor tensor = detail::empty_tensor(std::move(name), Scheme::w8a8, {columns, columns});
  std::fill(tensor.bytes.begin(), tensor.bytes.end(), std::byte{128});
  const RowTail tail = row_tail(Scheme::w8a8, columns, columns);
  for (size_t row = 0; row < tile::round_up(columns, tile::kPanelRows); ++row)
    detail::put(tensor, tail.scales + 4 * row, row < columns ? 1.0f : 0.0f);
  for (size_t row = 0; row < columns; ++row) {
    const size_t panel = row / tile::kPanelRows * panel_bytes(Scheme::w8a8, columns);
    detail::put(tensor, panel + tile::byte_in_panel(row % tile::kPanelRows, row), uint8_t{129});
  }
  return tensor;
}

// Rows of an input table: mostly normal, with outliers, an all-zero row, a constant row, tiny values, and
// exact halves of codes (largest magnitude 127, so that the scale is 1 and every value lies on a rounding
// tie).
inline PackedTensor input_table(Random& random, std::string name, size_t rows, size_t columns,
                                float outlier = 100.0f) {
  std::vector<float> entries(rows * columns);
  for (size_t row = 0; row < rows; ++row) {
    for (size_t i = 0; i < columns; ++i) {
      float& entry = entries[row * columns + i];
      entry = normal(random);
      if (row % 8 == 1 && pick(random, 0, 30) == 0) entry *= outlier;
      if (row == 2) entry = 0.0f;
      if (row == 3) entry = -0.7f;
      if (row == 4) entry *= 1e-20f;
      if (row == 5)
        entry = i == 0 ? 127.0f : static_cast<float>(static_cast<int>(pick(random, 0, 252)) - 126) + 0.5f;
    }
  }
  return packed_matrix(std::move(name), Scheme::f32, rows, columns, entries);
}

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

  TensorId embed(PackedTensor table) {
    const TensorId out = tensor(RowExtent::tokens, table.columns(), ElementType::f32);
    op(Embed{weight(std::move(table))}, {}, {out});
    return out;
  }
  TensorId quantize(TensorId x) {
    const TensorId out = tensor(info(x).rows, info(x).columns, ElementType::q8);
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
    size_t row = 0;
    for (const CaseSequence& sequence : run.sequences) {
      sequences.push_back({row, sequence.token_count, sequence.position, sequence.pages});
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
  const double rms = std::sqrt(squares / std::max<double>(1.0, static_cast<double>(expected.size())));
  if (worst <= test.bound.largest && rms <= test.bound.rms) return {};
  return fmt::format(
      "{}: row {}, column {}: expected {}, found {}, relative error {:.3g} (bound {}), root mean square "
      "{:.3g} "
      "(bound {})",
      test.name, place / columns, place % columns, expected[place], got[place], worst, test.bound.largest,
      rms, test.bound.rms);
}

}  // namespace tessera::rig
