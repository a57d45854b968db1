#include "commands/bench/bench_test.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "commands/command_line/arguments.h"
#include "graph/batch.h"

namespace tessera {

namespace {

constexpr size_t kAttentionTokens = 16;
constexpr size_t kMostTokens = size_t{1} << 24;
constexpr size_t kMostProductTokens = 65536;

BenchTest parse_test(const std::string& text) {
  const auto number = [&](std::string_view digits, uint64_t least, uint64_t most) {
    return static_cast<size_t>(parse_integer(fmt::format("--tests: '{}'", text), digits, least, most));
  };
  const std::string_view word = text;
  if (word.substr(0, 2) == "pp") return {BenchTest::Kind::prompt, number(word.substr(2), 1, kMostTokens), 0};
  if (word.substr(0, 5) == "batch") return {BenchTest::Kind::batch, number(word.substr(5), 1, 4096), 0};
  if (word.substr(0, 6) == "attn@d")
    return {BenchTest::Kind::attention, kAttentionTokens, number(word.substr(6), 1, kMostTokens)};
  if (word.substr(0, 2) == "mm")
    return {BenchTest::Kind::product, number(word.substr(2), 1, kMostProductTokens), 0};
  if (word.substr(0, 2) == "tg") {
    const size_t at = word.find("@d");
    const size_t count = number(word.substr(2, at == std::string_view::npos ? at : at - 2), 1, kMostTokens);
    return {BenchTest::Kind::generate, count,
            at == std::string_view::npos ? 0 : number(word.substr(at + 2), 0, kMostTokens)};
  }
  throw UsageError(fmt::format(
      "--tests: expected ppN, tgN, tgN@dDEPTH, attn@dDEPTH, batchN or mmN separated by commas, found '{}'",
      text));
}

}  // namespace

std::string BenchTest::name() const {
  switch (kind) {
    case Kind::prompt:
      return fmt::format("pp{}", count);
    case Kind::batch:
      return fmt::format("batch{}", count);
    case Kind::attention:
      return fmt::format("attn@d{}", depth);
    case Kind::product:
      return fmt::format("mm{}", count);
    case Kind::generate:
      break;
  }
  return depth == 0 ? fmt::format("tg{}", count) : fmt::format("tg{}@d{}", count, depth);
}

size_t BenchTest::sequence_tokens() const {
  if (kind == Kind::product) return 0;
  return kind == Kind::batch ? kBatchTestTokens : depth + count;
}

size_t BenchTest::cache_tokens() const {
  const auto whole_pages = [](size_t tokens) {
    return (tokens + kKvPageTokens - 1) / kKvPageTokens * kKvPageTokens;
  };
  if (kind == Kind::product) return kKvPageTokens;
  return (kind == Kind::batch ? count : 1) * whole_pages(sequence_tokens());
}

std::vector<BenchTest> parse_bench_tests(const std::string& list) {
  std::vector<BenchTest> tests;
  for (size_t begin = 0; begin <= list.size();) {
    const size_t end = std::min(list.find(',', begin), list.size());
    tests.push_back(parse_test(list.substr(begin, end - begin)));
    begin = end + 1;
  }
  return tests;
}

}  // namespace tessera
