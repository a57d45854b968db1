// Half and bfloat16 conversions against their definitions: every half, and rounding against a search over the
// two neighbours in exact arithmetic.
#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <iostream>
#include <limits>
#include <random>
#include <vector>

#include "gguf-like-format/float_types.h"

using namespace tessera;

namespace {

// The value of a half by its definition, in float64 where every step is exact.
double half_value(uint16_t bits) {
  const int exponent = (bits >> 10) & 31;
  const int fraction = bits & 1023;
  double value = 0;
  if (exponent == 31)
    value =
        fraction != 0 ? std::numeric_limits<double>::quiet_NaN() : std::numeric_limits<double>::infinity();
  else if (exponent == 0)
    value = std::ldexp(fraction, -24);
  else
    value = std::ldexp(1024 + fraction, exponent - 25);
  return (bits & 0x8000) != 0 ? -value : value;
}

// Nearest of an ascending list of magnitudes, ties to the even code. overflow is where rounding to infinity
// begins (a tie there goes to infinity, whose code is even).
uint16_t nearest(const std::vector<double>& magnitudes, double overflow, double value, uint16_t infinity) {
  const double magnitude = std::abs(value);
  const auto sign = static_cast<uint16_t>(std::signbit(value) ? 0x8000 : 0);
  if (magnitude >= overflow) return static_cast<uint16_t>(sign | infinity);
  const auto above = std::lower_bound(magnitudes.begin(), magnitudes.end(), magnitude);
  auto code = static_cast<size_t>(above - magnitudes.begin());
  if (above == magnitudes.end()) {
    --code;
  } else if (code > 0) {
    const double up = magnitudes[code] - magnitude;
    const double down = magnitude - magnitudes[code - 1];
    if (down < up || (down == up && (code - 1) % 2 == 0)) --code;
  }
  return static_cast<uint16_t>(sign | code);
}

std::vector<double> half_magnitudes() {
  std::vector<double> out;
  for (uint32_t bits = 0; bits < 0x7c00; ++bits) out.push_back(half_value(static_cast<uint16_t>(bits)));
  return out;
}

// Floats that matter: neighbourhoods of all halves and of the midpoints between them, and random bits.
template <typename Check>
void visit_floats(uint64_t seed, Check&& check) {
  const std::vector<double> magnitudes = half_magnitudes();
  for (size_t i = 0; i < magnitudes.size(); ++i) {
    const double next = i + 1 < magnitudes.size() ? magnitudes[i + 1] : 65536.0;
    for (const double centre : {magnitudes[i], (magnitudes[i] + next) / 2}) {
      const auto middle = static_cast<float>(centre);  // exact: a midpoint needs 12 bits
      for (const float value : {std::nextafterf(middle, -1.0f), middle, std::nextafterf(middle, 1e9f)}) {
        check(value);
        check(-value);
      }
    }
  }
  std::mt19937_64 random(seed);
  for (int i = 0; i < 300000; ++i) {
    const auto value = std::bit_cast<float>(static_cast<uint32_t>(random()));
    if (!std::isnan(value)) check(value);
  }
}

}  // namespace

TEST_CASE("every half is read by its definition and comes back") {
  for (uint32_t code = 0; code < 0x10000; ++code) {
    const auto bits = static_cast<uint16_t>(code);
    const float value = f16_to_f32(bits);
    const double expected = half_value(bits);
    if (std::isnan(expected)) {
      REQUIRE(std::isnan(value));
      REQUIRE((f32_to_f16(value) & 0x7c00) == 0x7c00);
      REQUIRE((f32_to_f16(value) & 0x3ff) != 0);
      continue;
    }
    REQUIRE(static_cast<double>(value) == expected);
    REQUIRE(std::signbit(value) == std::signbit(expected));
    REQUIRE(f32_to_f16(value) == bits);
  }
}

TEST_CASE("every 8-bit float is read by its definition") {
  for (unsigned code = 0; code < 256; ++code) {
    CAPTURE(code);
    const int exponent = static_cast<int>(code >> 3 & 15);
    const double fraction = (code & 7) / 8.0;
    const double magnitude =
        exponent == 0 ? std::ldexp(fraction, -6) : std::ldexp(1 + fraction, exponent - 7);
    const float value = f8_e4m3_to_f32(static_cast<uint8_t>(code));
    if ((code & 127) == 127)
      CHECK(std::isnan(value));
    else
      CHECK(static_cast<double>(value) == (code < 128 ? magnitude : -magnitude));
    CHECK(std::signbit(value) == (code >= 128));
  }
  CHECK(f8_e4m3_to_f32(0x7e) == 448.0f);
}

TEST_CASE("floats round to the nearest half, ties to even") {
  const uint64_t seed = std::random_device{}();
  std::cout << "seed " << seed << "\n";
  const std::vector<double> magnitudes = half_magnitudes();
  size_t wrong = 0;
  visit_floats(seed, [&](float value) {
    const uint16_t expected = nearest(magnitudes, 65520.0, static_cast<double>(value), 0x7c00);
    if (f32_to_f16(value) != expected) {
      if (wrong++ < 10)
        std::cout << "f16 of " << value << ": " << f32_to_f16(value) << " " << expected << "\n";
    }
  });
  CHECK(wrong == 0);
  CHECK(f32_to_f16(std::numeric_limits<float>::infinity()) == 0x7c00);
  CHECK(f32_to_f16(-std::numeric_limits<float>::infinity()) == 0xfc00);
}

TEST_CASE("every bfloat16 comes back, and floats round to the nearest, ties to even") {
  const uint64_t seed = std::random_device{}();
  std::cout << "seed " << seed << "\n";
  for (uint32_t code = 0; code < 0x10000; ++code) {
    const auto bits = static_cast<uint16_t>(code);
    const float value = bf16_to_f32(bits);
    if (std::isnan(value))
      REQUIRE(std::isnan(bf16_to_f32(f32_to_bf16(value))));
    else
      REQUIRE(f32_to_bf16(value) == bits);
  }
  std::vector<double> magnitudes;
  for (uint32_t bits = 0; bits < 0x7f80; ++bits)
    magnitudes.push_back(static_cast<double>(bf16_to_f32(static_cast<uint16_t>(bits))));
  const double overflow = std::ldexp(511.0, 119);  // halfway between the largest bfloat16 and 2^128
  size_t wrong = 0;
  visit_floats(seed, [&](float value) {
    if (f32_to_bf16(value) != nearest(magnitudes, overflow, static_cast<double>(value), 0x7f80)) ++wrong;
  });
  CHECK(wrong == 0);
  // A NaN whose payload lies only in the bits that are cut off must not become infinity.
  const float low_payload = std::bit_cast<float>(0x7f800001u);
  CHECK(std::isnan(bf16_to_f32(f32_to_bf16(low_payload))));
  CHECK(std::isnan(f16_to_f32(f32_to_f16(low_payload))));
}
