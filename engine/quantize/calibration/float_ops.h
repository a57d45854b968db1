// The arithmetic of a graph's ops on matrices of floats, which nothing rounds: what calibration runs. All
// products go through DenseProducts; norms, softmax and gates are f32 with sums in double.
#pragma once

#include <cstddef>
#include <span>

#include "backends/dense_products.h"
#include "engine/quantize/calibration/float_matrix.h"
#include "graph/graph.h"

namespace tessera::quantize {

// Neighbouring columns of a matrix.
struct ColumnRange {
  size_t first = 0;
  size_t count = 0;
};

FloatMatrix columns_of(const FloatMatrix& x, ColumnRange range);
// x with these columns, [x.rows, range.count], in place of its own.
FloatMatrix with_columns(FloatMatrix x, ColumnRange range, const FloatMatrix& columns);

// out[t] = weights * x[t] + bias (none when empty) for every row; x is [tokens, weights.columns].
FloatMatrix project(DenseProducts& products, DenseProduct::Precision precision, const FloatMatrix& x,
                    const FloatMatrix& weights, std::span<const float> bias);
// The same into columns [first, first + weights.rows) of out, which has as many rows as x.
void project_into(DenseProducts& products, DenseProduct::Precision precision, const FloatMatrix& x,
                  const FloatMatrix& weights, std::span<const float> bias, FloatMatrix& out, size_t first);

// Every row over its root mean square, times gain.
FloatMatrix normalized(DenseProducts& products, const FloatMatrix& x, std::span<const float> gain,
                       std::span<const float> bias, float epsilon);

// Normalizes query and key heads of x in place; gains are [head_dim].
void normalize_heads(DenseProducts& products, const HeadNorm& norm, std::span<const float> query_gain,
                     std::span<const float> key_gain, FloatMatrix& x);

// Rotary positions: rotates the pairs of every head of x in place. windows are the lengths of the texts that
// the rows of x hold one after another, each beginning at position 0.
void apply_rope(DenseProducts& products, const Rope& rope, std::span<const size_t> windows, FloatMatrix& x);

// Causal attention within each of the texts that windows are the lengths of, and within the op's own window.
// inputs hold queries, keys and values side by side, as the op's input
// does; returns [tokens, query_heads * head_dim].
FloatMatrix attend(DenseProducts& products, const Attention& attention, std::span<const size_t> windows,
                   const FloatMatrix& inputs);

// function(gate) * up, which x holds side by side.
FloatMatrix gated(DenseProducts& products, const Gate& kind, const FloatMatrix& x);

// to += multiplier * from
void add_rows(DenseProducts& products, FloatMatrix& to, const FloatMatrix& from, float multiplier);

}  // namespace tessera::quantize
