// Row-wise jobs and KV expansion of every kernel table this machine can run, against float64 statements of
// the job made here: exact where the contract fixes every bit, within derived bounds elsewhere.
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>

#include "gguf-like-format/float_types.h"
#include "graph/bf16_row.h"
#include "tests/unit/kernel_cases.h"

using namespace tessera;
using namespace tessera::kernel_cases;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
// Relative error of the vector exponential: 4e-9 from the polynomial, two roundings at its end and what is
// left of the earlier ones and of the argument's reduction. The C library's is smaller.
constexpr double kExponentialError = 1.2e-7;

// Error as a share of what is allowed; NaN counts as infinitely wrong.
double share(double error, double allowed) {
  const double result = std::fabs(error) / allowed;
  return std::isnan(result) ? std::numeric_limits<double>::infinity() : result;
}

void fill(Random& random, EdgeArray<float>& array, float deviation) {
  for (float& value : array.values()) value = normal(random, deviation);
}

// Rounds half to even, stated without the rounding mode.
double round_half_even(double value) {
  const double below = std::floor(value);
  const double rest = value - below;
  if (rest != 0.5) return rest < 0.5 ? below : below + 1;
  return std::fmod(below, 2.0) == 0 ? below : below + 1;
}

}  // namespace

TEST_CASE("rms_norm adds the residual exactly and normalizes within four roundings") {
  Random random = seeded("rms_norm");
  for (const size_t n : {1, 5, 7, 8, 9, 15, 16, 17, 31, 64, 172, 896, 4099}) {
    for (const float deviation : {1.0f, 0.0f, 1e-40f, 1e-3f, 1e30f}) {
      for (const bool add : {false, true}) {
        const float epsilon = deviation == 1e-3f ? 1e-6f : 1e-5f;
        EdgeArray<float> x(n, any_skew(random));
        EdgeArray<float> residual(n, any_skew(random));
        EdgeArray<float> gain(n, any_skew(random));
        fill(random, x, deviation);
        fill(random, residual, deviation);
        fill(random, gain, 1.0f);
        std::vector<float> added(x.data(), x.data() + n);
        double squares = 0;
        for (size_t i = 0; i < n; ++i) {
          if (add) added[i] = x[i] + residual[i];
          squares += static_cast<double>(added[i]) * added[i];
        }
        const double factor =
            1.0 / std::sqrt(squares / static_cast<double>(n) + static_cast<double>(epsilon));
        for (const cpu::Kernels* kernels : runnable_kernels()) {
          EdgeArray<float> sum(n, any_skew(random));
          EdgeArray<float> y(n, any_skew(random));
          kernels->rows.rms_norm(x.data(), add ? residual.data() : nullptr, add ? sum.data() : nullptr,
                                 gain.data(), epsilon, n, y.data());
          double worst = 0;
          for (size_t i = 0; i < n; ++i) {
            if (add) REQUIRE(same_bits(sum[i], added[i]));
            const double expected = added[i] * factor * gain[i];
            // Factor, two products: three roundings, the rest of a fourth for the order of the double sum; a
            // denormal intermediate or result is off by half a step.
            const double allowed = 4 * kRoundoff * std::fabs(expected) +
                                   kDenormalStep * (std::fabs(static_cast<double>(gain[i])) + 1);
            worst = std::max(worst, share(y[i] - expected, allowed));
          }
          CAPTURE(kernels->name);
          CAPTURE(n);
          CAPTURE(deviation);
          CHECK(worst <= 1.0);
          CHECK(y.untouched());
          CHECK(sum.untouched());

          // The sum may replace either of its terms.
          if (add) {
            EdgeArray<float> both(n, any_skew(random));
            std::copy(residual.data(), residual.data() + n, both.data());
            EdgeArray<float> again(n, any_skew(random));
            kernels->rows.rms_norm(x.data(), both.data(), both.data(), gain.data(), epsilon, n, again.data());
            CHECK(std::memcmp(both.data(), sum.data(), n * sizeof(float)) == 0);
            CHECK(std::memcmp(again.data(), y.data(), n * sizeof(float)) == 0);
          }
        }
      }
    }
  }
}

