#include "graph/rotation.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <stdexcept>

namespace tessera {

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

// The order of A for a size, and whether it is a Hadamard matrix.
struct FactorKind {
  size_t order = 1;
  bool paley = true;
};

// An order of 0 where the odd part is too large.
FactorKind factor_for(size_t size) {
  size_t odd = size;
  while (odd % 2 == 0) odd /= 2;
  if (odd > Rotation::kMostOddPart) return {0, false};
  if (odd == 1) return {};
  for (size_t order = 4 * odd; size % order == 0 && order <= 2 * Rotation::kMostOddPart; order *= 2)
    if (has_paley_first(order) || has_paley_second(order)) return {order, true};
  return {odd, false};
}

// In place, unscaled; the size is a power of two.
template <class Real>
void sylvester(std::span<Real> x) {
  for (size_t step = 1; step < x.size(); step *= 2) {
    for (size_t begin = 0; begin < x.size(); begin += 2 * step) {
      Real* low = &x[begin];
      Real* high = low + step;
      for (size_t i = 0; i < step; ++i) {
        const Real a = low[i];
        const Real b = high[i];
        low[i] = a + b;
        high[i] = a - b;
      }
    }
  }
}

// row * (A (x) S), or with the transposed A. product, of the row's size, is used where A has an order
// above 1.
template <class Real>
void multiply_factors(std::span<Real> row, std::span<Real> product, size_t order,
                      std::span<const Real> factor, bool transposed) {
  const size_t block = row.size() / order;
  const Real scale = static_cast<Real>(1.0 / std::sqrt(static_cast<double>(block)));
  for (size_t begin = 0; begin < row.size(); begin += block) {
    sylvester(row.subspan(begin, block));
    for (size_t i = 0; i < block; ++i) row[begin + i] *= scale;
  }
  if (order == 1) return;
  std::fill(product.begin(), product.end(), Real(0));
  for (size_t from = 0; from < order; ++from) {
    for (size_t to = 0; to < order; ++to) {
      const Real weight = transposed ? factor[to * order + from] : factor[from * order + to];
      const Real* source = &row[from * block];
      Real* target = &product[to * block];
      for (size_t i = 0; i < block; ++i) target[i] += weight * source[i];
    }
  }
  std::copy(product.begin(), product.end(), row.begin());
}

// Signs are 1 or -1.
template <class Real>
void flip(std::span<Real> row, std::span<const double> signs) {
  for (size_t i = 0; i < row.size(); ++i) row[i] *= static_cast<Real>(signs[i]);
}

}  // namespace

size_t Rotation::order_for(size_t size) { return size == 0 ? 0 : factor_for(size).order; }

Rotation::Rotation(size_t size) : signs_(fixed_signs(size)) {
  assert(size > 0);
  const FactorKind kind = factor_for(size);
  if (kind.order == 0) {
    size_t odd = size;
    while (odd % 2 == 0) odd /= 2;
    throw std::runtime_error(fmt::format("rotation of size {}: expected an odd part of at most {}, found {}",
                                         size, kMostOddPart, odd));
  }
  order_ = kind.order;
  paley_ = kind.paley;
  if (order_ == 1) return;
  factor_ = !paley_ ? hartley(order_) : has_paley_first(order_) ? paley_first(order_) : paley_second(order_);
  const double scale = 1.0 / std::sqrt(static_cast<double>(order_));
  for (double& value : factor_) value *= scale;
  float_factor_.assign(factor_.begin(), factor_.end());
}

void Rotation::apply(std::span<double> row) const {
  assert(row.size() == size());
  std::vector<double> product(order_ == 1 ? 0 : row.size());
  flip(row, signs());
  multiply_factors<double>(row, product, order_, factor_, false);
}

void Rotation::undo(std::span<double> row) const {
  assert(row.size() == size());
  std::vector<double> product(order_ == 1 ? 0 : row.size());
  multiply_factors<double>(row, product, order_, factor_, true);
  flip(row, signs());
}

void Rotation::apply(std::span<float> row, std::span<float> scratch) const {
  assert(row.size() == size() && scratch.size() == size());
  flip(row, signs());
  multiply_factors<float>(row, scratch, order_, float_factor_, false);
}

void Rotation::undo(std::span<float> row, std::span<float> scratch) const {
  assert(row.size() == size() && scratch.size() == size());
  multiply_factors<float>(row, scratch, order_, float_factor_, true);
  flip(row, signs());
}

}  // namespace tessera
