#include "backends/reference/kv_rounding.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "gguf-like-format/float_types.h"

namespace tessera::reference {

namespace {

float through_f16(float value) { return f16_to_f32(f32_to_f16(value)); }

KvParameters round_to_8(std::span<const float> x, std::span<double> out) {
  float largest = 0;
  for (const float value : x) largest = std::max(largest, std::abs(value));
  const float scale = through_f16(largest / 127.0f);
  for (size_t i = 0; i < x.size(); ++i) {
    const float code = scale == 0 ? 0.0f : std::clamp(std::nearbyint(x[i] / scale), -127.0f, 127.0f);
    out[i] = double{code} * double{scale};
  }
  return {scale, 0};
}

KvParameters round_to_4(std::span<const float> x, std::span<double> out) {
  const auto [smallest, largest] = std::minmax_element(x.begin(), x.end());
  const float low = through_f16(*smallest);
  const float scale = through_f16((*largest - *smallest) / 15.0f);
  for (size_t i = 0; i < x.size(); ++i) {
    const float code = scale == 0 ? 0.0f : std::clamp(std::nearbyint((x[i] - low) / scale), 0.0f, 15.0f);
    out[i] = double{code} * double{scale} + double{low};
  }
  return {scale, 8.0 * double{scale} + double{low}};
}

}  // namespace

KvParameters round_kv(unsigned bits, std::span<const float> x, std::span<double> out) {
  if (x.empty()) return {};
  if (bits == 4) return round_to_4(x, out);
  if (bits == 8) return round_to_8(x, out);
  for (size_t i = 0; i < x.size(); ++i) out[i] = through_f16(x[i]);
  return {};
}

}  // namespace tessera::reference