namespace {

// One row quantized as q8_row.h says, byte for byte; padding between the last sum and the next row is not
// part of it.
std::vector<uint8_t> quantized(const EdgeArray<float>& x) {
  const size_t n = x.size();
  std::vector<uint8_t> row(q8::fine_sums_offset(n) + 4 * q8::fine_groups(n), 0);
  float largest = 0;
  for (size_t i = 0; i < n; ++i) largest = std::max(largest, std::fabs(x[i]));
  const float scale = largest / 127.0f;
  std::vector<int32_t> sums(q8::groups(n), 0);
  std::vector<int32_t> fine(q8::fine_groups(n), 0);
  int32_t total = 0;
  for (size_t i = 0; i < n && scale > 0; ++i) {
    const float quotient = x[i] / scale;
    const auto code = static_cast<int32_t>(std::clamp(round_half_even(quotient), -127.0, 127.0));
    row[i] = static_cast<uint8_t>(code);
    sums[i / q8::kGroup] += code;
    fine[i / q8::kFineGroup] += code;
    total += code;
  }
  std::memcpy(row.data() + q8::scale_offset(n), &scale, sizeof scale);
  std::memcpy(row.data() + q8::total_offset(n), &total, sizeof total);
  std::memcpy(row.data() + q8::sums_offset(n), sums.data(), 4 * sums.size());
  std::memcpy(row.data() + q8::fine_sums_offset(n), fine.data(), 4 * fine.size());
  return row;
}

void check_quantized(Random& random, const EdgeArray<float>& x) {
  const std::vector<uint8_t> expected = quantized(x);
  for (const cpu::Kernels* kernels : runnable_kernels()) {
    EdgeArray<uint8_t> row(expected.size(), any_skew(random));
    kernels->rows.quantize_row(x.data(), x.size(), row.data());
    CAPTURE(kernels->name);
    CAPTURE(x.size());
    CHECK(std::equal(expected.begin(), expected.end(), row.data()));
    CHECK(row.untouched());
  }
}

}  // namespace

TEST_CASE("quantize_row gives the same bytes everywhere") {
  Random random = seeded("quantize_row");
  for (const size_t n : {1, 5, 8, 15, 16, 17, 31, 32, 33, 64, 127, 128, 129, 172, 256, 576, 896, 4099}) {
    for (const float deviation : {1.0f, 1e-3f, 1e35f, 1e-37f, 1e-42f, 0.0f}) {
      EdgeArray<float> x(n, any_skew(random));
      fill(random, x, deviation);
      if (n > 8) x[pick(random, 0, n - 1)] *= 20;  // an outlier makes most codes small
      check_quantized(random, x);
    }
    // Scale 1: every value that lies halfway between two codes, and the largest codes of both signs.
    EdgeArray<float> halves(n, any_skew(random));
    for (size_t i = 0; i < n; ++i) {
      const float magnitude = std::min(static_cast<float>(pick(random, 0, 127)) + 0.5f, 127.0f);
      halves[i] = pick(random, 0, 1) == 0 ? magnitude : -magnitude;
    }
    halves[pick(random, 0, n - 1)] = -127.0f;
    check_quantized(random, halves);
  }
}

TEST_CASE("quantize_row treats infinities and NaN alike everywhere") {
  Random random = seeded("quantize_row, not finite");
  for (const float odd : {kInfinity, -kInfinity, std::numeric_limits<float>::quiet_NaN()}) {
    for (const size_t n : {17, 64, 131}) {
      EdgeArray<float> x(n, any_skew(random));
      fill(random, x, 1.0f);
      // The odd value comes last and the largest finite one before it in the same lane of any vector.
      x[(n - 1) % 16] = 50.0f;
      x[n - 1] = odd;
      const size_t bytes = q8::fine_sums_offset(n) + 4 * q8::fine_groups(n);
      EdgeArray<uint8_t> expected(bytes);
      cpu::find_kernels("portable")->rows.quantize_row(x.data(), n, expected.data());
      for (const cpu::Kernels* kernels : runnable_kernels()) {
        EdgeArray<uint8_t> row(bytes, any_skew(random));
        kernels->rows.quantize_row(x.data(), n, row.data());
        CAPTURE(kernels->name);
        CAPTURE(odd);
        CHECK(std::equal(row.data(), row.data() + bytes, expected.data()));
      }
    }
  }
}

