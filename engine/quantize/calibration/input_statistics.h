// What calibration remembers of one linear layer's inputs.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "backends/dense_products.h"
#include "engine/quantize/calibration/float_matrix.h"

namespace tessera::quantize {

struct InputStatistics {
  size_t tokens = 0;           // seen so far
  std::vector<float> largest;  // [columns] max |x|
  std::vector<float> squares;  // [columns] sum over tokens of x^2
  // [columns, columns] sum over tokens of x x^T, of which only entries [i][j] with j <= i mean something;
  // empty without moments. Sums are f32: a block of tokens is summed before it is added, so that the error
  // stays near 1e-6 of an entry, far below what a sample of texts leaves uncertain.
  FloatMatrix moments;
  FloatMatrix sample;  // some of the inputs, evenly spread over the text, for searches by output error

  // sample_rows rows of the sample are reserved; total_tokens says how many tokens will come, so that the
  // sample can be spread over them.
  InputStatistics(size_t columns, size_t total_tokens, size_t sample_rows, bool with_moments);
  InputStatistics() = default;
  // x is [count, columns], the next inputs in order.
  void add(DenseProducts& products, std::span<const float> x, size_t count);

 private:
  size_t total_tokens_ = 0;
  size_t sampled_ = 0;
};

}  // namespace tessera::quantize
