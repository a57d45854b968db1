// Products of plain float matrices for work outside a graph, such as calibration: a backend's fast kernels
// without its programs. One thread drives an object at a time; nothing here throws.
#pragma once

#include <cstddef>
#include <functional>

namespace tessera {

// out[m][n] = sum_k a[m][k] b[n][k], added to what out holds if accumulate is set. All matrices are row-major
// with strides in floats; out must not overlap a or b.
struct DenseProduct {
  const float* a = nullptr;
  size_t a_stride = 0;
  size_t m = 0;
  const float* b = nullptr;
  size_t b_stride = 0;
  size_t n = 0;
  size_t k = 0;
  float* out = nullptr;
  size_t out_stride = 0;
  bool accumulate = false;
  enum class Precision : unsigned char {
    f32,
    bf16,  // both factors rounded to bf16 first, sums in f32
  } precision = Precision::f32;
};

class DenseProducts {
 public:
  virtual ~DenseProducts() = default;
  // Uses all threads. A result does not depend on their number.
  virtual void multiply(const DenseProduct& job) = 0;
  // Calls work(task, thread) once for each of the tasks 0 … count - 1, on all threads; thread < threads().
  // work must not throw.
  virtual void for_each(size_t count, const std::function<void(size_t task, size_t thread)>& work) = 0;
  // The number of threads that for_each uses.
  virtual size_t threads() const = 0;
};

}  // namespace tessera
