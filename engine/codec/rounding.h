// Rounding and range scans shared by the integer schemes, written so that a compiler vectorizes them without
// being allowed to reorder float arithmetic.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>

namespace tessera::rounding {

// Rounds |value| < 2^22 half to even: adding 1.5 * 2^23 leaves the integer in the low bits of the sum.
inline int32_t half_even(float value) {
  return std::bit_cast<int32_t>(value + 12582912.0f) - std::bit_cast<int32_t>(12582912.0f);
}

// Clamps to [low, high], integers, then rounds half to even (the order does not matter for such bounds). A
// NaN becomes low.
inline uint8_t half_even_clamped(float value, float low, float high) {
  const float above = value > low ? value : low;
  return static_cast<uint8_t>(half_even(above < high ? above : high));
}

// max |v|. Magnitudes of finite floats order like their bits, and integer maxima may be taken in any order.
inline float largest_magnitude(std::span<const float> values) {
  int32_t most = 0;
  for (const float value : values) most = std::max(most, std::bit_cast<int32_t>(value) & 0x7fffffff);
  return std::bit_cast<float>(most);
}

struct Range {
  float low;   // at most 0
  float high;  // at least 0
};

// The smallest range that holds all values and zero. Zero belongs to it because a 4-bit zero point is itself
// a code 0..15: with all values on one side of zero a range without it could not be represented.
inline Range range_with_zero(std::span<const float> values) {
  constexpr size_t kLanes = 16;
  std::array<float, kLanes> low{};
  std::array<float, kLanes> high{};
  const size_t whole = values.size() / kLanes * kLanes;
  for (size_t i = 0; i < whole; i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) {
      const float value = values[i + j];
      low[j] = value < low[j] ? value : low[j];
      high[j] = value > high[j] ? value : high[j];
    }
  }
  Range range{*std::min_element(low.begin(), low.end()), *std::max_element(high.begin(), high.end())};
  for (const float value : values.subspan(whole)) {
    range.low = std::min(range.low, value);
    range.high = std::max(range.high, value);
  }
  return range;
}

// A positive row scale as it is stored: rounded to f32, but never below the smallest normal float, where a
// scale would lose its precision (or vanish) and codes would overflow their bounds.
inline float stored_scale(double scale) {
  return std::max(static_cast<float>(scale), std::numeric_limits<float>::min());
}

inline void store_float(std::span<std::byte> out, size_t index, float value) {
  std::memcpy(out.subspan(4 * index, 4).data(), &value, 4);
}

inline float load_float(std::span<const std::byte> in, size_t index) {
  float value = 0;
  std::memcpy(&value, in.subspan(4 * index, 4).data(), 4);
  return value;
}

}  // namespace tessera::rounding
