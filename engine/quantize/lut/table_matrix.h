// From float weights to the stored bytes of a table scheme: the table, the scales and the codes.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "backends/dense_products.h"
#include "engine/quantize/qoq/float_matrix.h"
#include "engine/quantize/qoq/input_statistics.h"
#include "engine/quantize/qoq/recipe.h"
#include "gguf-like-format/scheme.h"

namespace tessera::lut {

// The weights as the scheme's NormalFloat table (or zero points) would reconstruct them, every value by its
// nearest code; scales by search_levels with this importance, or without scale_search as plain rounding has
// them.
qoq::FloatMatrix rounded(DenseProducts& products, const TableFormat& format, const qoq::FloatMatrix& weights,
                         bool scale_search, std::span<const float> importance);

// Mean square of every input, damped like error feedback's moments; empty without statistics.
std::vector<float> importance_of(const qoq::InputStatistics* inputs);

// Encodes the whole matrix into out (stored_bytes of the scheme) as the recipe's table, scale_search,
// train_scales and feedback say. inputs: null without a calibration text, which the last two need; its
// moments may be completed above the diagonal. Throws std::runtime_error when feedback cannot factor the
// moments.
void encode_matrix(DenseProducts& products, Scheme scheme, const qoq::FloatMatrix& weights,
                   const qoq::Recipe& recipe, qoq::InputStatistics* inputs, std::span<std::byte> out);

}  // namespace tessera::lut
