// The best tokens of rows of logits as the device selects them, against a plain sort: by the kernels alone,
// and by a whole program against the reference backend.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "backends/cuda/sampling/best_tokens.h"
#include "backends/reference/reference_backend.h"
#include "tests/cuda/test_queue.h"
#include "tests/unit/op_cases.h"

using namespace tessera;

namespace {

std::vector<TokenLogit> sorted(const std::vector<float>& row, size_t count) {
  std::vector<TokenLogit> all;
  for (uint32_t token = 0; token < row.size(); ++token) {
    if (std::isfinite(row[token])) all.push_back({row[token], token});
  }
  std::stable_sort(all.begin(), all.end(),
                   [](const TokenLogit& a, const TokenLogit& b) { return a.logit > b.logit; });
  all.resize(count);
  return all;
}

bool same(const TokenLogit& a, const TokenLogit& b) { return a.logit == b.logit && a.token == b.token; }

// Rows of every kind: distinct values, many ties, zeros of both signs, some values that are not finite, and
// only such values.
std::vector<float> random_row(rig::Random& random, size_t kind, size_t columns) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::vector<float> row(columns);
  for (float& logit : row) {
    logit = rig::normal(random) * 7;
    if (kind == 1) logit = std::round(logit);
    if (kind == 2) logit = rig::pick(random, 0, 1) == 0 ? 0.0f : -0.0f;
    if (kind == 3 && rig::pick(random, 0, 2) != 0) {
      const float odd[] = {kInfinity, -kInfinity, std::numeric_limits<float>::quiet_NaN(),
                           -std::numeric_limits<float>::quiet_NaN()};
      logit = odd[rig::pick(random, 0, 3)];
    }
    if (kind == 4) logit = -kInfinity;
    if (kind == 5) logit = -std::abs(logit) * 1e-40f;
  }
  return row;
}

}  // namespace

TEST_CASE("the best tokens of a row are those of a stable sort, whatever the row is cut into") {
  const std::unique_ptr<cuda::Queue> queue = cuda::any_queue("best tokens");
  if (!queue) return;
  rig::Random random = cuda::seeded("best tokens");
  constexpr size_t kRows = 6;
  struct Case {
    size_t columns;
    size_t count;
  };
  const Case cases[] = {{1, 1},
                        {1, 3},
                        {rig::pick(random, 2, 2047), 1},
                        {rig::pick(random, 2049, 7000), 1},
                        {rig::pick(random, 2, 600), rig::pick(random, 2, 40)},
                        {rig::pick(random, 2049, 5000), rig::pick(random, 2, 64)},
                        {rig::pick(random, 2049, 5000), cuda::kMostBestTokens}};
  for (const Case& test : cases) {
    CAPTURE(test.columns);
    CAPTURE(test.count);
    const size_t stride = tile::round_up(4 * test.columns, 64) + 64;
    std::vector<std::byte> bytes(kRows * stride, std::byte{0x7f});  // large numbers after the end of each row
    std::vector<std::vector<float>> rows;
    for (size_t row = 0; row < kRows; ++row) {
      rows.push_back(random_row(random, row, test.columns));
      std::memcpy(bytes.data() + row * stride, rows[row].data(), 4 * test.columns);
    }
    const auto columns = static_cast<uint32_t>(test.columns);
    const auto count = static_cast<uint32_t>(test.count);
    auto logits = cuda::DeviceMemory::allocate(bytes.size());
    auto best = cuda::DeviceMemory::allocate(kRows * test.count * sizeof(TokenLogit));
    auto scratch =
        cuda::DeviceMemory::allocate(cuda::best_tokens_scratch(kRows, columns, count) * sizeof(uint64_t));
    REQUIRE(logits.ok());
    REQUIRE(best.ok());
    REQUIRE(scratch.ok());
    queue->upload(logits.value().address(), bytes);
    cuda::best_tokens(*queue,
                      {{logits.value().view<std::byte>(), stride},
                       columns,
                       count,
                       scratch.value().view<uint64_t>(),
                       best.value().view<TokenLogit>()},
                      kRows);
    std::vector<TokenLogit> got(kRows * test.count);
    queue->download(std::as_writable_bytes(std::span(got)), best.value().address());
    const Status status = queue->finish();
    REQUIRE_MESSAGE(status.ok(), (status.ok() ? std::string() : status.error()));
    for (size_t row = 0; row < kRows; ++row) {
      const std::vector<TokenLogit> correct = sorted(rows[row], test.count);
      CAPTURE(row);
      CHECK(std::equal(correct.begin(), correct.end(),
                       got.begin() + static_cast<std::ptrdiff_t>(row * test.count), &same));
    }
  }
}

TEST_CASE("a program that gives the best logits gives those that a run gives, and the reference's") {
  const std::unique_ptr<Backend> device = cuda::any_backend("best logits of a program");
  if (!device) return;
  rig::Random random = cuda::seeded("best logits of a program");
  const std::unique_ptr<Backend> reference = make_reference_backend();
  // Integer products, exact on every backend.
  const rig::OpCase test = rig::linear_case(random, Scheme::w8a8, {{213}, 64, 5, true, true});
  std::vector<std::vector<TokenLogit>> results;
  for (Backend* backend : {device.get(), reference.get()}) {
    std::vector<WeightHandle> handles;
    for (const rig::PackedTensor& weight : test.weights)
      handles.push_back(rig::unwrap(backend->adopt(weight.view()), "adopt"));
    const auto kv = rig::unwrap(backend->create_kv(test.kv, test.pages), "create_kv");
    const auto program = rig::unwrap(
        backend->compile(test.graph, plan_memory(test.graph, test.limits), handles, *kv), "compile");
    REQUIRE(program->most_best() >= 213);
    for (const rig::CaseRun& run : test.runs) {
      std::vector<BatchSequence> sequences;
      size_t first = 0;
      for (const rig::CaseSequence& sequence : run.sequences) {
        sequences.push_back({first, sequence.token_count, sequence.position, sequence.pages});
        first += sequence.token_count;
      }
      const Batch batch{run.tokens, sequences, run.output_rows};
      const size_t outputs = run.output_rows.size();
      std::vector<float> logits(outputs * 213);
      REQUIRE(program->run(batch, logits).ok());
      for (const size_t count : {size_t{1}, size_t{7}, size_t{212}}) {
        std::vector<TokenLogit> best(outputs * count);
        REQUIRE(program->run_best(batch, count, best).ok());
        for (size_t row = 0; row < outputs; ++row) {
          const auto begin = logits.begin() + static_cast<std::ptrdiff_t>(row * 213);
          const auto correct = sorted({begin, begin + 213}, count);
          CHECK(std::equal(correct.begin(), correct.end(),
                           best.begin() + static_cast<std::ptrdiff_t>(row * count), &same));
        }
        results.push_back(best);
      }
      std::vector<TokenLogit> few(outputs);
      CHECK_FALSE(program->run_best(batch, 2, few).ok());
      CHECK_FALSE(program->run_best(batch, 0, few).ok());
    }
  }
  REQUIRE(results.size() % 2 == 0);
  for (size_t i = 0; i < results.size() / 2; ++i) {
    const std::vector<TokenLogit>& other = results[i + results.size() / 2];
    CHECK(std::equal(results[i].begin(), results[i].end(), other.begin(), other.end(), &same));
  }
}
