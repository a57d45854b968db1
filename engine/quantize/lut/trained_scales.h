// Scales trained by the error of a layer's outputs while codes are searched again (learned NormalFloat).
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "backends/dense_products.h"
#include "engine/codec/table_levels.h"
#include "engine/quantize/calibration/float_matrix.h"

namespace tessera::quantize {

// Chooses the codes [rows, columns] of all rows for the given levels.
using ChooseCodes = std::function<std::vector<uint8_t>(std::span<const TableLevels> levels)>;

// Trains the scales, and zero points where there are any, of all rows and returns the codes that belong to
// them. The objective is the squared error of the layer's outputs over the calibration inputs, (w - w^) M (w
// - w^)^T for every row, with their second moments M, 0.01 of the mean diagonal added. A round chooses codes
// for the present levels and then takes one exact coordinate step of every group's scale with those codes
// held, group after group; every row keeps its best of `rounds` rounds. moments: [columns, columns], both
// triangles. Does not depend on the number of threads.
std::vector<uint8_t> train_scales(DenseProducts& products, const FloatMatrix& weights,
                                  const FloatMatrix& moments, int rounds, const ChooseCodes& choose_codes,
                                  std::vector<TableLevels>& levels);

}  // namespace tessera::quantize
