// Which weights must change, and by how much, to make up for the rounding of another: what error feedback
// reads off the second moments of a layer's inputs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "backends/dense_products.h"
#include "engine/quantize/calibration/float_matrix.h"

namespace tessera::quantize {

// With M the damped moments in the order below and M = V^T V for a lower triangular V, the entry [j][i] of
// `shares`, i < j, is V[j][i] / V[j][j]: when columns before j have been rounded with errors e_i = w_i -
// w^_i, the best value of column j is w_j + sum_i e_i shares[j][i]. This is GPTQ's update (whose factor is
// the inverse of V^T) without the inverse. On and above the diagonal shares are 0.
struct MomentFactor {
  std::vector<uint32_t> order;  // column of the matrix that is rounded i-th: falling moments
  FloatMatrix shares;           // [columns, columns]
};

// Matrices of up to this many columns are factored entirely in float64; larger ones by blocks of as many,
// coupled by f32 products.
inline constexpr size_t kFactorBlock = 1024;

// moments: [columns, columns], read at and below the diagonal. Damping adds 0.01 of the mean diagonal entry
// to every diagonal entry, and ten or a hundred times as much when that leaves the moments indefinite. A
// column that was never used (moment 0) neither has nor gets shares. Throws std::runtime_error when the
// moments are not finite or cannot be factored.
MomentFactor factor_moments(DenseProducts& products, const FloatMatrix& moments);

}  // namespace tessera::quantize
