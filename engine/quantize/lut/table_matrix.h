// From float weights to the stored bytes of a table scheme: the table, the scales and the codes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "backends/dense_products.h"
#include "engine/quantize/calibration/float_matrix.h"
#include "engine/quantize/calibration/input_statistics.h"
#include "gguf-like-format/scheme.h"

namespace tessera::quantize {

// Where the table of a table scheme comes from.
enum class TableKind : uint8_t {
  normal_float,  // NormalFloat of the scheme's width
  kmeans,        // the centres of the matrix's own weights
};

// How the table, scales and codes of a matrix are chosen.
struct TableChoices {
  TableKind table = TableKind::normal_float;
  bool scale_search = true;  // scales by the least error instead of the largest weight
  bool feedback = false;     // codes by error feedback instead of the nearest; needs inputs
  bool train_scales =
      false;  // by the error of the outputs: with NormalFloat, learned NormalFloat; needs inputs
};

// The weights as the scheme's NormalFloat table (or zero points) would reconstruct them, every value by its
// nearest code; scales by search_levels with this importance, or without scale_search as plain rounding has
// them.
FloatMatrix rounded_to_table(DenseProducts& products, const TableFormat& format, const FloatMatrix& weights,
                             bool scale_search, std::span<const float> importance);

// Mean square of every input, damped like error feedback's moments; empty without statistics.
std::vector<float> importance_of(const InputStatistics* inputs);

// Encodes the whole matrix into out, stored_bytes of the table scheme. inputs: null without a calibration
// text, where feedback and train_scales do nothing; its moments may be completed above the diagonal. Throws
// std::runtime_error when feedback cannot factor the moments.
void encode_with_table(DenseProducts& products, Scheme scheme, const FloatMatrix& weights,
                       const TableChoices& choices, InputStatistics* inputs, std::span<std::byte> out);

}  // namespace tessera::quantize
