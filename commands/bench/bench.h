// The results of the benchmark: shared by measuring, reporting and plotting.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "commands/bench/bench_test.h"
#include "engine/measure/runtime_speed.h"

namespace tessera {

struct BenchResult {
  BenchTest test;
  double tokens_per_second = 0;  // median of the repetitions
  double low = 0;
  double high = 0;
  double bytes_per_token = 0;     // weight bytes read; none for attention
  double kv_bytes_per_token = 0;  // KV cache bytes read; part of the share for attention only
  double operations_per_token = 0;
  // Of the limit that this test comes up against: median of the repetitions' shares.
  double share = 0;
  bool memory_bound = false;  // that limit is the memory's
  SpeedLimits limits;         // medians around this test
};

// One kind of matrix product in a "mmN" test.
struct BenchProduct {
  BenchTest test;
  std::string place;  // where it is computed, if layers are split; otherwise empty
  ProductSpeed speed;
  double gbps = 0;  // weight bytes read
  double gops = 0;
  double share = 0;           // of the limit that it comes closer to
  bool memory_bound = false;  // that limit is the memory's
  SpeedLimits limits;         // around the test
};

struct SkippedTest {
  BenchTest test;
  std::string reason;
};

struct BenchReport {
  std::string processor;
  std::string backend;
  size_t threads = 0;
  std::string model;
  std::string scheme;
  unsigned kv_bits = 0;
  uint64_t weight_bytes = 0;
  size_t repetitions = 0;
  SpeedLimits limits;  // medians over the whole run
  std::vector<BenchResult> results;
  std::vector<BenchProduct> products;
  std::vector<SkippedTest> skipped;
};

// form: "table", "json", "csv" or "md". Several reports, at least one, become one table with a column for
// the scheme, and a JSON array.
std::string bench_text(std::span<const BenchReport> reports, const std::string& form);

// Roofline: operations per second over operations per byte, both axes logarithmic, as a whole SVG document.
std::string roofline_svg(const BenchReport& report);

}  // namespace tessera
