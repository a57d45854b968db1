// Every op of the cpu backend against the reference backend, for each instruction set of this machine and
// several thread counts, on fresh random inputs at odd sizes.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "backends/cpu/cpu_backend.h"
#include "backends/reference/reference_backend.h"
#include "tests/unit/op_cases.h"
#include "tests/unit/op_rig.h"

using namespace tessera;

TEST_CASE("every op of the cpu backend equals the reference") {
  const uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  const std::unique_ptr<Backend> reference = make_reference_backend();
  for (const std::string_view isa : usable_instruction_sets()) {
    for (const size_t threads : {size_t{1}, size_t{2}, size_t{5}}) {
      auto made = make_cpu_backend({std::string(isa), threads});
      REQUIRE(made.ok());
      Backend& cpu = *made.value();
      const std::vector<rig::OpCase> cases = rig::op_cases(seed + threads);
      // Sanitizers make this the longest of all tests: with them every second case, chosen by the seed.
      const size_t step = std::getenv("TESSERA_SANITIZED") != nullptr ? 2 : 1;
      for (size_t i = (seed + threads) % step; i < cases.size(); i += step) {
        const rig::OpCase& test = cases[i];
        CAPTURE(test.name);
        CAPTURE(cpu.describe());
        CHECK(rig::difference(test, rig::run_case(*reference, test), rig::run_case(cpu, test)) == "");
      }
    }
  }
}

TEST_CASE("attention over several chunks of keys does not depend on how tokens and threads share it") {
  constexpr size_t kBefore = 2200;
  constexpr size_t kAfter = 3;
  const auto seed = std::random_device{}();
  CAPTURE(seed);
  rig::Random random(seed);
  const std::unique_ptr<Backend> reference = make_reference_backend();
  for (const unsigned bits : {16u, 8u, 4u}) {
    rig::OpCase whole = rig::attention_case(random, {4, 2, 16, bits, 1, 0, 1, 1});
    const uint32_t vocabulary = static_cast<uint32_t>(whole.weights.front().rows());
    const size_t pages = (kBefore + kAfter) / kKvPageTokens + 1;
    whole.pages = pages;
    std::vector<uint32_t> tokens(kBefore + kAfter);
    for (uint32_t& token : tokens) token = static_cast<uint32_t>(rig::pick(random, 0, vocabulary - 1));
    std::vector<uint32_t> ids(pages);
    std::iota(ids.rbegin(), ids.rend(), 0u);
    rig::OpCase one_by_one = whole;
    whole.runs = {{tokens, {{tokens.size(), 0, ids}}, {kBefore, kBefore + 1, kBefore + 2}}};
    whole.limits = {tokens.size(), kAfter};
    one_by_one.limits = {kBefore, 1};
    one_by_one.runs = {{{tokens.begin(), tokens.begin() + kBefore}, {{kBefore, 0, ids}}, {0}}};
    for (size_t i = 0; i < kAfter; ++i)
      one_by_one.runs.push_back({{tokens[kBefore + i]}, {{1, kBefore + i, ids}}, {0}});
    const std::vector<float> exact = rig::run_case(*reference, whole);
    for (const std::string_view isa : usable_instruction_sets()) {
      std::vector<float> first;
      for (const size_t threads : {size_t{1}, size_t{2}, size_t{5}}) {
        auto made = make_cpu_backend({std::string(isa), threads});
        REQUIRE(made.ok());
        CAPTURE(bits);
        CAPTURE(made.value()->describe());
        const std::vector<float> at_once = rig::run_case(*made.value(), whole);
        const std::vector<float> single = rig::run_case(*made.value(), one_by_one);
        if (first.empty()) first = at_once;
        CHECK(rig::difference(whole, exact, at_once) == "");
        CHECK(at_once == first);
        const size_t columns = first.size() / kAfter;
        CHECK(std::vector<float>(single.begin() + static_cast<std::ptrdiff_t>(columns), single.end()) ==
              first);
      }
    }
  }
}

