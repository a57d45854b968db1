// From float weights to stored codes with the freedoms that plain rounding leaves unused: narrower ranges
// (clipping) and error feedback.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "backends/dense_products.h"
#include "engine/quantize/calibration/float_matrix.h"
#include "engine/quantize/calibration/input_statistics.h"
#include "gguf-like-format/scheme.h"

namespace tessera::quantize {

// The weights as plain rounding with these clip ratios would reconstruct them. clips: one ratio in (0, 1] per
// row, or empty for 1. Not for table schemes.
FloatMatrix rounded_to_rows(DenseProducts& products, Scheme scheme, const FloatMatrix& weights,
                            std::span<const float> clips);

// One clip ratio per row by the squared error of the layer's output on the sample [any number of inputs,
// columns], over the grid of docs/quantization.md; all 1 for a float scheme.
std::vector<float> search_row_clips(DenseProducts& products, Scheme scheme, const FloatMatrix& weights,
                                    const FloatMatrix& sample);
// The same by the squared error of the weights themselves, without inputs: the better choice before error
// feedback, which chooses other codes than those that ratios by output error were measured with.
std::vector<float> search_row_clips(DenseProducts& products, Scheme scheme, const FloatMatrix& weights);

// Encodes the whole matrix into out, stored_bytes of scheme, which is no table scheme. With feedback the
// error of each column is spread over the columns that follow it by the inverse of the inputs' second moments
// (GPTQ; damping 0.01, columns in order of descending moments, group parameters fixed beforehand). Throws
// std::runtime_error when the moments cannot be factored.
void encode_rows_of(DenseProducts& products, Scheme scheme, const FloatMatrix& weights,
                    std::span<const float> clips, const InputStatistics* feedback, std::span<std::byte> out);

}  // namespace tessera::quantize
