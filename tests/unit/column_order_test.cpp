// Models whose matrices are stored in another order of columns: what a reader refuses, and that they compute
// what the models with their columns in place compute.
#include "gguf-like-format/column_order.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "backends/cpu/cpu_backend.h"
#include "backends/reference/reference_backend.h"
#include "engine/models/model_graph.h"
#include "tests/unit/crafted_files.h"
#include "tests/unit/op_rig.h"

using namespace tessera;

namespace {

Hyperparameters small_shape() {
  Hyperparameters h;
  h.family = "qwen3";  // norms of heads and no biases
  h.vocabulary = 50;
  h.hidden = 72;
  h.layers = 3;
  h.query_heads = 4;
  h.kv_heads = 2;
  h.head_dim = 24;
  h.ffn = 148;
  h.context = 64;
  return h;
}

// Tensors by name, and the file of them in memory.
struct Stored {
  std::map<std::string, rig::PackedTensor> tensors;
  std::optional<TessImage> image;
  std::unique_ptr<TessFile> file;
};

Stored store(const Hyperparameters& h, std::map<std::string, rig::PackedTensor> tensors) {
  ModelHeader header;
  header.name = "small";
  header.hyperparameters = h;
  header.quantization.scheme = "w8a8";
  header.quantization.head_scheme = "w8a8";
  header.tokenizer.kind = "byte-bpe";
  std::vector<PlannedTensor> planned;
  for (const auto& [name, tensor] : tensors) planned.push_back({name, tensor.scheme, tensor.shape});
  Stored stored{std::move(tensors), TessImage("small.tess", header, planned), nullptr};
  size_t index = 0;
  for (const auto& [name, tensor] : stored.tensors)
    std::copy(tensor.bytes.begin(), tensor.bytes.end(), stored.image->tensor(index++).begin());
  stored.image->finish();
  stored.file = TessFile::from_memory(stored.image->bytes(), "small.tess");
  return stored;
}

std::map<std::string, rig::PackedTensor> random_tensors(rig::Random& random, const Hyperparameters& h,
                                                        Scheme scheme) {
  std::map<std::string, rig::PackedTensor> tensors;
  for (const ExpectedTensor& expected : expected_tensors(h)) {
    const bool vector = expected.shape.size() == 1;
    tensors.emplace(expected.name, vector ? rig::random_vector(random, expected.name, expected.shape[0])
                                          : rig::random_matrix(random, expected.name, scheme,
                                                               expected.shape[0], expected.shape[1]));
  }
  return tensors;
}

// The matrix with column order[i] at place i, in a scheme without groups.
rig::PackedTensor reordered(const rig::PackedTensor& matrix, const std::vector<uint32_t>& order) {
  rig::PackedTensor moved = matrix;
  const auto bits = [](const rig::PackedTensor& tensor, size_t row, size_t column, size_t& byte) {
    const size_t r = row % tile::kPanelRows;
    byte = row / tile::kPanelRows * panel_bytes(tensor.scheme, tensor.columns());
    if (tensor.scheme == Scheme::w4a8) {
      const tile::Nibble nibble = tile::nibble_in_panel(r, column);
      byte += nibble.byte;
      return nibble.high ? 0xf0u : 0x0fu;
    }
    byte += tile::byte_in_panel(r, column);
    return 0xffu;
  };
  for (size_t row = 0; row < matrix.rows(); ++row) {
    for (size_t i = 0; i < order.size(); ++i) {
      if (matrix.scheme == Scheme::f32) {
        rig::detail::put_float(moved, row, i,
                               static_cast<float>(matrix.values[row * matrix.columns() + order[i]]));
        continue;
      }
      size_t from = 0;
      size_t to = 0;
      const unsigned from_bits = bits(matrix, row, order[i], from);
      const unsigned to_bits = bits(matrix, row, i, to);
      const unsigned code =
          (std::to_integer<unsigned>(matrix.bytes[from]) & from_bits) / (from_bits & -from_bits);
      const unsigned kept = std::to_integer<unsigned>(moved.bytes[to]) & ~to_bits;
      moved.bytes[to] = static_cast<std::byte>(kept | code * (to_bits & -to_bits));
    }
  }
  return moved;
}

// Stores some of the matrices in random orders, at least one, and adds these.
std::vector<std::string> store_in_orders(rig::Random& random, const Hyperparameters& h,
                                         std::map<std::string, rig::PackedTensor>& tensors) {
  std::vector<std::string> orders;
  for (uint64_t layer = 0; layer < h.layers; ++layer) {
    for (const Role role : {Role::v, Role::o, Role::up, Role::down}) {
      if (!orders.empty() && rig::pick(random, 0, 3) == 0) continue;
      const ExpectedTensor expected = column_order(h, role, layer).value();
      std::vector<uint32_t> order(expected.shape[0]);
      std::iota(order.begin(), order.end(), 0u);
      std::shuffle(order.begin(), order.end(), random);
      for (const std::string& matrix : matrices_in_order(expected.name))
        tensors.at(matrix) = reordered(tensors.at(matrix), order);
      tensors.emplace(expected.name, rig::packed_order(expected.name, order));
      orders.push_back(expected.name);
    }
  }
  return orders;
}

rig::OpCase model_case(rig::Random& random, const Stored& model) {
  const Hyperparameters& h = model.file->header().hyperparameters;
  rig::OpCase test;
  test.name = "model";
  test.graph = build_graph(*model.file);
  for (const Weight& weight : test.graph.weights) test.weights.push_back(model.tensors.at(weight.name));
  test.kv = {h.layers, h.kv_heads, h.head_dim, 16, 0};
  rig::random_runs(random, test, {2, 3, 9, 0, false});
  test.bound = {2e-3, 2e-4};  // of two decoder layers of floats, as in layers_case
  return test;
}

std::string in_one_line(const std::vector<std::string>& matrices) {
  return fmt::format("{}", fmt::join(matrices, " "));
}

}  // namespace

