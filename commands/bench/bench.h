// What the benchmark measures and what comes out of it: shared by measuring, reporting and plotting.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/measure/product_speed.h"

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

// Limits of this machine, or of the device that computes, around one measurement, means of before and after.
struct BenchLimits {
  double read_gbps = 0;  // memory: read, or on a device read and written by a copy
  double int8_gops = 0;
};

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
  BenchLimits limits;  // medians around this test
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
  BenchLimits limits;  // around the test
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
  BenchLimits limits;  // medians over the whole run
  std::vector<BenchResult> results;
  std::vector<BenchProduct> products;
  std::vector<SkippedTest> skipped;
};

// The machine's limits, measured now (takes about a third of a second).
BenchLimits measure_limits(size_t threads);
std::string bench_processor();
size_t bench_threads(size_t asked);  // threads a session really uses

double median(std::vector<double> values);

// form: "table", "json", "csv" or "md". Several reports, at least one, become one table with a column for
// the scheme, and a JSON array.
std::string bench_text(std::span<const BenchReport> reports, const std::string& form);

// Roofline: operations per second over operations per byte, both axes logarithmic, as a whole SVG document.
std::string roofline_svg(const BenchReport& report);

}  // namespace tessera
