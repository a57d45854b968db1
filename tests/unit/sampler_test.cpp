// Compares the sampler with a slow implementation of its definition, and the frequency of draws with the
// probabilities.
#include "engine/sampling/sampler.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <vector>

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

// Settings that switch everything off.
tessera::SamplerSettings plain(float temperature = 1.0f) {
  tessera::SamplerSettings settings;
  settings.temperature = temperature;
  settings.top_k = 0;
  settings.top_p = 1.0f;
  settings.min_p = 0.0f;
  return settings;
}

// The probability of every token, computed step by step as the definition says, with full sorts and doubles.
std::vector<double> define(std::vector<float> logits, const std::vector<uint32_t>& seen,
                           const tessera::SamplerSettings& settings) {
  for (const auto& [token, bias] : settings.logit_bias) {
    if (token < logits.size()) logits[token] += bias;
  }
  const size_t window = std::min(seen.size(), settings.penalty_window);
  std::map<uint32_t, float> counts;
  for (size_t i = seen.size() - window; i < seen.size(); ++i) counts[seen[i]] += 1.0f;
  for (const auto& [token, count] : counts) {
    if (token >= logits.size()) continue;
    float& logit = logits[token];
    if (logit > 0) {
      logit /= settings.repeat_penalty;
    } else {
      logit *= settings.repeat_penalty;
    }
    logit -= settings.presence_penalty + settings.frequency_penalty * count;
  }
  std::vector<uint32_t> order;
  for (uint32_t id = 0; id < logits.size(); ++id) {
    if (std::isfinite(logits[id])) order.push_back(id);
  }
  std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return logits[a] > logits[b]; });
  std::vector<double> probabilities(logits.size(), 0.0);
  if (order.empty()) {
    if (!probabilities.empty()) probabilities[0] = 1.0;
    return probabilities;
  }
  if (settings.temperature == 0.0f) {
    probabilities[order[0]] = 1.0;
    return probabilities;
  }
  if (settings.top_k > 0 && order.size() > settings.top_k) order.resize(settings.top_k);
  const double best = logits[order[0]];
  double total = 0.0;
  for (const uint32_t id : order) total += std::exp(logits[id] - best);
  size_t keep = order.size();
  if (settings.top_p < 1.0f) {
    double reached = 0.0;
    keep = 0;
    while (keep < order.size() && (keep == 0 || reached < settings.top_p * total)) {
      reached += std::exp(logits[order[keep]] - best);
      ++keep;
    }
  }
  while (keep > 1 && std::exp(logits[order[keep - 1]] - best) < settings.min_p) --keep;
  order.resize(keep);
  total = 0.0;
  for (const uint32_t id : order) total += std::exp((logits[id] - best) / settings.temperature);
  for (const uint32_t id : order)
    probabilities[id] = std::exp((logits[id] - best) / settings.temperature) / total;
  return probabilities;
}

std::vector<size_t> draw(tessera::Sampler& sampler, const std::vector<float>& logits, size_t draws) {
  std::vector<size_t> counts(logits.size(), 0);
  for (size_t i = 0; i < draws; ++i) {
    std::vector<float> scratch = logits;
    const uint32_t token = sampler.sample(scratch);
    ++counts.at(token);
  }
  return counts;
}

// Chi-square test of draws against probabilities; tokens of probability 0 must never be drawn. With a fixed
// seed the result is fixed too; the bound is five standard deviations of the statistic.
void check_distribution(const std::vector<float>& logits, const std::vector<uint32_t>& seen,
                        tessera::SamplerSettings settings, size_t draws = 20000) {
  settings.seed = 12345;
  const std::vector<double> probabilities = define(logits, seen, settings);
  tessera::Sampler sampler(settings);
  sampler.reset(seen);
  const std::vector<size_t> counts = draw(sampler, logits, draws);
  double statistic = 0.0;
  double rare_expected = 0.0;
  double rare_counted = 0.0;
  double freedom = -1.0;
  size_t impossible = 0;
  for (size_t id = 0; id < counts.size(); ++id) {
    if (probabilities[id] == 0.0) {
      impossible += counts[id];
      continue;
    }
    const double expected = probabilities[id] * static_cast<double>(draws);
    if (expected < 5.0) {
      rare_expected += expected;
      rare_counted += static_cast<double>(counts[id]);
      continue;
    }
    const double difference = static_cast<double>(counts[id]) - expected;
    statistic += difference * difference / expected;
    freedom += 1.0;
  }
  if (rare_expected > 5.0) {
    statistic += (rare_counted - rare_expected) * (rare_counted - rare_expected) / rare_expected;
    freedom += 1.0;
  }
  CHECK(impossible == 0);
  freedom = std::max(freedom, 0.0);
  CAPTURE(statistic);
  CAPTURE(freedom);
  CHECK(statistic <= freedom + 5.0 * std::sqrt(2.0 * freedom) + 1e-9);
}

