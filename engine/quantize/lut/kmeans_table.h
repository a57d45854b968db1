// A table made for one matrix: the centres of its weights' clusters (SqueezeLLM's sensitivity-weighted
// k-means, here for values over their group's scale).
#pragma once

#include <span>

#include "backends/dense_products.h"
#include "engine/codec/table_levels.h"
#include "engine/quantize/calibration/float_matrix.h"
#include "gguf-like-format/scheme.h"

namespace tessera::quantize {

// A table with a smaller sum of importance[column] * (weight - meaning)^2 than NormalFloat's, from which it
// starts: the best clusters of a histogram of weight / scale, each value counting importance * scale^2,
// alternating with the choice of scales (by search_levels or, without scale_search, by largest magnitude);
// the best table found is returned, its largest entry having magnitude 1. Of a matrix with more than 2^20
// weights only evenly spread rows are used. importance is the mean square of every input where a calibration
// text was read, the diagonal of the output error's Hessian, which is the sensitivity of this objective;
// empty for 1 everywhere. Does not depend on the number of threads. Not for zero points.
ValueTable kmeans_table(DenseProducts& products, const TableFormat& format, const FloatMatrix& weights,
                        std::span<const float> importance, bool scale_search);

}  // namespace tessera::quantize
