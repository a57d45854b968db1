// What the tests of the reference backend share: the rows that an op should give, worked out in the test, and
// their comparison with what the backend gives.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iostream>
#include <memory>
#include <random>
#include <vector>

#include "backends/reference/reference_backend.h"
#include "tests/unit/op_rig.h"

namespace tessera {

using Row = std::vector<double>;

inline uint64_t fresh_seed() {
  const uint64_t seed = std::random_device{}();
  std::cout << "seed " << seed << "\n";
  return seed;
}

// A token of a run whose logits were asked for.
struct Output {
  uint32_t token;
  size_t position;
};

inline std::vector<Output> outputs_of(const rig::OpCase& test) {
  std::vector<Output> outputs;
  for (const rig::CaseRun& run : test.runs) {
    std::vector<size_t> positions;
    for (const rig::CaseSequence& sequence : run.sequences) {
      for (size_t i = 0; i < sequence.token_count; ++i) positions.push_back(sequence.position + i);
    }
    for (const uint32_t row : run.output_rows) outputs.push_back({run.tokens[row], positions[row]});
  }
  return outputs;
}

inline Row table_row(const rig::PackedTensor& table, size_t row) {
  const auto begin = table.values.begin() + static_cast<std::ptrdiff_t>(row * table.columns());
  return Row(begin, begin + static_cast<std::ptrdiff_t>(table.columns()));
}

// Runs the case and compares with expected rows, one per output: |error| within bound * largest of the row.
inline void check_rows(const rig::OpCase& test, const std::vector<Row>& expected, double bound) {
  const std::unique_ptr<Backend> backend = make_reference_backend();
  const std::vector<float> got = rig::run_case(*backend, test);
  CAPTURE(test.name);
  REQUIRE(!expected.empty());
  REQUIRE(got.size() == expected.size() * expected.front().size());
  double worst = 0;
  for (size_t row = 0; row < expected.size(); ++row) {
    double largest = 0;
    for (const double value : expected[row]) largest = std::max(largest, std::abs(value));
    for (size_t i = 0; i < expected[row].size(); ++i) {
      const double found = got[row * expected[row].size() + i];
      REQUIRE(std::isfinite(found));
      if (found != expected[row][i])
        worst = std::max(worst, std::abs(found - expected[row][i]) / std::max(largest, 1e-37));
    }
  }
  CHECK(worst <= bound);
}

// Just above half a unit in the last place of float32: an op rounds once.
inline constexpr double kRoundedOnce = 6.1e-8;

// The codes of a row by the definition, in float32.
struct Codes {
  float scale = 0;
  std::vector<int> codes;
};

inline Codes quantized(const Row& row) {
  Codes result;
  float largest = 0;
  for (const double value : row) largest = std::fmax(largest, std::fabs(static_cast<float>(value)));
  result.scale = largest / 127.0f;
  for (const double value : row) {
    const float quotient = result.scale == 0 ? 0.0f : static_cast<float>(value) / result.scale;
    // Half to even by hand.
    const float below = std::floor(quotient);
    const float rest = quotient - below;
    int code = static_cast<int>(below);
    if (rest > 0.5f || (rest == 0.5f && code % 2 != 0)) ++code;
    result.codes.push_back(std::min(127, std::max(-127, code)));
  }
  return result;
}

}  // namespace tessera