std::vector<float> random_logits(std::mt19937& random, size_t count) {
  std::normal_distribution<float> normal(0.0f, 2.0f);
  std::vector<float> logits(count);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

const std::vector<float> small = {1.0f, 2.5f, -1.0f, 0.0f, 2.0f, 2.0f, -3.0f, 1.5f};

}  // namespace

TEST_CASE("temperature 0 takes the best token, the smallest id of equals, and draws nothing") {
  tessera::Sampler sampler(plain(0.0f));
  std::vector<float> logits = {1.0f, 3.0f, 3.0f, 2.0f};
  CHECK(sampler.sample(logits) == 1);
  logits = {-5.0f, -2.0f, -9.0f};
  CHECK(sampler.sample(logits) == 1);
  logits = {not_a_number, infinity, 1.0f, -infinity};
  CHECK(sampler.sample(logits) == 2);
}

TEST_CASE("nothing to choose from gives the smallest id") {
  for (const float temperature : {0.0f, 1.0f}) {
    tessera::SamplerSettings settings;
    settings.temperature = temperature;
    tessera::Sampler sampler(settings);
    std::vector<float> logits(9, -infinity);
    CHECK(sampler.sample(logits) == 0);
    logits.assign(9, not_a_number);
    CHECK(sampler.sample(logits) == 0);
    CHECK(sampler.sample({}) == 0);
    logits = {5.0f};
    CHECK(sampler.sample(logits) == 0);
  }
}

TEST_CASE("logits that are no numbers and forbidden tokens are never drawn") {
  tessera::SamplerSettings settings = plain();
  settings.logit_bias = {{1, -infinity}, {77, 3.0f}};
  check_distribution({not_a_number, 9.0f, 1.0f, infinity, 0.5f, -infinity}, {}, settings);
  settings.logit_bias = {{0, -infinity}, {1, -infinity}, {2, -infinity}};
  tessera::Sampler sampler(settings);
  std::vector<float> logits = {1.0f, 2.0f, 3.0f};
  CHECK(sampler.sample(logits) == 0);
}

TEST_CASE("each control alone has the distribution it should") {
  check_distribution(small, {}, plain());
  check_distribution(small, {}, plain(0.5f));
  check_distribution(small, {}, plain(2.0f));
  for (const size_t k : {1, 2, 4, 5, 8, 20}) {
    tessera::SamplerSettings settings = plain();
    settings.top_k = k;
    CAPTURE(k);
    check_distribution(small, {}, settings);
  }
  for (const float p : {0.0f, 0.1f, 0.5f, 0.75f, 0.9f, 0.999f}) {
    tessera::SamplerSettings settings = plain();
    settings.top_p = p;
    CAPTURE(p);
    check_distribution(small, {}, settings);
  }
  for (const float p : {0.01f, 0.1f, 0.5f, 0.7f, 1.0f}) {
    tessera::SamplerSettings settings = plain();
    settings.min_p = p;
    CAPTURE(p);
    check_distribution(small, {}, settings);
  }
  tessera::SamplerSettings biased = plain();
  biased.logit_bias = {{6, 5.0f}, {1, -1.0f}, {1, -1.0f}};
  check_distribution(small, {}, biased);
  for (size_t control = 0; control < 3; ++control) {
    tessera::SamplerSettings settings = plain();
    (control == 0   ? settings.repeat_penalty
     : control == 1 ? settings.presence_penalty
                    : settings.frequency_penalty) = 1.4f;
    CAPTURE(control);
    check_distribution(small, {1, 2, 2, 4, 1, 1, 99}, settings);
  }
}

