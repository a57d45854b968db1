// Orthogonal transforms that spread the energy of a vector evenly over its elements, of any size and fast:
// what a model's residual stream and the values of its heads are rotated by.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace tessera {

// x -> x * Q for row vectors, Q orthogonal: Q = D * (A (x) S) where D flips signs by a fixed pattern, S is
// the scaled Sylvester Hadamard matrix of a power of two and A covers the odd part of the size. A is a scaled
// Hadamard matrix by Paley's constructions of the smallest order odd * 2^j that has one (12, 20, 28, 36, 44,
// …); where the size allows none, it is the discrete Hartley matrix of the odd part, cas(2 pi i j / n) /
// sqrt(n). The signs keep a mean that all elements share from gathering in a single element.
class Rotation {
 public:
  // Throws std::runtime_error when the odd part of size is beyond kMostOddPart. size must not be 0.
  explicit Rotation(size_t size);

  static constexpr size_t kMostOddPart = 8191;

  size_t size() const { return signs_.size(); }
  size_t factor_order() const { return order_; }      // of A
  bool factor_is_hadamard() const { return paley_; }  // also when A has order 1
  std::span<const double> factor() const {
    return factor_;
  }                                                         // A, [order, order] row-major; empty for order 1
  std::span<const double> signs() const { return signs_; }  // D
  // row * Q in place; row has size() elements.
  void apply(std::span<double> row) const;
  // row * Q^T in place, which undoes apply.
  void undo(std::span<double> row) const;
  // The same in single precision, operations in one order on every machine. scratch has size() elements.
  void apply(std::span<float> row, std::span<float> scratch) const;
  void undo(std::span<float> row, std::span<float> scratch) const;

  // The order that A has for a size, without making it; 0 where the constructor throws.
  static size_t order_for(size_t size);

 private:
  size_t order_ = 1;
  bool paley_ = true;
  std::vector<double> factor_;
  std::vector<float> float_factor_;
  std::vector<double> signs_;
};

}  // namespace tessera
