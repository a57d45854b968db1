// The integer kernels of attention against exact arithmetic on the same codes: every instruction set of this
// machine, all head sizes, odd numbers of queries and keys, arrays that end at a protected page.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "gguf-like-format/float_types.h"
#include "tests/unit/kernel_cases.h"

using namespace tessera;
using namespace tessera::kernel_cases;

namespace {

constexpr size_t kRows = tile::kPanelRows;
constexpr size_t kPageTokens = 64;

// x in whole steps as the kernels define them: float32, half to even.
struct Steps {
  float step = 0;
  std::vector<int64_t> whole;
};

Steps in_steps(const float* x, size_t n, int most) {
  Steps out;
  float largest = 0;
  for (size_t i = 0; i < n; ++i) largest = std::max(largest, std::fabs(x[i]));
  out.step = largest / static_cast<float>(most);
  const float inverse = out.step >= cpu::kLeastNormal ? 1.0f / out.step : 0.0f;
  for (size_t i = 0; i < n; ++i) out.whole.push_back(std::llrint(x[i] * inverse));
  return out;
}

int code_of(const uint8_t* panel, unsigned bits, size_t row, size_t column) {
  if (bits == 8) return panel[tile::byte_in_panel(row, column)];
  const tile::Nibble at = tile::nibble_in_panel(row, column);
  return at.high ? panel[at.byte] >> 4 : panel[at.byte] & 15;
}

float half_at(const uint8_t* at, size_t index) {
  uint16_t bits = 0;
  std::memcpy(&bits, at + 2 * index, sizeof bits);
  return f16_to_f32(bits);
}

void put_half(uint8_t* at, size_t index, float value) {
  const uint16_t bits = f32_to_f16(value);
  std::memcpy(at + 2 * index, &bits, sizeof bits);
}

void fill_codes(Random& random, uint8_t* bytes, size_t count, unsigned bits, bool keys) {
  for (size_t i = 0; i < count; ++i) {
    bytes[i] = static_cast<uint8_t>(pick(random, 0, 255));
    // Codes of 8 bits are +-127: unsigned around 128 in K, signed in V.
    if (bits == 8 && bytes[i] == (keys ? 0 : 128)) bytes[i] = 1;
  }
}

}  // namespace

TEST_CASE("scores are exact products of whole numbers") {
  Random random = seeded("scores");
  for (const unsigned bits : {8u, 4u}) {
    for (const size_t head_dim : {8, 16, 24, 40, 64, 80, 96, 128, 256}) {
      const size_t queries = pick(random, 1, 14);
      const size_t keys = pick(random, 1, kPageTokens);
      const size_t panels = (keys + kRows - 1) / kRows;
      const size_t codes = head_dim * kRows * bits / 8;
      const size_t stride = tile::round_up(codes + (bits == 8 ? 32 : 64), 64);
      EdgeArray<uint8_t> page(panels * stride);
      fill_codes(random, page.data(), page.size(), bits, true);
      for (size_t p = 0; p < panels; ++p) {
        for (size_t r = 0; r < kRows; ++r) {
          put_half(page.data() + p * stride + codes, r, std::fabs(normal(random, 0.02f)));
          if (bits == 4) put_half(page.data() + p * stride + codes + 32, r, normal(random));
        }
      }
      EdgeArray<float> q(queries * head_dim);
      for (float& value : q.values()) value = normal(random, pick(random, 0, 9) == 0 ? 30.0f : 1.0f);
      if (queries > 2) std::fill_n(q.data() + head_dim, head_dim, 0.0f);
      const float scale = 0.125f;
      for (const cpu::Kernels* kernels : runnable_kernels()) {
        EdgeArray<uint8_t> digits(queries * cpu::query_bytes(head_dim));
        std::vector<cpu::QueryTerms> terms(queries);
        for (size_t i = 0; i < queries; ++i) {
          (bits == 8 ? kernels->attention_rows.split_query8 : kernels->attention_rows.split_query4)(
              q.data() + i * head_dim, head_dim, scale, digits.data() + i * cpu::query_bytes(head_dim),
              &terms[i]);
        }
        EdgeArray<float> y(queries * panels * kRows);
        const cpu::ScoreProduct job{page.data(),
                                    stride,
                                    keys,
                                    head_dim,
                                    digits.data(),
                                    cpu::query_bytes(head_dim),
                                    terms.data(),
                                    queries,
                                    y.data(),
                                    panels * kRows,
                                    pick(random, 0, 1) == 0 ? nullptr : page.data()};
        (bits == 8 ? kernels->attention_products.score_keys8 : kernels->attention_products.score_keys4)(job);
        double worst = 0;
        for (size_t i = 0; i < queries; ++i) {
          const Steps steps = in_steps(q.data() + i * head_dim, head_dim,
                                       bits == 8 ? cpu::kLargestQuery16 : cpu::kLargestQuery8);
          double total = 0;
          double magnitude = 0;
          for (size_t k = 0; k < head_dim; ++k) {
            total += double{q[i * head_dim + k]};
            magnitude += std::fabs(double{q[i * head_dim + k]});
          }
          for (size_t t = 0; t < panels * kRows; ++t) {
            const uint8_t* panel = page.data() + t / kRows * stride;
            const int zero = bits == 8 ? 128 : 8;
            int64_t dot = 0;
            for (size_t k = 0; k < head_dim; ++k)
              dot += (code_of(panel, bits, t % kRows, k) - zero) * steps.whole[k];
            const double key_scale = half_at(panel + codes, t % kRows);
            const double constant =
                bits == 8 ? 0 : 8 * key_scale + double{half_at(panel + codes + 32, t % kRows)};
            const double product = double{scale} * double{steps.step} * key_scale * static_cast<double>(dot);
            const double expected = product + double{scale} * total * constant;
            // Kernels may take the codes' middle away after the product: then both parts are rounded.
            const double parts = bits == 8 ? 0 : std::fabs(constant) + 8 * key_scale;
            const double allowed = 6 * kRoundoff * (std::fabs(product) + double{scale} * magnitude * parts) *
                                       static_cast<double>(bits == 4 ? head_dim : 1) +
                                   1e-30;
            worst = std::max(worst, std::fabs(y[i * panels * kRows + t] - expected) / allowed);
          }
        }
        CAPTURE(kernels->name);
        CAPTURE(bits);
        CAPTURE(head_dim);
        CAPTURE(queries);
        CHECK(worst <= 1.0);
        CHECK(y.untouched());
        CHECK(digits.untouched());
      }
    }
  }
}