TEST_CASE("cuts look at probabilities before the temperature") {
  // 0.6, 0.3, 0.1: with p = 0.85 two tokens stay, however flat the temperature makes them.
  const std::vector<float> logits = {std::log(0.6f), std::log(0.3f), std::log(0.1f)};
  tessera::SamplerSettings settings = plain(50.0f);
  settings.top_p = 0.85f;
  tessera::Sampler sampler(settings);
  const std::vector<size_t> counts = draw(sampler, logits, 4000);
  CHECK(counts[2] == 0);
  CHECK(counts[1] > 1700);
}

TEST_CASE("the order of the cuts: top-p counts only what top-k left") {
  // 0.4, 0.3, 0.2, 0.1: two of top-k make 4/7 and 3/7, so p = 0.5 leaves the first alone.
  const std::vector<float> logits = {std::log(0.4f), std::log(0.3f), std::log(0.2f), std::log(0.1f)};
  tessera::SamplerSettings settings = plain();
  settings.top_k = 2;
  settings.top_p = 0.5f;
  tessera::Sampler sampler(settings);
  CHECK(draw(sampler, logits, 500)[0] == 500);
  settings.top_k = 0;
  tessera::Sampler without(settings);
  CHECK(draw(without, logits, 500)[1] > 100);
}

TEST_CASE("controls combined, random logits of odd sizes") {
  const auto seed = static_cast<uint32_t>(std::random_device{}());
  std::cout << "seed " << seed << "\n";
  // With random inputs, only the set of possible tokens is checked, because that cannot fail by chance.
  std::mt19937 random(seed);
  for (size_t round = 0; round < 300; ++round) {
    const size_t size = 1 + random() % 1500;
    const std::vector<float> logits = random_logits(random, size);
    tessera::SamplerSettings settings = plain(0.2f + 0.1f * static_cast<float>(random() % 20));
    if (random() % 2 == 0) settings.top_k = random() % (size + 3);
    if (random() % 2 == 0) settings.top_p = 0.05f + 0.1f * static_cast<float>(random() % 10);
    if (random() % 2 == 0) settings.min_p = 0.05f * static_cast<float>(random() % 10);
    if (random() % 2 == 0) settings.repeat_penalty = 1.3f;
    if (random() % 2 == 0) settings.presence_penalty = 0.7f;
    if (random() % 2 == 0) settings.frequency_penalty = 0.3f;
    settings.penalty_window = random() % 40;
    settings.seed = random();
    for (size_t count = random() % 3; count > 0; --count) {
      settings.logit_bias.emplace_back(static_cast<uint32_t>(random() % size), 2.0f);
    }
    std::vector<uint32_t> seen;
    for (size_t count = random() % 60; count > 0; --count)
      seen.push_back(static_cast<uint32_t>(random() % (size + 2)));
    const std::vector<double> probabilities = define(logits, seen, settings);
    tessera::Sampler sampler(settings);
    sampler.reset(seen);
    const std::vector<size_t> counts = draw(sampler, logits, 60);
    size_t impossible = 0;
    size_t missed = 0;
    for (size_t id = 0; id < size; ++id) {
      if (probabilities[id] == 0.0) impossible += counts[id];
      if (probabilities[id] == 1.0) missed += 60 - counts[id];
    }
    CAPTURE(round);
    CHECK(impossible == 0);
    CHECK(missed == 0);
  }
  // Distributions with fixed inputs.
  std::mt19937 fixed(7);
  for (size_t round = 0; round < 12; ++round) {
    const std::vector<float> logits = random_logits(fixed, 37 + 13 * round);
    tessera::SamplerSettings settings = plain(0.6f + 0.1f * static_cast<float>(round));
    if (round % 2 == 0) settings.top_k = 11;
    if (round % 3 != 0) settings.top_p = 0.9f;
    if (round % 4 != 0) settings.min_p = 0.04f;
    settings.repeat_penalty = 1.2f;
    settings.frequency_penalty = 0.2f;
    settings.logit_bias = {{3, 1.5f}};
    CAPTURE(round);
    check_distribution(logits, {1, 2, 3, 3, 3, 5}, settings);
  }
}