namespace {

// One sequence of `length` tokens in one batch beside a short one, then a token more of each. Only the token
// at `position` of the first is of the table's last row.
rig::OpCase case_with_odd_token(rig::Random& random, const rig::AttentionShape& shape, size_t length,
                                size_t position) {
  rig::OpCase test = rig::attention_case(random, shape);
  const auto last_row = static_cast<uint32_t>(test.weights.front().rows() - 1);
  const auto tokens = [&](size_t count) {
    std::vector<uint32_t> drawn(count);
    for (uint32_t& token : drawn) token = static_cast<uint32_t>(rig::pick(random, 0, last_row - 1));
    return drawn;
  };
  constexpr size_t kShort = 9;
  rig::CaseRun whole;
  whole.tokens = tokens(length + kShort);
  whole.tokens[position] = last_row;
  const size_t pages = length / kKvPageTokens + 1;
  std::vector<uint32_t> ids(pages);
  std::iota(ids.begin(), ids.end(), 0u);
  const auto other = static_cast<uint32_t>(pages);
  test.pages = pages + 1;
  whole.sequences = {{length, 0, ids}, {kShort, 0, {other}}};
  whole.output_rows.resize(length + kShort);
  std::iota(whole.output_rows.begin(), whole.output_rows.end(), 0u);
  const rig::CaseRun more = {tokens(2), {{1, length, ids}, {1, kShort, {other}}}, {0, 1}};
  test.limits = {whole.tokens.size(), whole.output_rows.size()};
  test.runs = {whole, more};
  return test;
}

// The last row of the case's inputs gets another number.
void put_odd_number(rig::OpCase& test, size_t column, float number) {
  rig::PackedTensor& table = test.weights.front();
  const size_t row = table.rows() - 1;
  const size_t panel = row / tile::kPanelRows * panel_bytes(table.scheme, table.columns());
  rig::detail::put(table, panel + 4 * tile::element_in_panel(row % tile::kPanelRows, column), number);
}

}  // namespace

TEST_CASE("what a page cannot hold reaches the tokens that see it and no others") {
  const uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  rig::Random random(seed);
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const std::unique_ptr<Backend> reference = make_reference_backend();
  for (const unsigned bits : {16u, 8u, 4u}) {
    // 65520 is the first number that f16 rounds to infinity.
    std::vector<float> numbers = {65520.0f, -1e5f, kInfinity, kNan};
    if (bits == 8) numbers = {-65520.0f * 128, 1e9f, -kInfinity, kNan};
    if (bits == 4) numbers = {65520.0f * 16, -65520.0f, 1e30f, -kInfinity, kNan};
    numbers.push_back(bits == 16 ? 65519.0f : (bits == 8 ? 8e6f : 65000.0f));  // fits
    for (size_t n = 0; n < 2 * numbers.size(); ++n) {
      const float number = numbers[n / 2];
      const bool in_key = n % 2 == 1;
      const bool fits = number == numbers.back();
      if (fits && in_key) continue;  // such scores say nothing
      // Once the first key of a second chunk, which a token sees alone in it.
      const bool chunks = n == 0;
      const rig::AttentionShape shape =
          chunks ? rig::AttentionShape{2, 1, 8, bits, 1, 0, 1, 1}
                 : rig::AttentionShape{6, 2, 8 * rig::pick(random, 1, 5), bits, 1, 0, 1, 1};
      const size_t length = chunks ? 1030 : rig::pick(random, 66, 150);
      const size_t position = chunks ? 1024 : rig::pick(random, 1, length - 1);
      rig::OpCase test = case_with_odd_token(random, shape, length, position);
      const size_t kv_head = rig::pick(random, 0, shape.kv_heads - 1);
      const size_t head = shape.query_heads + kv_head + (in_key ? 0 : shape.kv_heads);
      put_odd_number(test, head * shape.head_dim + rig::pick(random, 0, shape.head_dim - 1), number);
      CAPTURE(test.name);
      CAPTURE(number);
      CAPTURE(in_key);
      CAPTURE(length);
      CAPTURE(position);
      const std::vector<float> exact = rig::run_case(*reference, test);
      // Heads of tokens that the reference gives anything not finite: those may be not a number altogether.
      std::vector<float> expected = exact;
      std::vector<size_t> lost;
      for (size_t first = 0; first < exact.size(); first += shape.head_dim) {
        const std::span<float> row = std::span(expected).subspan(first, shape.head_dim);
        if (std::all_of(row.begin(), row.end(), [](float x) { return std::isfinite(x); })) continue;
        lost.push_back(first);
        std::fill(row.begin(), row.end(), 0.0f);
      }
      const size_t seeing = length + 1 - position;
      if (!in_key) CHECK(lost.size() == (fits ? 0 : seeing * shape.query_heads / shape.kv_heads));
      for (const std::string_view isa : usable_instruction_sets()) {
        for (const size_t threads : {size_t{1}, size_t{3}}) {
          auto made = make_cpu_backend({std::string(isa), threads});
          REQUIRE(made.ok());
          CAPTURE(made.value()->describe());
          std::vector<float> got = rig::run_case(*made.value(), test);
          size_t wrong = 0;
          for (const size_t first : lost) {
            for (size_t i = first; i < first + shape.head_dim; ++i) {
              wrong += !std::isfinite(exact[i]) && std::isfinite(got[i]) ? 1 : 0;
              got[i] = 0;
            }
          }
          CHECK(wrong == 0);
          CHECK(rig::difference(test, expected, got) == "");
        }
      }
    }
  }
}

TEST_CASE("an instruction set the machine lacks is refused by name") {
  auto made = make_cpu_backend({"sse9", 1});
  REQUIRE_FALSE(made.ok());
  CHECK(made.error().find("sse9") != std::string::npos);
}
