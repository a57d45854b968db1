#include "engine/codec/normal_float.h"

#include <array>
#include <cassert>
#include <cmath>
#include <numbers>
#include <span>

namespace tessera::lut {

namespace {

constexpr double kOutermost = 0.5 * (1.0 / 32.0 + 1.0 / 30.0);

// The x with a share p of the standard normal distribution below it, 1/2 <= p < 0.99, to about 1e-15:
// Newton's method, which converges from 0 because the distribution function is concave there.
double normal_quantile(double p) {
  double x = 0;
  for (int step = 0; step < 50; ++step) {
    const double below = 0.5 * std::erfc(-x / std::numbers::sqrt2);
    const double density = std::exp(-0.5 * x * x) * std::numbers::inv_sqrtpi / std::numbers::sqrt2;
    x += (p - below) / density;
  }
  return x;
}

}  // namespace

ValueTable normal_float(const TableFormat& format) {
  assert(!format.zero_points);
  const size_t half = size_t{1} << (format.bits - 1);
  const double outermost = normal_quantile(1.0 - kOutermost);
  // linspace(1/2, 1 - d, steps + 1)[index] as a quantile
  const auto entry = [&](size_t index, size_t steps) {
    const double share = static_cast<double>(index) / static_cast<double>(steps);
    return normal_quantile(0.5 + share * (0.5 - kOutermost)) / outermost;
  };
  std::array<float, 16> values{};
  for (size_t i = 0; i + 1 < half; ++i)
    values[i] = stored_entry(format, -entry(half - 1 - i, half - 1));  // values[half - 1] is 0
  for (size_t i = 0; i < half; ++i) values[half + i] = stored_entry(format, entry(i + 1, half));
  return make_value_table(std::span(values).first(2 * half));
}

}  // namespace tessera::lut