TEST_CASE("a large vocabulary: top-p over more than one sorted block") {
  std::mt19937 random(3);
  std::vector<float> logits = random_logits(random, 128003);
  for (float& logit : logits) logit *= 0.2f;  // flat: half of the probability is tens of thousands of tokens
  tessera::SamplerSettings settings = plain();
  settings.top_p = 0.5f;
  const std::vector<double> probabilities = define(logits, {}, settings);
  tessera::Sampler sampler(settings);
  size_t kept = 0;
  for (const double probability : probabilities) kept += probability > 0.0 ? 1 : 0;
  CHECK(kept > 20000);
  double mean = 0.0;
  double expected = 0.0;
  for (size_t id = 0; id < logits.size(); ++id) expected += probabilities[id] * logits[id];
  for (size_t i = 0; i < 20; ++i) {
    std::vector<float> scratch = logits;
    const uint32_t token = sampler.sample(scratch);
    CHECK(probabilities[token] > 0.0);
    mean += logits[token] / 20.0;
  }
  CHECK(std::fabs(mean - expected) < 0.3);
}

TEST_CASE("penalties change exactly the logits they should") {
  tessera::SamplerSettings settings = plain(0.0f);
  settings.repeat_penalty = 2.0f;
  settings.presence_penalty = 0.25f;
  settings.frequency_penalty = 0.5f;
  settings.penalty_window = 4;
  tessera::Sampler sampler(settings);
  // Only the last four count: 3, 1, 1, 2.
  sampler.reset(std::vector<uint32_t>{0, 0, 3, 1, 1, 2});
  std::vector<float> logits = {4.0f, 4.0f, -1.0f, 8.0f, 0.0f};
  CHECK(sampler.sample(logits) == 0);
  CHECK(logits == std::vector<float>{4.0f, 4.0f / 2 - 0.25f - 1.0f, -2.0f - 0.75f, 4.0f - 0.75f, 0.0f});
  // Two more tokens push the 3 and one 1 out of the window.
  sampler.accept(4);
  sampler.accept(4);
  logits = {4.0f, 4.0f, -1.0f, 8.0f, 0.0f};
  CHECK(sampler.sample(logits) == 3);
  CHECK(logits == std::vector<float>{4.0f, 2.0f - 0.75f, -2.75f, 8.0f, -1.25f});
  sampler.reset();
  logits = {1.0f, 2.0f};
  CHECK(sampler.sample(logits) == 1);
  CHECK(logits == std::vector<float>{1.0f, 2.0f});
}

TEST_CASE("a long reply keeps only the window") {
  tessera::SamplerSettings settings = plain(0.0f);
  settings.presence_penalty = 1.0f;
  settings.penalty_window = 3;
  tessera::Sampler sampler(settings);
  for (uint32_t token = 0; token < 1000; ++token) {
    sampler.accept(token % 10);
    std::vector<float> logits(10, 5.0f);
    sampler.sample(logits);
    for (uint32_t id = 0; id < 10; ++id) {
      const bool recent = (token % 10 + 10 - id) % 10 < 3 && (token % 10 + 10 - id) % 10 <= token;
      REQUIRE(logits[id] == (recent ? 4.0f : 5.0f));
    }
  }
  settings.penalty_window = 0;
  tessera::Sampler without(settings);
  without.accept(1);
  without.reset(std::vector<uint32_t>{1, 1});
  std::vector<float> logits = {0.0f, 1.0f};
  CHECK(without.sample(logits) == 1);
  CHECK(logits[1] == 1.0f);
}

