// The tests of the benchmark: how they are named and what they need.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace tessera {

inline constexpr size_t kBatchTestTokens = 32;  // that every sequence of a batch generates

// "pp512": a prompt of 512 tokens; "tg128@d4096": 128 tokens one by one behind 4096; "batch16": 16 sequences
// that generate 32 tokens each at once; "attn@d16384": the attention of single tokens behind 16384, alone;
// "mm16": each kind of the model's matrix products alone, with 16 tokens.
struct BenchTest {
  enum class Kind { prompt, generate, batch, attention, product } kind = Kind::prompt;
  size_t count = 0;  // tokens, or sequences of a batch
  size_t depth = 0;  // tokens before; generate and attention only

  std::string name() const;
  size_t sequence_tokens() const;  // of its longest sequence; 0 where it has none
  size_t cache_tokens() const;     // tokens of KV cache that it needs, in whole pages
};

// The tests of a list separated by commas. Throws UsageError.
std::vector<BenchTest> parse_bench_tests(const std::string& list);

}  // namespace tessera
