// Row-wise jobs in plain loops: norm, quantization, gate, rotation, softmax pieces.
#include <cmath>
#include <cstring>

#include "backends/cpu/portable/portable.h"
#include "gguf-like-format/float_types.h"
#include "gguf-like-format/tile_layout.h"
#include "graph/bf16_row.h"
#include "graph/q8_row.h"

namespace tessera::cpu::portable {

namespace {

void rms_norm(const float* x, const float* added, float multiplier, float* sum, const float* gain,
              float epsilon, size_t n, float* y) {
  double squares = 0;
  if (added != nullptr) {
    for (size_t i = 0; i < n; ++i) sum[i] = x[i] + multiplier * added[i];
    x = sum;
  }
  for (size_t i = 0; i < n; ++i) squares += static_cast<double>(x[i]) * x[i];
  const auto factor = static_cast<float>(1.0 / std::sqrt(squares / static_cast<double>(n) + epsilon));
  for (size_t i = 0; i < n; ++i) y[i] = x[i] * factor * gain[i];
}

void layer_norm(const float* x, const float* added, float multiplier, float* sum, const float* gain,
                const float* bias, float epsilon, size_t n, float* y) {
  if (added != nullptr) {
    for (size_t i = 0; i < n; ++i) sum[i] = x[i] + multiplier * added[i];
    x = sum;
  }
  double total = 0;
  for (size_t i = 0; i < n; ++i) total += x[i];
  const double mean = total / static_cast<double>(n);
  double squares = 0;
  for (size_t i = 0; i < n; ++i) {
    y[i] = static_cast<float>(x[i] - mean);
    squares += static_cast<double>(y[i]) * y[i];
  }
  const auto factor = static_cast<float>(1.0 / std::sqrt(squares / static_cast<double>(n) + epsilon));
  for (size_t i = 0; i < n; ++i) y[i] = y[i] * factor * gain[i] + bias[i];
}

void quantize_row(const float* x, size_t n, uint8_t* q8_row) {
  auto* codes = reinterpret_cast<int8_t*>(q8_row);
  float largest = 0;
  for (size_t i = 0; i < n; ++i) largest = std::fmax(largest, std::fabs(x[i]));
  const float scale = largest / 127.0f;
  int32_t total = 0;
  for (size_t g = 0; g < q8::groups(n); ++g) {
    int32_t sum = 0;
    for (size_t first = g * q8::kGroup; first < (g + 1) * q8::kGroup; first += q8::kFineGroup) {
      int32_t fine = 0;
      for (size_t k = first; k < first + q8::kFineGroup; ++k) {
        // nearbyint rounds half to even in the default rounding mode; scale is 0 only when every x is 0 (or
        // denormal).
        const float code = k < n && scale > 0 ? std::nearbyint(x[k] / scale) : 0.0f;
        codes[k] = static_cast<int8_t>(std::fmin(std::fmax(code, -127.0f), 127.0f));
        fine += codes[k];
      }
      std::memcpy(q8_row + q8::fine_sums_offset(n) + 4 * (first / q8::kFineGroup), &fine, sizeof fine);
      sum += fine;
    }
    std::memcpy(q8_row + q8::sums_offset(n) + 4 * g, &sum, sizeof sum);
    total += sum;
  }
  std::memcpy(q8_row + q8::scale_offset(n), &scale, sizeof scale);
  std::memcpy(q8_row + q8::total_offset(n), &total, sizeof total);
}

void round_row(const float* x, size_t n, uint8_t* row) {
  for (size_t g = 0; g < bf16_row::groups(n); ++g) {
    float sum = 0;
    for (size_t k = g * bf16_row::kGroup; k < (g + 1) * bf16_row::kGroup; ++k) {
      const uint16_t rounded = f32_to_bf16(k < n ? x[k] : 0.0f);
      std::memcpy(row + 2 * tile::bf16_position(k), &rounded, sizeof rounded);
      sum += bf16_to_f32(rounded);
    }
    std::memcpy(row + bf16_row::sums_offset(n) + 4 * g, &sum, sizeof sum);
  }
}

void silu_gate(const float* gate, const float* up, size_t n, float* y) {
  for (size_t i = 0; i < n; ++i)
    y[i] = gate[i] / (1.0f + std::exp(-gate[i])) * (up != nullptr ? up[i] : 1.0f);
}

void gelu_gate(const float* gate, const float* up, size_t n, float* y) {
  for (size_t i = 0; i < n; ++i) {
    const float argument = gate[i] * (kGeluLinear + kGeluCubic * gate[i] * gate[i]);
    y[i] = gate[i] / (1.0f + std::exp(-argument)) * (up != nullptr ? up[i] : 1.0f);
  }
}

// tanh(x) = 1 - 2 / (1 + e^2x).
void soft_cap(const float* x, float cap, size_t n, float* y) {
  const float twice = 2.0f / cap;
  for (size_t i = 0; i < n; ++i) y[i] = cap - 2.0f * cap / (1.0f + std::exp(twice * x[i]));
}

void rotate_head(const float* x, const float* cosines, const float* sines, size_t half, float* y) {
  for (size_t i = 0; i < half; ++i) {
    const float a = x[i];
    const float b = x[i + half];
    y[i] = a * cosines[i] - b * sines[i];
    y[i + half] = b * cosines[i] + a * sines[i];
  }
}

float maximum(const float* values, size_t n) {
  float largest = values[0];
  for (size_t i = 1; i < n; ++i) largest = std::fmax(largest, values[i]);
  return largest;
}

}  // namespace

constinit const RowKernels kRowKernels{
    .rms_norm = rms_norm,
    .layer_norm = layer_norm,
    .quantize_row = quantize_row,
    .round_row = round_row,
    .silu_gate = silu_gate,
    .gelu_gate = gelu_gate,
    .soft_cap = soft_cap,
    .rotate_head = rotate_head,
    .maximum = maximum,
};

}  // namespace tessera::cpu::portable
