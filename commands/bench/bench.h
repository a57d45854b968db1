// What the benchmark measures and what comes out of it: shared by measuring, reporting and plotting.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/measure/runtime_speed.h"

namespace tessera {

// "pp512": a prompt of 512 tokens; "tg128@d4096": 128 tokens one by one behind 4096; "batch16": 16 sequences
// that generate 32 tokens each at once; "attn@d16384": the attention of single tokens behind 16384, alone;
// "mm16": the model's kinds of matrix products with 16 tokens, each alone.
struct BenchTest {
  enum class Kind { prompt, generate, batch, attention, product } kind = Kind::prompt;
  size_t count = 0;  // tokens, or sequences of a batch
  size_t depth = 0;  // tokens before; generate and attention only
  std::string name() const;
};
// Throws UsageError.
std::vector<BenchTest> parse_bench_tests(const std::string& list);

struct BenchResult {
  BenchTest test;
  double tokens_per_second = 0;  // median of the repetitions
  double low = 0;
  double high = 0;
  double bytes_per_token = 0;     // weight bytes read; none for attention
  double kv_bytes_per_token = 0;  // KV cache bytes read; part of the share for attention only
  double operations_per_token = 0;
  double share = 0;  // of the limit that binds, median over repetitions of their own shares
  bool memory_bound = false;
  SpeedLimits limits;  // medians around this test
};

// One kind of matrix product in a "mmN" test.
struct BenchProduct {
  BenchTest test;
  std::string place;  // which computes it, where layers are split; otherwise empty
  ProductSpeed speed;
  double gbps = 0;  // weight bytes read
  double gops = 0;
  double share = 0;  // of the limit that binds more
  bool memory_bound = false;
  SpeedLimits limits;  // around the test
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
