#include "engine/quantize/calibration/float_ops.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <cmath>
#include <cstdint>
#include <numeric>

namespace tessera::quantize {

namespace {

constexpr size_t kRowBlock = 16;
constexpr size_t kQueryBlock = 256;  // causal attention skips whole key ranges behind a block of queries

// e^x within 2 units in the last place for x <= 88, zero below -87; plain arithmetic that a compiler can
// vectorize. 2^n * e^r with |r| <= ln(2) / 2 and the series of e^r to its seventh term.
inline float exponential(float x) {
  const float bounded = x < -87.0f ? -87.0f : (x > 88.0f ? 88.0f : x);
  const float rounder = 12582912.0f;  // 1.5 * 2^23
  const float shifted = bounded * 1.44269504f + rounder;
  const float n = shifted - rounder;
  const float r = (bounded - n * 0.693359375f) + n * 2.12194440e-4f;
  const float series =
      1.0f + r * (1.0f + r * (0.5f + r * (0.16666667f +
                                          r * (0.041666667f + r * (0.0083333333f + r * 0.0013888889f)))));
  const int32_t exponent = std::bit_cast<int32_t>(shifted) - std::bit_cast<int32_t>(rounder);
  const float power = std::bit_cast<float>((exponent + 127) << 23);
  return x < -87.0f ? 0.0f : series * power;
}

// Products of one query with `count` keys become probabilities; those before the op's window and the rest of
// the row become zero.
void softmax(std::span<float> row, size_t count, const Attention& attention, float slope) {
  float scale = attention.scale * log_scale(attention, count - 1);
  if (const size_t hidden = attention.first_seen(count - 1); hidden != 0) {
    std::fill_n(row.begin(), hidden, 0.0f);
    row = row.subspan(hidden);
    count -= hidden;
  }
  if (slope > 0) {
    for (size_t i = 0; i < count; ++i) row[i] = scale * row[i] - slope * static_cast<float>(count - 1 - i);
    scale = 1.0f;
  }
  if (attention.soft_cap > 0) {
    const float twice = 2.0f * scale / attention.soft_cap;
    for (size_t i = 0; i < count; ++i)
      row[i] = attention.soft_cap - 2.0f * attention.soft_cap / (1.0f + exponential(twice * row[i]));
    scale = 1.0f;
  }
  constexpr size_t kLanes = 16;
  const size_t whole = count / kLanes * kLanes;
  std::array<float, kLanes> most;
  most.fill(row[0]);
  for (size_t i = 0; i < whole; i += kLanes)
    for (size_t j = 0; j < kLanes; ++j) most[j] = row[i + j] > most[j] ? row[i + j] : most[j];
  float largest = *std::max_element(most.begin(), most.end());
  for (size_t i = whole; i < count; ++i) largest = std::max(largest, row[i]);
  for (size_t i = 0; i < count; ++i) row[i] = exponential((row[i] - largest) * scale);
  std::array<double, kLanes> sums{};
  for (size_t i = 0; i < whole; i += kLanes)
    for (size_t j = 0; j < kLanes; ++j) sums[j] += static_cast<double>(row[i + j]);
  for (size_t i = whole; i < count; ++i) sums[i - whole] += static_cast<double>(row[i]);
  const float share = static_cast<float>(1.0 / std::accumulate(sums.begin(), sums.end(), 0.0));
  for (size_t i = 0; i < count; ++i) row[i] *= share;
  std::fill(row.begin() + static_cast<std::ptrdiff_t>(count), row.end(), 0.0f);
}

}  // namespace

FloatMatrix columns_of(const FloatMatrix& x, ColumnRange range) {
  FloatMatrix out(x.rows, range.count);
  for (size_t row = 0; row < x.rows; ++row)
    std::copy_n(x.row(row).begin() + static_cast<std::ptrdiff_t>(range.first), range.count,
                out.row(row).begin());
  return out;
}

FloatMatrix with_columns(FloatMatrix x, ColumnRange range, const FloatMatrix& columns) {
  assert(columns.rows == x.rows && columns.columns == range.count);
  for (size_t row = 0; row < x.rows; ++row)
    std::copy_n(columns.row(row).begin(), range.count,
                x.row(row).begin() + static_cast<std::ptrdiff_t>(range.first));
  return x;
}

void add_rows(DenseProducts& products, FloatMatrix& to, const FloatMatrix& from, float multiplier) {
  for_row_blocks(products, to.rows, kRowBlock, [&](size_t first, size_t count, size_t) {
    for (size_t i = first * to.columns; i < (first + count) * to.columns; ++i)
      to.values[i] += multiplier * from.values[i];
  });
}

FloatMatrix project(DenseProducts& products, DenseProduct::Precision precision, const FloatMatrix& x,
                    const FloatMatrix& weights, std::span<const float> bias) {
  FloatMatrix out(x.rows, weights.rows);
  project_into(products, precision, x, weights, bias, out, 0);
  return out;
}

void project_into(DenseProducts& products, DenseProduct::Precision precision, const FloatMatrix& x,
                  const FloatMatrix& weights, std::span<const float> bias, FloatMatrix& out, size_t first) {
  assert(x.columns == weights.columns && (bias.empty() || bias.size() == weights.rows));
  assert(out.rows == x.rows && first + weights.rows <= out.columns);
  if (x.rows == 0) return;
  DenseProduct job;
  job.a = x.values.data();
  job.a_stride = x.columns;
  job.m = x.rows;
  job.b = weights.values.data();
  job.b_stride = weights.columns;
  job.n = weights.rows;
  job.k = x.columns;
  job.out = &out.values[first];
  job.out_stride = out.columns;
  job.precision = precision;
  products.multiply(job);
  if (bias.empty()) return;
  for_row_blocks(products, out.rows, kRowBlock, [&](size_t begin, size_t count, size_t) {
    for (size_t row = begin; row < begin + count; ++row)
      for (size_t i = 0; i < bias.size(); ++i) out.values[row * out.columns + first + i] += bias[i];
  });
}

namespace {

// to = from over its root mean square, times gain; to may be from.
void normalize(std::span<const float> from, std::span<const float> gain, float epsilon, std::span<float> to) {
  double sum = 0;
  for (const float value : from) sum += static_cast<double>(value) * static_cast<double>(value);
  const double mean = sum / static_cast<double>(from.size());
  const float factor = static_cast<float>(1.0 / std::sqrt(mean + static_cast<double>(epsilon)));
  for (size_t i = 0; i < to.size(); ++i) to[i] = from[i] * factor * gain[i];
}

}  // namespace

// The same of from less its mean, plus a bias.
void normalize_centred(std::span<const float> from, std::span<const float> gain, std::span<const float> bias,
                       float epsilon, std::span<float> to) {
  const double mean = std::accumulate(from.begin(), from.end(), 0.0) / static_cast<double>(from.size());
  for (size_t i = 0; i < to.size(); ++i) to[i] = static_cast<float>(static_cast<double>(from[i]) - mean);
  normalize(to, gain, epsilon, to);
  for (size_t i = 0; i < to.size(); ++i) to[i] += bias[i];
}

FloatMatrix normalized(DenseProducts& products, const FloatMatrix& x, std::span<const float> gain,
                       std::span<const float> bias, float epsilon) {
  FloatMatrix out(x.rows, x.columns);
  for_row_blocks(products, x.rows, kRowBlock, [&](size_t first, size_t count, size_t) {
    for (size_t row = first; row < first + count; ++row) {
      if (bias.empty())
        normalize(x.row(row), gain, epsilon, out.row(row));
      else
        normalize_centred(x.row(row), gain, bias, epsilon, out.row(row));
    }
  });
  return out;
}

void normalize_heads(DenseProducts& products, const HeadNorm& norm, std::span<const float> query_gain,
                     std::span<const float> key_gain, FloatMatrix& x) {
  for_row_blocks(products, x.rows, kRowBlock, [&](size_t first, size_t count, size_t) {
    for (size_t row = first; row < first + count; ++row) {
      for (size_t head = 0; head < norm.query_heads + norm.kv_heads; ++head) {
        const std::span<float> values = x.row(row).subspan(head * norm.head_dim, norm.head_dim);
        normalize(values, head < norm.query_heads ? query_gain : key_gain, norm.epsilon, values);
      }
    }
  });
}

void apply_rope(DenseProducts& products, const Rope& rope, std::span<const size_t> windows, FloatMatrix& x) {
  std::vector<size_t> positions;
  positions.reserve(x.rows);
  for (const size_t window : windows)
    for (size_t position = 0; position < window; ++position) positions.push_back(position);
  assert(positions.size() == x.rows);
  const size_t rotated = rope.heads * rope.head_dim;
  const size_t half = rope.inverse_frequency.size();
  for_row_blocks(products, x.rows, kRowBlock, [&](size_t first, size_t count, size_t) {
    for (size_t row = first; row < first + count; ++row) {
      const std::span<float> values = x.row(row);
      for (size_t i = 0; i < half; ++i) {
        const double angle = static_cast<double>(positions[row]) * rope.inverse_frequency[i];
        const float cosine = static_cast<float>(std::cos(angle));
        const float sine = static_cast<float>(std::sin(angle));
        for (size_t head = 0; head < rotated; head += rope.head_dim) {
          const float a = values[head + i];
          const float b = values[head + i + half];
          values[head + i] = a * cosine - b * sine;
          values[head + i + half] = b * cosine + a * sine;
        }
      }
    }
  });
}

FloatMatrix attend(DenseProducts& products, const Attention& attention, std::span<const size_t> windows,
                   const FloatMatrix& inputs) {
  const size_t dim = attention.head_dim;
  const size_t group = attention.query_heads / attention.kv_heads;  // query heads that share a KV head
  FloatMatrix out(inputs.rows, attention.query_heads * dim);
  const size_t keys_begin = attention.query_heads * dim;
  const size_t values_begin = keys_begin + attention.kv_heads * dim;
  assert(inputs.columns == values_begin + attention.kv_heads * dim);
  std::vector<float> scores;
  std::vector<float> columns;  // one head's values with tokens as columns, [dim, tokens]
  size_t first = 0;
  for (const size_t tokens : windows) {
    scores.resize(kQueryBlock * tokens);
    columns.resize(dim * tokens);
    for (size_t head = 0; head < attention.query_heads; ++head) {
      const size_t kv_head = head / group;
      const float slope = attention.alibi > 0 ? alibi_slope(attention, head) : 0.0f;
      if (head % group == 0) {
        for_row_blocks(products, tokens, 64, [&](size_t begin, size_t count, size_t) {
          for (size_t token = begin; token < begin + count; ++token) {
            const float* from =
                &inputs.values[(first + token) * inputs.columns + values_begin + kv_head * dim];
            for (size_t i = 0; i < dim; ++i) columns[i * tokens + token] = from[i];
          }
        });
      }
      for (size_t block = 0; block < tokens; block += kQueryBlock) {
        const size_t rows = std::min(kQueryBlock, tokens - block);
        const size_t keys = block + rows;
        DenseProduct job;
        job.a = &inputs.values[(first + block) * inputs.columns + head * dim];
        job.a_stride = inputs.columns;
        job.m = rows;
        job.b = &inputs.values[first * inputs.columns + keys_begin + kv_head * dim];
        job.b_stride = inputs.columns;
        job.n = keys;
        job.k = dim;
        job.out = scores.data();
        job.out_stride = tokens;
        products.multiply(job);
        for_row_blocks(products, rows, kRowBlock, [&](size_t begin, size_t count, size_t) {
          for (size_t row = begin; row < begin + count; ++row)
            softmax(std::span(scores).subspan(row * tokens, keys), block + row + 1, attention, slope);
        });
        job.a = scores.data();
        job.a_stride = tokens;
        job.b = columns.data();
        job.b_stride = tokens;
        job.n = dim;
        job.k = keys;
        job.out = &out.values[(first + block) * out.columns + head * dim];
        job.out_stride = out.columns;
        products.multiply(job);
      }
    }
    first += tokens;
  }
  return out;
}

namespace {

inline float passed(GateFunction function, float x) {
  if (function == GateFunction::relu) return x < 0 ? 0.0f : x;
  const float argument = function == GateFunction::silu ? x : x * (kGeluLinear + kGeluCubic * x * x);
  return x / (1.0f + exponential(-argument));
}

}  // namespace

FloatMatrix gated(DenseProducts& products, const Gate& kind, const FloatMatrix& x) {
  FloatMatrix out(x.rows, kind.has_up ? x.columns / 2 : x.columns);
  for_row_blocks(products, x.rows, 4, [&](size_t first, size_t count, size_t) {
    for (size_t row = first; row < first + count; ++row) {
      const float* gate = x.row(row).data();
      const float* up = kind.has_up ? gate + out.columns : nullptr;
      float* to = out.row(row).data();
      for (size_t i = 0; i < out.columns; ++i) {
        to[i] = passed(kind.function, gate[i]) * (up != nullptr ? up[i] : 1.0f);
      }
    }
  });
  return out;
}

}  // namespace tessera::quantize
