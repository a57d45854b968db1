#include "engine/quantize/qoq/rotation.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <stdexcept>

namespace tessera::quantize {

namespace {

bool is_prime(size_t n) {
  if (n < 2) return false;
  for (size_t d = 2; d * d <= n; ++d)
    if (n % d == 0) return false;
  return true;
}

// The quadratic character of every residue of an odd prime: 0 for 0, 1 for squares, -1 for the others.
std::vector<double> quadratic_characters(size_t prime) {
  std::vector<double> character(prime, -1.0);
  character[0] = 0.0;
  for (size_t i = 1; i < prime; ++i) character[i * i % prime] = 1.0;
  return character;
}

// Paley's conference-like matrix of order prime + 1: the Jacobsthal matrix with a border of ones, whose left
// side is `side`. S * S^T = prime * I.
std::vector<double> bordered_jacobsthal(size_t prime, double side) {
  const std::vector<double> character = quadratic_characters(prime);
  const size_t order = prime + 1;
  std::vector<double> s(order * order, 0.0);
  for (size_t i = 1; i < order; ++i) {
    s[i] = 1.0;
    s[i * order] = side;
    for (size_t j = 1; j < order; ++j) s[i * order + j] = character[(i + prime - j) % prime];
  }
  return s;
}

// First construction, order prime + 1 for a prime of the form 4m + 3: I + S with S skew.
std::vector<double> paley_first(size_t order) {
  std::vector<double> h = bordered_jacobsthal(order - 1, -1.0);
  for (size_t i = 0; i < order; ++i) h[i * order + i] += 1.0;
  return h;
}

// Second construction, order 2 (prime + 1) for a prime of the form 4m + 1: S (x) [1 1; 1 -1] + I (x) [1 -1;
// -1 -1].
std::vector<double> paley_second(size_t order) {
  const size_t half = order / 2;
  const std::vector<double> s = bordered_jacobsthal(half - 1, 1.0);
  std::vector<double> h(order * order);
  for (size_t i = 0; i < half; ++i) {
    for (size_t j = 0; j < half; ++j) {
      const double value = s[i * half + j];
      const double unit = i == j ? 1.0 : 0.0;
      double* at = &h[2 * i * order + 2 * j];
      at[0] = value + unit;
      at[1] = value - unit;
      at[order] = value - unit;
      at[order + 1] = -value - unit;
    }
  }
  return h;
}

bool has_paley_first(size_t order) { return order % 4 == 0 && is_prime(order - 1); }
bool has_paley_second(size_t order) {
  return order % 4 == 0 && is_prime(order / 2 - 1) && (order / 2 - 1) % 4 == 1;
}

std::vector<double> hartley(size_t order) {
  std::vector<double> wave(order);
  for (size_t i = 0; i < order; ++i) {
    const double angle = 2 * std::numbers::pi * static_cast<double>(i) / static_cast<double>(order);
    wave[i] = std::cos(angle) + std::sin(angle);
  }
  std::vector<double> h(order * order);
  for (size_t i = 0; i < order; ++i)
    for (size_t j = 0; j < order; ++j) h[i * order + j] = wave[i * j % order];
  return h;
}

// A fixed sequence of signs: the top bits of a multiplicative generator (constants of splitmix64).
std::vector<double> fixed_signs(size_t count) {
  std::vector<double> signs(count);
  uint64_t state = 0;
  for (double& sign : signs) {
    state += 0x9e3779b97f4a7c15u;
    uint64_t mixed = (state ^ (state >> 30)) * 0xbf58476d1ce4e5b9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebu;
    sign = ((mixed ^ (mixed >> 31)) >> 63) != 0 ? -1.0 : 1.0;
  }
  return signs;
}

// In place, unscaled; the size is a power of two.
void sylvester(std::span<double> x) {
  for (size_t step = 1; step < x.size(); step *= 2) {
    for (size_t begin = 0; begin < x.size(); begin += 2 * step) {
      double* low = &x[begin];
      double* high = low + step;
      for (size_t i = 0; i < step; ++i) {
        const double a = low[i];
        const double b = high[i];
        low[i] = a + b;
        high[i] = a - b;
      }
    }
  }
}

}  // namespace

Rotation::Rotation(size_t size) : signs_(fixed_signs(size)) {
  assert(size > 0);
  size_t odd = size;
  while (odd % 2 == 0) odd /= 2;
  if (odd > kMostOddPart)
    throw std::runtime_error(fmt::format("rotation of size {}: expected an odd part of at most {}, found {}",
                                         size, kMostOddPart, odd));
  if (odd == 1) return;
  paley_ = false;
  order_ = odd;
  for (size_t order = 4 * odd; size % order == 0 && order <= 2 * kMostOddPart && !paley_; order *= 2) {
    if (!has_paley_first(order) && !has_paley_second(order)) continue;
    paley_ = true;
    order_ = order;
    factor_ = has_paley_first(order) ? paley_first(order) : paley_second(order);
  }
  if (!paley_) factor_ = hartley(odd);
  const double scale = 1.0 / std::sqrt(static_cast<double>(order_));
  for (double& value : factor_) value *= scale;
}

void Rotation::multiply_factors(std::span<double> row, bool transposed) const {
  const size_t block = row.size() / order_;
  const double scale = 1.0 / std::sqrt(static_cast<double>(block));
  for (size_t begin = 0; begin < row.size(); begin += block) {
    sylvester(row.subspan(begin, block));
    for (size_t i = 0; i < block; ++i) row[begin + i] *= scale;
  }
  if (order_ == 1) return;
  std::vector<double> product(row.size(), 0.0);
  for (size_t from = 0; from < order_; ++from) {
    for (size_t to = 0; to < order_; ++to) {
      const double weight = transposed ? factor_[to * order_ + from] : factor_[from * order_ + to];
      const double* source = &row[from * block];
      double* target = &product[to * block];
      for (size_t i = 0; i < block; ++i) target[i] += weight * source[i];
    }
  }
  std::copy(product.begin(), product.end(), row.begin());
}

void Rotation::apply(std::span<double> row) const {
  assert(row.size() == size());
  for (size_t i = 0; i < row.size(); ++i) row[i] *= signs_[i];
  multiply_factors(row, false);
}

void Rotation::undo(std::span<double> row) const {
  assert(row.size() == size());
  multiply_factors(row, true);
  for (size_t i = 0; i < row.size(); ++i) row[i] *= signs_[i];
}

}  // namespace tessera::quantize
