// Codes chosen one column after another, each column making up for the errors of those before it (GPTQ).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backends/dense_products.h"
#include "engine/codec/group_levels.h"
#include "engine/codec/row_levels.h"
#include "engine/codec/table_levels.h"
#include "engine/quantize/calibration/float_matrix.h"
#include "engine/quantize/calibration/moment_factor.h"

namespace tessera::quantize {

// Stored codes [rows, columns] of the weights. levels: one for each row, fixed beforehand. Rows do not depend
// on each other. Column by column in the factor's order, w'_j = w_j + sum_i e_i shares[j][i] is rounded and
// e_j = w_j - w^_j. Up to kFactorBlock columns the sum is a fixed chain of f32 additions from the first
// column to the last, so that any implementation can repeat it; what larger matrices add for earlier blocks
// is one f32 product for each block.
std::vector<uint8_t> codes_with_feedback(DenseProducts& products, const FloatMatrix& weights,
                                         std::span<const RowLevels> levels, const MomentFactor& factor);
std::vector<uint8_t> codes_with_feedback(DenseProducts& products, const FloatMatrix& weights,
                                         std::span<const TableLevels> levels, const MomentFactor& factor);
std::vector<uint8_t> codes_with_feedback(DenseProducts& products, const FloatMatrix& weights,
                                         std::span<const GroupLevels> levels, const MomentFactor& factor);

}  // namespace tessera::quantize