TEST_CASE("round_row gives the same bfloat16 values everywhere, in exchanged order, and sums them") {
  Random random = seeded("round_row");
  constexpr size_t kOrder[] = {0, 2, 1, 3};
  for (const size_t n : {1, 5, 7, 8, 9, 16, 31, 32, 33, 100, 172, 255, 256, 257, 896, 4099}) {
    for (const float deviation : {1.0f, 1e-3f, 1e30f, 1e-40f, 0.0f}) {
      EdgeArray<float> x(n, any_skew(random));
      fill(random, x, deviation);
      for (float& value : x.values()) {
        // Halfway between two bfloat16 numbers, above and below an even one.
        const uint32_t half = (std::bit_cast<uint32_t>(value) & 0xffff0000u) | 0x8000u;
        if (pick(random, 0, 3) == 0) value = std::bit_cast<float>(half);
      }
      const size_t values = bf16_row::padded_columns(n);
      for (const cpu::Kernels* kernels : runnable_kernels()) {
        EdgeArray<uint8_t> row(bf16_row::sums_offset(n) + 4 * bf16_row::groups(n), any_skew(random));
        kernels->rows.round_row(x.data(), n, row.data());
        size_t wrong = 0;
        double worst = 0;
        for (size_t g = 0; g < bf16_row::groups(n); ++g) {
          double sum = 0;
          double magnitudes = 0;
          for (size_t k = 32 * g; k < 32 * (g + 1); ++k) {
            const uint16_t expected = k < n ? f32_to_bf16(x[k]) : uint16_t{0};
            uint16_t found = 0;
            std::memcpy(&found, row.data() + 2 * (k / 4 * 4 + kOrder[k % 4]), sizeof found);
            wrong += found == expected ? 0 : 1;
            sum += static_cast<double>(bf16_to_f32(expected));
            magnitudes += std::fabs(static_cast<double>(bf16_to_f32(expected)));
          }
          float found = 0;
          std::memcpy(&found, row.data() + 2 * values + 4 * g, sizeof found);
          // 31 additions in any order.
          worst = std::max(worst, share(found - sum, 31 * kRoundoff * magnitudes + kDenormalStep));
        }
        CAPTURE(kernels->name);
        CAPTURE(n);
        CAPTURE(deviation);
        CHECK(wrong == 0);
        CHECK(worst <= 1.0);
        CHECK(row.untouched());
      }
    }
  }
}

TEST_CASE("round_row keeps infinities and NaN") {
  Random random = seeded("round_row, not finite");
  for (const float odd : {kInfinity, -kInfinity, std::numeric_limits<float>::quiet_NaN(),
                          std::bit_cast<float>(0x7f800001u), std::bit_cast<float>(0xffffffffu), 3.4e38f}) {
    for (const size_t n : {17, 64, 131}) {
      EdgeArray<float> x(n, any_skew(random));
      fill(random, x, 1.0f);
      const size_t at = n - 1 - (n - 1) % 4;  // stays where it is within its quad
      x[at] = odd;
      for (const cpu::Kernels* kernels : runnable_kernels()) {
        EdgeArray<uint8_t> row(bf16_row::sums_offset(n) + 4 * bf16_row::groups(n), any_skew(random));
        kernels->rows.round_row(x.data(), n, row.data());
        uint16_t found = 0;
        std::memcpy(&found, row.data() + 2 * at, sizeof found);
        float sum = 0;
        std::memcpy(&sum, row.data() + bf16_row::sums_offset(n) + 4 * (at / 32), sizeof sum);
        CAPTURE(kernels->name);
        CAPTURE(odd);
        CHECK(found == f32_to_bf16(odd));
        CHECK_FALSE(std::isfinite(sum));
      }
    }
  }
}

