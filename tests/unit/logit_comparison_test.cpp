// KL divergence, agreement and the figures over tokens, against closed forms and direct formulas.
#include "engine/measure/logit_comparison.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <limits>
#include <random>
#include <vector>

using namespace tessera;

namespace {

double divergence_of(const std::vector<float>& reference, const std::vector<float>& model) {
  const LogitRow reference_row = read_logits(reference);
  std::vector<double> probabilities(reference.size());
  softmax(reference, reference_row, probabilities);
  return kl_divergence(probabilities, reference, reference_row, model, read_logits(model));
}

// The definition, word for word, in the widest arithmetic there is.
long double direct_divergence(const std::vector<float>& reference, const std::vector<float>& model) {
  long double sum_p = 0, sum_q = 0;
  for (const float logit : reference) sum_p += std::exp(static_cast<long double>(logit));
  for (const float logit : model) sum_q += std::exp(static_cast<long double>(logit));
  long double divergence = 0;
  for (size_t i = 0; i < reference.size(); ++i) {
    const long double p = std::exp(static_cast<long double>(reference[i])) / sum_p;
    const long double q = std::exp(static_cast<long double>(model[i])) / sum_q;
    divergence += p * std::log(p / q);
  }
  return divergence;
}

std::mt19937_64 seeded() {
  const auto seed = std::random_device{}();
  std::cout << "seed " << seed << "\n";
  return std::mt19937_64(seed);
}

}  // namespace

TEST_CASE("two tokens with known probabilities") {
  // p = (1/4, 3/4), q = (1/2, 1/2): D = log 2 - H(p)
  const double entropy = -(0.25 * std::log(0.25) + 0.75 * std::log(0.75));
  const std::vector<float> p = {0, std::log(3.0f)};
  const std::vector<float> q = {5, 5};
  CHECK(divergence_of(p, q) == doctest::Approx(std::log(2.0) - entropy).epsilon(1e-7));
  // and the other way round: 1/2 log(2/1) + 1/2 log(2/3)
  CHECK(divergence_of(q, p) == doctest::Approx(0.5 * std::log(4.0 / 3.0)).epsilon(1e-7));
}

TEST_CASE("a reference that is sure costs what the model gives its token") {
  const std::vector<float> sure = {200, 0, 0};
  const std::vector<float> even = {1, 1, 1};
  CHECK(divergence_of(sure, even) == doctest::Approx(std::log(3.0)));
  CHECK(read_logits(even).normalizer == doctest::Approx(1 + std::log(3.0)).epsilon(1e-14));
  CHECK(read_logits(std::vector<float>{1000, 1000}).normalizer == doctest::Approx(1000 + std::log(2.0)));
}

TEST_CASE("equal rows differ by exactly nothing, shifted ones by rounding") {
  std::mt19937_64 random = seeded();
  std::normal_distribution<float> normal(0, 5);
  std::vector<float> row(1237), shifted(1237);
  for (float& logit : row) logit = normal(random);
  CHECK(divergence_of(row, row) == 0);
  // Multiples of 1/1024 and a shift by a power of two: no rounding in the logits themselves.
  for (size_t i = 0; i < row.size(); ++i) {
    row[i] = std::round(row[i] * 1024) / 1024;
    shifted[i] = row[i] + 64;
  }
  CHECK(divergence_of(row, shifted) >= 0);
  CHECK(divergence_of(row, shifted) < 1e-12);
}

TEST_CASE("random rows against the direct formula in long double") {
  std::mt19937_64 random = seeded();
  for (const float noise : {3.0f, 0.1f, 1e-3f, 1e-5f}) {
    for (const size_t size : {2u, 17u, 4096u}) {
      std::normal_distribution<float> normal(0, 4), little(0, noise);
      std::vector<float> reference(size), model(size);
      for (size_t i = 0; i < size; ++i) {
        reference[i] = normal(random);
        model[i] = reference[i] + little(random);
      }
      const auto direct = static_cast<double>(direct_divergence(reference, model));
      CHECK(std::abs(divergence_of(reference, model) - direct) <= 1e-10 * direct + 1e-14);
      CHECK(direct >= -1e-17);
    }
  }
}