TEST_CASE("an order of columns names every column once") {
  rig::Random random(std::random_device{}());
  for (const size_t columns : {size_t{1}, size_t{2}, size_t{77}, size_t{1000}}) {
    std::vector<uint32_t> order(columns);
    std::iota(order.begin(), order.end(), 0u);
    std::shuffle(order.begin(), order.end(), random);
    const auto fault = [&](const std::vector<uint32_t>& any) {
      return column_order_fault(std::as_bytes(std::span(any)));
    };
    CHECK(fault(order) == "");
    const size_t place = rig::pick(random, 0, columns - 1);
    std::vector<uint32_t> wrong = order;
    for (const uint32_t beyond : {static_cast<uint32_t>(columns), 0x80000000u, 0xffffffffu}) {
      wrong[place] = beyond;
      CHECK(fault(wrong) ==
            fmt::format("entry {}: expected a column below {}, found {}", place, columns, beyond));
    }
    if (columns == 1) continue;
    const size_t other = (place + 1) % columns;
    wrong[place] = order[other];
    CHECK(fault(wrong) == fmt::format("entry {}: expected every column once, found {} again",
                                      std::max(place, other), order[other]));
  }
  CHECK(in_one_line(matrices_in_order("layers.12.qkv_order")) == "layers.12.q layers.12.k layers.12.v");
  CHECK(in_one_line(matrices_in_order("layers.0.o_order")) == "layers.0.o");
  CHECK(in_one_line(matrices_in_order("layers.0.gate_up_order")) == "layers.0.gate layers.0.up");
  CHECK(in_one_line(matrices_in_order("layers.0.down_order")) == "layers.0.down");
  for (const char* other : {"qkv_order", "layers.0.q", "layers.0.", "tokenizer.offsets", ""})
    CHECK(matrices_in_order(other).empty());
}

TEST_CASE("a file with an order that is none is refused when it is opened") {
  rig::Random random(std::random_device{}());
  const Hyperparameters h = small_shape();
  std::map<std::string, rig::PackedTensor> tensors = random_tensors(random, h, Scheme::w8a8);
  const std::vector<std::string> orders = store_in_orders(random, h, tensors);
  CHECK(store(h, tensors).file->verify().empty());
  const std::string& name = orders[rig::pick(random, 0, orders.size() - 1)];
  const auto refusal = [&](const rig::PackedTensor& order) {
    auto changed = tensors;
    changed.at(name) = order;
    return crafted::refusal([&] { (void)build_graph(*store(h, changed).file); });
  };
  const auto columns = static_cast<uint32_t>(tensors.at(name).shape[0]);
  std::vector<uint32_t> twice(columns);
  std::iota(twice.begin(), twice.end(), 0u);
  twice.back() = 0;
  CHECK(refusal(rig::packed_order(name, twice)) ==
        fmt::format("small.tess: tensor {}: entry {}: expected every column once, found 0 again", name,
                    columns - 1));
  twice.back() = columns;
  CHECK(crafted::contains(refusal(rig::packed_order(name, twice)), "expected a column below"));
  twice.pop_back();
  CHECK(crafted::contains(refusal(rig::packed_order(name, twice)), ".shape: expected ["));
  CHECK(crafted::contains(refusal(rig::random_vector(random, name, columns)),
                          ".scheme: expected u32, found f32"));
  // And one that backends are given past the reader.
  twice.push_back(columns + 7);
  const rig::PackedTensor hostile = rig::packed_order(name, twice);
  const std::unique_ptr<Backend> backend = make_reference_backend();
  const Result<WeightHandle> adopted = backend->adopt(hostile.view());
  REQUIRE(!adopted.ok());
  CHECK(adopted.error() == fmt::format("tensor \"{}\": entry {}: expected a column below {}, found {}", name,
                                       columns - 1, columns, columns + 7));
}

