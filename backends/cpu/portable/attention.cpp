// Integer attention in plain loops, for any machine.
#include <algorithm>
#include <cmath>

#include "backends/cpu/portable/portable.h"
#include "gguf-like-format/float_types.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera::cpu::portable {

namespace {

constexpr size_t kRows = tile::kPanelRows;
constexpr size_t kPageTokens = 64;

int32_t nibble(const uint8_t* codes, size_t row, size_t column) {
  const tile::Nibble at = tile::nibble_in_panel(row, column);
  return at.high ? codes[at.byte] >> 4 : codes[at.byte] & 15;
}

float half(const uint8_t* halves, size_t index) {
  uint16_t bits = 0;
  __builtin_memcpy(&bits, halves + 2 * index, sizeof bits);
  return f16_to_f32(bits);
}

float inverse_of(float step) { return step >= kLeastNormal ? 1.0f / step : 0.0f; }

// Half to even, within [low, high]; NaN gives low.
int32_t rounded(float value, int32_t low, int32_t high) {
  return static_cast<int32_t>(
      std::fmin(std::fmax(std::nearbyint(value), static_cast<float>(low)), static_cast<float>(high)));
}

struct Scan {
  float largest = 0;
  float sum = 0;
};

Scan scan(const float* q, size_t n) {
  Scan all;
  for (size_t i = 0; i < n; ++i) {
    all.largest = std::fmax(all.largest, std::fabs(q[i]));
    all.sum += q[i];
  }
  return all;
}

// Weights times scales, and the largest of them.
float scaled_weights(const WeightSplit& job, size_t query, float* scaled) {
  float largest = 0;
  for (size_t t = 0; t < job.keys; ++t) {
    scaled[t] = job.weights[query * job.stride + t] * f16_to_f32(job.scales[t]);
    largest = std::fmax(largest, scaled[t]);
  }
  return largest;
}

void split_query8(const float* q, size_t head_dim, float scale, uint8_t* digits, QueryTerms* terms) {
  const Scan all = scan(q, head_dim);
  const float step = all.largest / kLargestQuery16;
  const float inverse = inverse_of(step);
  // 0 * sum passes on what is not finite.
  *terms = {scale * (step + 0.0f * all.sum), scale * all.sum, 0.0f, 0, 0};
  for (size_t i = 0; i < head_dim; ++i) {
    const int32_t whole = rounded(q[i] * inverse, -kLargestQuery16, kLargestQuery16);
    const int32_t high = (whole + 128) >> 8;
    const int32_t low = whole - 256 * high;
    digits[i] = static_cast<uint8_t>(high);
    digits[head_dim + i] = static_cast<uint8_t>(low);
    terms->high_sum += high;
    terms->low_sum += low;
  }
}

void split_query4(const float* q, size_t head_dim, float scale, uint8_t* digits, QueryTerms* terms) {
  const Scan all = scan(q, head_dim);
  const float step = all.largest / kLargestQuery8;
  const float inverse = inverse_of(step);
  int32_t sum = 0;
  for (size_t i = 0; i < head_dim; ++i) {
    const int32_t whole = rounded(q[i] * inverse, -kLargestQuery8, kLargestQuery8);
    digits[i] = static_cast<uint8_t>(whole);
    sum += whole;
  }
  // 0 * sum passes on what is not finite.
  *terms = query_terms4(scale * (step + 0.0f * all.sum), scale * all.sum, sum);
}

void score_keys8(const ScoreProduct& job) {
  for (size_t t = 0; t < tile::round_up(job.keys, kRows); ++t) {
    const uint8_t* panel = job.panels + t / kRows * job.panel_stride;
    const size_t row = t % kRows;
    const float scale = half(panel + job.head_dim * kRows, row);
    for (size_t q = 0; q < job.queries; ++q) {
      const auto* high = reinterpret_cast<const int8_t*>(job.query + q * job.query_stride);
      const int8_t* low = high + job.head_dim;
      int32_t high_dot = 0;
      int32_t low_dot = 0;
      for (size_t i = 0; i < job.head_dim; ++i) {
        const int32_t code = panel[tile::byte_in_panel(row, i)] - 128;
        high_dot += code * high[i];
        low_dot += code * low[i];
      }
      job.y[q * job.y_stride + t] =
          scale * job.terms[q].factor * static_cast<float>(256 * high_dot + low_dot);
    }
  }
}

void score_keys4(const ScoreProduct& job) {
  for (size_t t = 0; t < tile::round_up(job.keys, kRows); ++t) {
    const uint8_t* panel = job.panels + t / kRows * job.panel_stride;
    const size_t row = t % kRows;
    const uint8_t* tail = panel + job.head_dim * kRows / 2;
    const float scale = half(tail, row);
    const float constant = 8.0f * scale + half(tail, kRows + row);
    for (size_t q = 0; q < job.queries; ++q) {
      const auto* digits = reinterpret_cast<const int8_t*>(job.query + q * job.query_stride);
      int32_t dot = 0;
      for (size_t i = 0; i < job.head_dim; ++i) dot += (nibble(panel, row, i) - 8) * digits[i];
      job.y[q * job.y_stride + t] =
          scale * job.terms[q].factor * static_cast<float>(dot) + constant * job.terms[q].total;
    }
  }
}

float powers(float* scores, float reference, size_t n, size_t end) {
  float sum = 0;
  for (size_t i = 0; i < n; ++i) {
    const float x = scores[i] - reference;
    scores[i] = x < kLeastExponent ? 0.0f : std::exp2(x);
    sum += scores[i];
  }
  std::fill(scores + n, scores + end, 0.0f);
  return sum;
}

void split_weights8(const WeightSplit& job) {
  for (size_t q = 0; q < job.queries; ++q) {
    float scaled[kPageTokens] = {};
    uint8_t* digits = job.digits + q * kWeightBytes;
    job.steps[q] = scaled_weights(job, q, scaled) / kLargestWeight15;
    const float inverse = inverse_of(job.steps[q]);
    for (size_t t = 0; t < kPageTokens; ++t) {
      const int32_t whole = rounded(scaled[t] * inverse, 0, kLargestWeight15);
      digits[t] = static_cast<uint8_t>(whole >> 8);
      digits[kPageTokens + t] = static_cast<uint8_t>(whole & 255);
    }
  }
}

void split_weights4(const WeightSplit& job) {
  for (size_t q = 0; q < job.queries; ++q) {
    float scaled[kPageTokens] = {};
    uint8_t* digits = job.digits + q * kWeightBytes;
    job.steps[q] = scaled_weights(job, q, scaled) / kLargestWeight8;
    const float inverse = inverse_of(job.steps[q]);
    for (size_t t = 0; t < kPageTokens; ++t)
      digits[t] = static_cast<uint8_t>(rounded(scaled[t] * inverse, 0, kLargestWeight8));
    for (size_t t = 0; t < job.keys; ++t) {
      const float middle = 8.0f * f16_to_f32(job.scales[t]) + f16_to_f32(job.minima[t]);
      job.constants[q * kConstantLanes + t % kConstantLanes] += job.weights[q * job.stride + t] * middle;
    }
  }
}

void add_values8(const ValueProduct& job) {
  for (size_t d = 0; d < tile::round_up(job.head_dim, kRows); ++d) {
    const uint8_t* panel = job.panels + d / kRows * job.panel_stride;
    for (size_t q = 0; q < job.queries; ++q) {
      const uint8_t* high = job.digits + q * kWeightBytes;
      const uint8_t* low = high + kPageTokens;
      int32_t dot = 0;
      for (size_t t = 0; t < job.keys; ++t) {
        const int32_t code = static_cast<int8_t>(panel[tile::byte_in_panel(d % kRows, t)]);
        dot += code * (256 * high[t] + low[t]);
      }
      job.y[q * job.y_stride + d] += static_cast<float>(dot) * job.steps[q];
    }
  }
}

void add_values4(const ValueProduct& job) {
  for (size_t d = 0; d < tile::round_up(job.head_dim, kRows); ++d) {
    const uint8_t* panel = job.panels + d / kRows * job.panel_stride;
    for (size_t q = 0; q < job.queries; ++q) {
      const uint8_t* digits = job.digits + q * kWeightBytes;
      int32_t dot = 0;
      for (size_t t = 0; t < job.keys; ++t) dot += (nibble(panel, d % kRows, t) - 8) * digits[t];
      job.y[q * job.y_stride + d] += static_cast<float>(dot) * job.steps[q];
    }
  }
}

}  // namespace

constinit const AttentionRowKernels kAttentionRows{
    .split_query8 = split_query8,
    .split_query4 = split_query4,
    .powers = powers,
    .coarse_powers = powers,
    .split_weights8 = split_weights8,
    .split_weights4 = split_weights4,
};

constinit const AttentionProductKernels kAttentionProducts{
    .score_keys8 = score_keys8,
    .score_keys4 = score_keys4,
    .add_values8 = add_values8,
    .add_values4 = add_values4,
};

}  // namespace tessera::cpu::portable