TEST_CASE("queries that are not finite give scores that are not") {
  for (const unsigned bits : {8u, 4u}) {
    for (const float odd :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      for (const cpu::Kernels* kernels : runnable_kernels()) {
        std::vector<float> q(24, 1.0f);
        q[17] = odd;
        std::vector<uint8_t> digits(cpu::query_bytes(24));
        cpu::QueryTerms terms{};
        (bits == 8 ? kernels->attention_rows.split_query8 : kernels->attention_rows.split_query4)(
            q.data(), 24, 1.0f, digits.data(), &terms);
        CAPTURE(kernels->name);
        CHECK_FALSE(std::isfinite(terms.factor));
      }
    }
  }
}

TEST_CASE("weighted values are exact products of whole numbers, constants included") {
  Random random = seeded("weighted values");
  for (const unsigned bits : {8u, 4u}) {
    for (const size_t head_dim : {8, 16, 24, 64, 80, 128, 256}) {
      const size_t queries = pick(random, 1, 14);
      const size_t keys = pick(random, 1, kPageTokens);
      const size_t panels = (head_dim + kRows - 1) / kRows;
      const size_t stride = kPageTokens * kRows * bits / 8;
      EdgeArray<uint8_t> page(panels * stride);
      fill_codes(random, page.data(), page.size(), bits, false);
      EdgeArray<uint8_t> tail(4 * kPageTokens);
      for (size_t t = 0; t < kPageTokens; ++t) {
        // Tokens that the page does not hold may have anything for a scale.
        put_half(tail.data(), t,
                 t < keys ? std::fabs(normal(random, 0.1f)) : std::numeric_limits<float>::infinity());
        put_half(tail.data() + 2 * kPageTokens, t,
                 t < keys ? normal(random) : std::numeric_limits<float>::quiet_NaN());
      }
      const auto* scales = reinterpret_cast<const uint16_t*>(tail.data());
      EdgeArray<float> weights(queries * kPageTokens);
      for (size_t i = 0; i < queries; ++i) {
        const size_t seen = i == 1 ? 0 : pick(random, 1, keys);
        for (size_t t = 0; t < kPageTokens; ++t)
          weights[i * kPageTokens + t] = t < seen ? std::exp2(-std::fabs(normal(random, 4.0f))) : 0.0f;
      }
      for (const cpu::Kernels* kernels : runnable_kernels()) {
        EdgeArray<uint8_t> digits(queries * cpu::kWeightBytes);
        EdgeArray<float> steps(queries);
        EdgeArray<float> constants(queries * cpu::kConstantLanes);
        std::fill_n(constants.data(), constants.size(), 0.25f);
        (bits == 8 ? kernels->attention_rows.split_weights8 : kernels->attention_rows.split_weights4)(
            {weights.data(), kPageTokens, queries, keys, scales, scales + kPageTokens, digits.data(),
             steps.data(), constants.data()});
        EdgeArray<float> y(queries * panels * kRows);
        std::fill_n(y.data(), y.size(), 1.0f);
        (bits == 8 ? kernels->attention_products.add_values8 : kernels->attention_products.add_values4)(
            {page.data(), stride, keys, head_dim, digits.data(), steps.data(), queries, y.data(),
             panels * kRows, pick(random, 0, 1) == 0 ? nullptr : page.data()});
        double worst = 0;
        for (size_t i = 0; i < queries; ++i) {
          std::vector<float> scaled(kPageTokens, 0.0f);
          double constant = 0;
          double magnitude = 4;
          for (size_t t = 0; t < keys; ++t) {
            const float weight = weights[i * kPageTokens + t];
            scaled[t] = weight * f16_to_f32(scales[t]);
            if (bits == 4) {
              const double middle = 8.0 * f16_to_f32(scales[t]) + f16_to_f32(scales[kPageTokens + t]);
              constant += double{weight} * middle;
              magnitude += std::fabs(double{weight} * middle);
            }
          }
          const Steps whole =
              in_steps(scaled.data(), kPageTokens, bits == 8 ? cpu::kLargestWeight15 : cpu::kLargestWeight8);
          // What every element gains beside its products: lanes end at 0.25 where there is nothing.
          double lanes = 0;
          for (size_t lane = 0; lane < cpu::kConstantLanes; ++lane)
            lanes += double{constants[i * cpu::kConstantLanes + lane]} - 0.25;
          const int64_t digit_sum = std::accumulate(whole.whole.begin(), whole.whole.end(), int64_t{0});
          magnitude += 8 * double{whole.step} * static_cast<double>(digit_sum);
          const double allowed = bits == 4 ? 64 * kRoundoff * magnitude : 0.0;
          for (size_t d = 0; d < panels * kRows; ++d) {
            const uint8_t* panel = page.data() + d / kRows * stride;
            int64_t dot = 0;
            for (size_t t = 0; t < keys; ++t) {
              const int code = code_of(panel, bits, d % kRows, t);
              dot += (bits == 8 ? static_cast<int8_t>(code) : code - 8) * whole.whole[t];
            }
            const double product = double{whole.step} * static_cast<double>(dot);
            worst =
                std::max(worst, std::fabs(y[i * panels * kRows + d] + lanes - (1.0 + product + constant)) /
                                    (4 * kRoundoff * (1.0 + std::fabs(product)) + allowed));
          }
        }
        CAPTURE(kernels->name);
        CAPTURE(bits);
        CAPTURE(head_dim);
        CAPTURE(keys);
        CHECK(worst <= 1.0);
        CHECK(y.untouched());
        CHECK(digits.untouched());
        CHECK(constants.untouched());
      }
    }
  }
}