TEST_CASE("silu_gate is accurate over [-100, 100] and beyond") {
  Random random = seeded("silu_gate");
  for (const size_t n : {1, 7, 8, 9, 16, 17, 33, 172, 20001}) {
    EdgeArray<float> gate(n, any_skew(random));
    EdgeArray<float> up(n, any_skew(random));
    for (float& value : gate.values()) value = std::uniform_real_distribution<float>(-100, 100)(random);
    fill(random, up, 1.0f);
    if (n > 7) {
      gate[0] = 0.0f;
      gate[1] = -1e30f;
      gate[2] = 1e30f;
      gate[3] = 1e-40f;
      gate[4] = -88.5f;
    }
    for (const cpu::Kernels* kernels : runnable_kernels()) {
      EdgeArray<float> y(n, any_skew(random));
      kernels->rows.silu_gate(gate.data(), up.data(), n, y.data());
      double worst = 0;
      for (size_t i = 0; i < n; ++i) {
        const double g = gate[i];
        const double expected = g / (1.0 + std::exp(-g)) * up[i];
        // The exponential's error, then a sum, a quotient and a product. Where e^-g is beyond float (g <
        // -88.7) the quotient is zero instead of at most 88.8 e^-88.7.
        const double allowed = (kExponentialError + 4 * kRoundoff) * std::fabs(expected) +
                               3e-37 * std::fabs(static_cast<double>(up[i])) + kDenormalStep;
        worst = std::max(worst, share(y[i] - expected, allowed));
      }
      CAPTURE(kernels->name);
      CAPTURE(n);
      CHECK(worst <= 1.0);
      CHECK(y.untouched());
    }
  }
}

TEST_CASE("maximum finds the largest value wherever it is") {
  Random random = seeded("maximum");
  for (size_t n = 1; n <= 70; ++n) {
    EdgeArray<float> values(n, any_skew(random));
    for (float& value : values.values())
      value = -1.0f - std::fabs(normal(random));  // padding zeros would win
    for (const cpu::Kernels* kernels : runnable_kernels()) {
      CAPTURE(kernels->name);
      CAPTURE(n);
      for (size_t at = 0; at < n; ++at) {
        const float kept = values[at];
        values[at] = -0.5f;
        CHECK(kernels->rows.maximum(values.data(), n) == -0.5f);
        values[at] = kept;
      }
      CHECK(kernels->rows.maximum(values.data(), n) == *std::max_element(values.data(), values.data() + n));
    }
    std::fill(values.data(), values.data() + n, -kInfinity);
    for (const cpu::Kernels* kernels : runnable_kernels())
      CHECK(kernels->rows.maximum(values.data(), n) == -kInfinity);
  }
}

TEST_CASE("rotate_head turns pairs, in place too") {
  Random random = seeded("rotate_head");
  for (const size_t half : {1, 4, 5, 8, 9, 16, 17, 24, 32, 40, 48, 64, 128}) {
    EdgeArray<float> x(2 * half, any_skew(random));
    EdgeArray<float> cosines(half, any_skew(random));
    EdgeArray<float> sines(half, any_skew(random));
    fill(random, x, 3.0f);
    for (size_t i = 0; i < half; ++i) {
      const double angle = std::uniform_real_distribution<double>(-1e4, 1e4)(random);
      cosines[i] = static_cast<float>(std::cos(angle));
      sines[i] = static_cast<float>(std::sin(angle));
    }
    for (const cpu::Kernels* kernels : runnable_kernels()) {
      EdgeArray<float> y(2 * half, any_skew(random));
      kernels->rows.rotate_head(x.data(), cosines.data(), sines.data(), half, y.data());
      double worst = 0;
      for (size_t i = 0; i < half; ++i) {
        const double ac = static_cast<double>(x[i]) * cosines[i];
        const double bs = static_cast<double>(x[i + half]) * sines[i];
        const double bc = static_cast<double>(x[i + half]) * cosines[i];
        const double as = static_cast<double>(x[i]) * sines[i];
        // A product and a sum: at most two roundings for either term.
        const double one = 2.01 * kRoundoff * (std::fabs(ac) + std::fabs(bs)) + 2 * kDenormalStep;
        const double two = 2.01 * kRoundoff * (std::fabs(bc) + std::fabs(as)) + 2 * kDenormalStep;
        worst = std::max({worst, share(y[i] - (ac - bs), one), share(y[i + half] - (bc + as), two)});
      }
      CAPTURE(kernels->name);
      CAPTURE(half);
      CHECK(worst <= 1.0);
      CHECK(y.untouched());

      EdgeArray<float> place(2 * half, any_skew(random));
      std::copy(x.data(), x.data() + 2 * half, place.data());
      kernels->rows.rotate_head(place.data(), cosines.data(), sines.data(), half, place.data());
      CHECK(std::memcmp(place.data(), y.data(), 2 * half * sizeof(float)) == 0);
    }
  }
}