TEST_CASE("matrices stored in any order compute what they compute with their columns in place") {
  const uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  rig::Random random(seed);
  std::vector<std::unique_ptr<Backend>> backends;
  backends.push_back(make_reference_backend());
  for (const std::string_view isa : usable_instruction_sets())
    backends.push_back(rig::unwrap(make_cpu_backend({std::string(isa), 2}), "cpu"));
  for (const Scheme scheme : {Scheme::f32, Scheme::w8a8, Scheme::w4a8}) {
    CAPTURE(scheme_name(scheme));
    const Hyperparameters h = small_shape();
    std::map<std::string, rig::PackedTensor> tensors = random_tensors(random, h, scheme);
    const Stored plain = store(h, tensors);
    const size_t orders = store_in_orders(random, h, tensors).size();
    const Stored ordered = store(h, std::move(tensors));
    rig::OpCase expected = model_case(random, plain);
    rig::OpCase found = model_case(random, ordered);
    found.runs = expected.runs;
    found.limits = expected.limits;
    found.pages = expected.pages;
    size_t gathers = 0;
    for_each_op<Gather>(found.graph, [&](const Op&, const Gather&) { ++gathers; });
    CHECK(gathers == orders);
    for (const std::unique_ptr<Backend>& backend : backends) {
      CAPTURE(backend->describe());
      const std::vector<float> in_place = rig::run_case(*backend, expected);
      const std::vector<float> in_order = rig::run_case(*backend, found);
      // Rounding a row to 8 bits and whole-number sums do not depend on the order of its columns.
      if (scheme == Scheme::f32) {
        CHECK(rig::difference(expected, in_place, in_order) == "");
      } else {
        CHECK(in_place == in_order);
      }
    }
  }
}

TEST_CASE("in a mixed file an order comes with its matrices") {
  rig::Random random(std::random_device{}());
  const Hyperparameters h = small_shape();
  const auto one = [&](const char* order) {
    std::map<std::string, rig::PackedTensor> tensors = random_tensors(random, h, Scheme::w8a8);
    std::vector<uint32_t> columns(h.hidden);
    std::iota(columns.begin(), columns.end(), 0u);
    std::shuffle(columns.begin(), columns.end(), random);
    if (order != nullptr) tensors.emplace(order, rig::packed_order(order, columns));
    return store(h, std::move(tensors));
  };
  constexpr const char* kOrder = "layers.1.gate_up_order";
  const Stored plain = one(nullptr);
  const Stored a = one(kOrder);
  const Stored b = one(kOrder);
  const auto mixed = [](const Stored& base, const Stored& other, std::vector<std::string_view> names) {
    return TessFile::mixed(*base.file, *other.file, [names](std::string_view name) {
      return std::find(names.begin(), names.end(), name) != names.end();
    });
  };
  const auto order_of = [](const TessFile& file) { return file.find(kOrder)->bytes.data(); };
  const std::vector<std::string_view> both = {"layers.1.gate", "layers.1.up"};
  CHECK(order_of(*mixed(a, b, both)) == b.file->find(kOrder)->bytes.data());
  CHECK(order_of(*mixed(a, b, {"layers.0.gate", "layers.1.q"})) == a.file->find(kOrder)->bytes.data());
  CHECK(order_of(*mixed(plain, b, both)) == b.file->find(kOrder)->bytes.data());
  CHECK(mixed(plain, b, both)->verify().empty());
  CHECK(mixed(a, plain, both)->find(kOrder) == nullptr);
  CHECK(mixed(plain, a, {"layers.1.down", kOrder})->find(kOrder) == nullptr);
  CHECK(order_of(*mixed(a, a, {"layers.1.gate"})) == a.file->find(kOrder)->bytes.data());
  for (const auto& each : {std::pair{&a, &b}, {&a, &plain}, {&plain, &a}}) {
    const auto* const base = each.first;
    const auto* const other = each.second;
    const std::string line = crafted::refusal([&] { (void)mixed(*base, *other, {"layers.1.up"}); });
    CHECK(crafted::contains(line, "tensor layers.1.gate_up_order: expected the same order of columns"));
  }
}