TEST_CASE("powers are accurate, cut off below 2^-100, clear what follows and sum what they store") {
  Random random = seeded("powers");
  for (const size_t n : {0, 1, 2, 7, 8, 9, 15, 16, 17, 64, 333, 1024, 20003}) {
    const size_t end = n + pick(random, 0, 70);
    const float reference = std::round(normal(random, 20.0f));
    std::vector<float> before(end, std::numeric_limits<float>::quiet_NaN());
    for (size_t i = 0; i < n; ++i)
      before[i] = std::uniform_real_distribution<float>(-110, 0)(random) + reference;
    if (n > 4) before[1] = -std::numeric_limits<float>::infinity();
    for (const cpu::Kernels* kernels : runnable_kernels())
      for (const bool coarse : {false, true}) {
        EdgeArray<float> scores(end, any_skew(random));
        std::copy(before.begin(), before.end(), scores.data());
        const float sum = (coarse ? kernels->attention_rows.coarse_powers : kernels->attention_rows.powers)(
            scores.data(), reference, n, end);
        const double relative = coarse ? cpu::kCoarseError : 3 * kRoundoff;
        double worst = 0;
        double exact_sum = 0;
        for (size_t i = 0; i < end; ++i) {
          const float x = before[i] - reference;
          const double expected = i < n && !(x < cpu::kLeastExponent) ? std::exp2(double{x}) : 0.0;
          // Below 2^-100 the coarse ones may keep the power.
          const double least = coarse && x < cpu::kLeastExponent ? 0x1p-100 : 1e-45;
          worst = std::max(worst, std::fabs(scores[i] - expected) / (relative * expected + least));
          exact_sum += double{scores[i]};
        }
        CAPTURE(kernels->name);
        CAPTURE(coarse);
        CAPTURE(n);
        CAPTURE(end);
        CHECK(worst <= 1.0);
        CHECK(std::fabs(sum - exact_sum) <= static_cast<double>(n) * kRoundoff * exact_sum);
        CHECK(scores.untouched());
      }
  }
}

TEST_CASE("powers pass NaN on") {
  for (const cpu::Kernels* kernels : runnable_kernels()) {
    for (const auto powers : {kernels->attention_rows.powers, kernels->attention_rows.coarse_powers}) {
      std::vector<float> scores(75, -1.0f);  // whole vectors and some more
      for (const size_t nan : {3, 70}) {
        std::fill(scores.begin(), scores.end(), -1.0f);
        scores[nan] = std::numeric_limits<float>::quiet_NaN();
        const float sum = powers(scores.data(), 0.0f, 75, 75);
        CAPTURE(kernels->name);
        CAPTURE(nan);
        CHECK(std::isnan(scores[nan]));
        CHECK(std::isnan(sum));
      }
    }
  }
}
