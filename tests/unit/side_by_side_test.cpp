// Several models over the same windows: the same figures together, one by one and in passes, and the same as
// straight from the definition.
#include "engine/measure/side_by_side.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "engine/measure/random_model.h"

using namespace tessera;

namespace {

constexpr size_t kWindow = 24;

Hyperparameters small_shape() {
  Hyperparameters h;
  h.family = "llama";
  h.vocabulary = 311;
  h.hidden = 64;
  h.layers = 2;
  h.query_heads = 2;
  h.kv_heads = 1;
  h.head_dim = 32;
  h.ffn = 96;
  h.context = 64;
  return h;
}

std::vector<uint32_t> random_tokens(size_t count) {
  std::mt19937 random(4711);
  std::vector<uint32_t> ids(count);
  for (uint32_t& id : ids) id = static_cast<uint32_t>(random() % 311);
  return ids;
}

Contender contender(const Model& model, unsigned kv_bits, const char* name) {
  Contender result{&model, {}, name};
  result.options.threads = 1;
  result.options.kv_bits = kv_bits;
  return result;
}

void check_same(const ModelQuality& a, const ModelQuality& b) {
  CHECK(a.nats.count() == b.nats.count());
  CHECK(a.nats.mean() == b.nats.mean());
  REQUIRE(a.divergence.has_value());
  REQUIRE(b.divergence.has_value());
  CHECK(a.divergence->kl().mean() == b.divergence->kl().mean());
  CHECK(a.divergence->kl_quantile(0.99) == b.divergence->kl_quantile(0.99));
  CHECK(a.divergence->agreement() == b.divergence->agreement());
}

// Log-probabilities of every token of a window from one run over all of it, one row per scored token.
std::vector<std::vector<double>> log_probabilities(const Model& model, unsigned kv_bits,
                                                   const Window& window) {
  SessionOptions options;
  options.threads = 1;
  options.kv_bits = kv_bits;
  options.context = kWindow;
  options.max_outputs = kWindow;
  Session session(model, options);
  const std::vector<uint32_t> tokens = window.tokens();
  const SequenceInput input{session.create_sequence(), tokens, LogitRows::all};
  const std::span<const float> logits = session.run({&input, 1});
  std::vector<std::vector<double>> rows;
  for (size_t row = window.context - 1; row + 1 < tokens.size(); ++row) {
    const std::span<const float> values = logits.subspan(row * 311, 311);
    double sum = 0;
    for (const float value : values) sum += std::exp(static_cast<double>(value));
    std::vector<double>& out = rows.emplace_back();
    for (const float value : values) out.push_back(static_cast<double>(value) - std::log(sum));
  }
  return rows;
}

}  // namespace

TEST_CASE("together, one by one and straight from the definition") {
  const RandomModel float_bytes("small", small_shape(), Scheme::bf16, 1, 5);
  const RandomModel eight_bytes("small", small_shape(), Scheme::w8a8, 1, 5);
  const RandomModel four_bytes("small", small_shape(), Scheme::w4a8, 1, 5);
  const Model reference = Model::from_memory(float_bytes.bytes());
  const Model eight = Model::from_memory(eight_bytes.bytes());
  const Model four = Model::from_memory(four_bytes.bytes());
  const std::vector<Contender> contenders = {contender(eight, 16, "eight"), contender(four, 8, "four"),
                                             contender(four, 4, "four"), contender(reference, 16, "same")};
  for (const size_t stride : {kWindow - 1, size_t{7}}) {
    const WindowPlan plan = plan_windows(random_tokens(101), 310, kWindow, stride);
    REQUIRE(plan.windows.size() > 3);
    const SideBySide together =
        measure_side_by_side(plan, kWindow, contender(reference, 16, "reference"), contenders);
    REQUIRE(together.models.size() == 4);
    CHECK(together.kv_bits == std::vector<unsigned>{16, 8, 4, 16});
    CHECK(together.models[3].divergence->most_kl() == 0);
    CHECK(together.models[0].divergence->kl().mean() < together.models[1].divergence->kl().mean());
    for (const size_t at_once : {size_t{1}, size_t{3}}) {
      const SideBySide passes =
          measure_side_by_side(plan, kWindow, contender(reference, 16, "reference"), contenders, {}, at_once);
      REQUIRE(passes.models.size() == 4);
      CHECK(passes.kv_bits == together.kv_bits);
      CHECK(passes.reference->nats.mean() == together.reference->nats.mean());
      for (size_t i = 0; i < 4; ++i) check_same(passes.models[i], together.models[i]);
    }

    double divergence = 0, nats = 0;
    size_t count = 0, same_top = 0;
    for (const Window& window : plan.windows) {
      const auto p = log_probabilities(reference, 16, window);
      const auto q = log_probabilities(four, 4, window);
      const std::vector<uint32_t> tokens = window.tokens();
      for (size_t row = 0; row < p.size(); ++row) {
        for (size_t i = 0; i < 311; ++i) divergence += std::exp(p[row][i]) * (p[row][i] - q[row][i]);
        nats -= q[row][tokens[window.context + row]];
        same_top += std::max_element(p[row].begin(), p[row].end()) - p[row].begin() ==
                            std::max_element(q[row].begin(), q[row].end()) - q[row].begin()
                        ? 1
                        : 0;
        ++count;
      }
    }
    const ModelQuality& measured = together.models[2];
    CHECK(count == plan.scored());
    CHECK(measured.nats.count() == count);
    CHECK(measured.nats.mean() == doctest::Approx(nats / static_cast<double>(count)).epsilon(1e-9));
    CHECK(measured.divergence->kl().mean() ==
          doctest::Approx(divergence / static_cast<double>(count)).epsilon(1e-9));
    CHECK(measured.divergence->agreement() ==
          doctest::Approx(static_cast<double>(same_top) / static_cast<double>(count)));
    CHECK(measured.divergence->ratio() ==
          doctest::Approx(measured.perplexity() / together.reference->perplexity()).epsilon(1e-9));
  }
}