TEST_CASE("the likeliest token is the first of equals, and what is not finite shows") {
  CHECK(read_logits(std::vector<float>{1, 3, 3, 2}).top == 1);
  CHECK(read_logits(std::vector<float>{-5, -7}).top == 0);
  const float infinity = std::numeric_limits<float>::infinity();
  const float nothing = std::numeric_limits<float>::quiet_NaN();
  CHECK_FALSE(std::isfinite(read_logits(std::vector<float>{1, nothing, 2}).normalizer));
  CHECK_FALSE(std::isfinite(read_logits(std::vector<float>{nothing, 1, 2}).normalizer));
  CHECK_FALSE(std::isfinite(read_logits(std::vector<float>{1, infinity}).normalizer));
  CHECK_FALSE(std::isfinite(read_logits(std::vector<float>{-infinity, -infinity}).normalizer));
}

TEST_CASE("mean and standard error of a sample") {
  SampleMean sample;
  CHECK(sample.standard_error() == 0);
  for (const double value : {2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0}) sample.add(value);
  CHECK(sample.mean() == doctest::Approx(5));
  CHECK(sample.standard_error() == doctest::Approx(std::sqrt(32.0 / 7 / 8)));  // squares sum to 32
  SampleMean far;  // a large mean must not drown a small spread
  for (const double value : {1e9 + 1, 1e9 + 2, 1e9 + 3}) far.add(value);
  CHECK(far.standard_error() == doctest::Approx(std::sqrt(1.0 / 3)));
}

TEST_CASE("quantiles lie between sorted values, and the order of tokens does not matter") {
  std::mt19937_64 random = seeded();
  std::vector<float> values(997);
  std::exponential_distribution<float> exponential(3);
  for (float& value : values) value = exponential(random);
  Divergence divergence;
  for (const float value : values) divergence.add({static_cast<double>(value), 0, true});
  std::sort(values.begin(), values.end());
  for (const double share : {0.0, 0.25, 0.5, 0.99, 1.0}) {
    const double at = share * 996;
    const auto below = static_cast<size_t>(at);
    const double low = static_cast<double>(values[below]);
    const double high = static_cast<double>(values[std::min<size_t>(below + 1, 996)]);
    CHECK(divergence.kl_quantile(share) == doctest::Approx(low + (at - std::floor(at)) * (high - low)));
  }
  CHECK(divergence.most_kl() == static_cast<double>(values.back()));
  CHECK(divergence.agreement() == 1);
  CHECK(divergence.agreement_error() == 0);
  Divergence one;
  one.add({0.25, 0.1, false});
  CHECK(one.kl_quantile(0.5) == 0.25);
  CHECK(one.agreement() == 0);
}

TEST_CASE("agreement and the ratio of perplexities") {
  Divergence divergence;
  SampleMean model, reference;
  std::mt19937_64 random = seeded();
  std::normal_distribution<double> normal(2, 1), more(0.05, 0.01);
  for (size_t i = 0; i < 400; ++i) {
    const double at_reference = normal(random);
    const double difference = more(random);
    reference.add(at_reference);
    model.add(at_reference + difference);
    divergence.add({0.01, difference, i % 4 != 0});
  }
  CHECK(divergence.agreement() == doctest::Approx(0.75));
  CHECK(divergence.agreement_error() == doctest::Approx(std::sqrt(0.75 * 0.25 / 400)));
  CHECK(divergence.ratio() == doctest::Approx(std::exp(model.mean() - reference.mean())));
  // Paired: the spread of the text's own difficulty, 1 nat, cancels.
  CHECK(divergence.ratio_error() < 0.001);
  ModelQuality quality{model, divergence};
  CHECK(quality.perplexity() == doctest::Approx(std::exp(model.mean())));
  CHECK(quality.perplexity_error() == doctest::Approx(quality.perplexity() * model.standard_error()));
}