TEST_CASE("the same seed gives the same tokens, another seed others") {
  const auto tokens = [](uint64_t seed, bool reseeded) {
    tessera::SamplerSettings settings;
    settings.temperature = 1.5f;
    settings.seed = reseeded ? seed + 1 : seed;
    tessera::Sampler sampler(settings);
    if (reseeded) {
      std::vector<float> scratch = small;
      sampler.sample(scratch);
      sampler.reseed(seed);
    }
    std::vector<uint32_t> drawn;
    for (size_t i = 0; i < 200; ++i) {
      std::vector<float> scratch = small;
      drawn.push_back(sampler.sample(scratch));
    }
    return drawn;
  };
  CHECK(tokens(1, false) == tokens(1, false));
  CHECK(tokens(1, false) == tokens(1, true));
  CHECK(tokens(1, false) != tokens(2, false));
}

TEST_CASE("draws are those of the generator's own numbers") {
  // mt19937_64 is fixed by the standard; its 53 high bits are the uniform number.
  std::mt19937_64 generator(99);
  tessera::SamplerSettings settings = plain();
  settings.seed = 99;
  tessera::Sampler sampler(settings);
  const std::vector<float> even(4, 0.0f);
  for (size_t i = 0; i < 200; ++i) {
    const double uniform = static_cast<double>(generator() >> 11) / 9007199254740992.0;
    std::vector<float> scratch = even;
    CHECK(sampler.sample(scratch) == static_cast<uint32_t>(uniform * 4.0));
  }
}

TEST_CASE("reset forgets tokens but not the generator's place") {
  tessera::Sampler first(plain());
  tessera::Sampler second(plain());
  for (size_t i = 0; i < 50; ++i) {
    second.reset(std::vector<uint32_t>{1, 2, 3});
    std::vector<float> a = small;
    std::vector<float> b = small;
    CHECK(first.sample(a) == second.sample(b));
  }
}

TEST_CASE("the best logits decide the same tokens as all of them") {
  const uint64_t seed = std::random_device{}();
  std::cout << "sampling from the best: seed " << seed << "\n";
  std::mt19937_64 random(seed);
  for (size_t round = 0; round < 40; ++round) {
    tessera::SamplerSettings settings =
        plain(round % 5 == 0 ? 0.0f : 0.3f + 0.1f * static_cast<float>(round));
    settings.top_k = 1 + random() % 30;
    if (round % 2 == 0) settings.top_p = 0.9f;
    if (round % 3 == 0) settings.min_p = 0.05f;
    if (round % 7 == 0) settings.penalty_window = 0;  // then penalties change nothing
    if (round % 7 == 0) settings.presence_penalty = 1.0f;
    settings.seed = seed + round;
    tessera::Sampler of_all(settings);
    tessera::Sampler of_best(settings);
    const size_t needed = of_best.candidates_needed();
    REQUIRE(needed == (settings.temperature == 0.0f ? 1 : settings.top_k));
    for (size_t draw = 0; draw < 50; ++draw) {
      std::vector<float> logits(31 + random() % 100);
      for (float& logit : logits) {
        logit = static_cast<float>(static_cast<int>(random() % 41)) / 4 - 5;  // many ties
        if (draw % 4 == 1 && random() % 3 != 0) logit = draw % 8 == 1 ? -infinity : not_a_number;
        if (draw % 10 == 9) logit = -infinity;
      }
      std::vector<tessera::TokenLogit> best;
      for (uint32_t id = 0; id < logits.size(); ++id) {
        if (std::isfinite(logits[id])) best.push_back({logits[id], id});
      }
      std::stable_sort(best.begin(), best.end(),
                       [](const auto& a, const auto& b) { return a.logit > b.logit; });
      best.resize(needed);
      REQUIRE(of_best.sample_best(best) == of_all.sample(logits));
    }
  }
  tessera::SamplerSettings settings;
  CHECK(tessera::Sampler(settings).candidates_needed() == settings.top_k);
  settings.top_k = 0;
  CHECK(tessera::Sampler(settings).candidates_needed() == 0);
  settings = {};
  settings.frequency_penalty = 0.1f;
  CHECK(tessera::Sampler(settings).candidates_needed() == 0);
  settings = {};
  settings.logit_bias = {{1, 1.0f}};
  CHECK(tessera::Sampler(settings).candidates_needed() == 0);
}
