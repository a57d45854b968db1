#include "engine/quantize/calibration/input_statistics.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>

#include "engine/quantize/calibration/moment_sums.h"

namespace tessera::quantize {

namespace {

constexpr size_t kStrip = 64;  // columns a thread looks at at once

}  // namespace

InputStatistics::InputStatistics(size_t columns, size_t total_tokens, size_t sample_rows, bool with_moments)
    : largest(columns),
      squares(columns),
      moments(with_moments ? FloatMatrix(columns, columns) : FloatMatrix()),
      sample(std::min(sample_rows, total_tokens), columns),
      total_tokens_(total_tokens) {}

void InputStatistics::add(DenseProducts& products, std::span<const float> x, size_t count) {
  const size_t columns = largest.size();
  assert(x.size() == count * columns);
  // Sample row i is the token in the middle of the i-th of as many equal stretches as there are rows.
  for (; sampled_ < sample.rows; ++sampled_) {
    const size_t token = (2 * sampled_ + 1) * total_tokens_ / (2 * sample.rows);
    if (token >= tokens + count) break;
    const std::span<const float> row = x.subspan((token - tokens) * columns, columns);
    std::copy(row.begin(), row.end(), sample.row(sampled_).begin());
  }
  tokens += count;

  const size_t strips = (columns + kStrip - 1) / kStrip;
  products.for_each(strips, [&](size_t strip, size_t) {
    const size_t first = strip * kStrip;
    const size_t width = std::min(kStrip, columns - first);
    float* most = &largest[first];
    std::array<float, kStrip> sums{};
    for (size_t token = 0; token < count; ++token) {
      const float* values = &x[token * columns + first];
      for (size_t i = 0; i < width; ++i) {
        const float magnitude = std::abs(values[i]);
        most[i] = magnitude > most[i] ? magnitude : most[i];
        sums[i] += magnitude * magnitude;
      }
    }
    for (size_t i = 0; i < width; ++i) squares[first + i] += sums[i];
  });
  if (moments.rows == 0 || count == 0) return;

  std::vector<float> transposed(columns * count);
  transpose(products, x.data(), columns, count, columns, transposed.data(), count);
  add_moments(products, transposed, columns, count, moments.values.data(), columns);
}

}  // namespace tessera::quantize
