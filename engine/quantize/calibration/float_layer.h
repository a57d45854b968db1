// One decoder layer in floats over some windows of text: what calibration watches. All products go through
// DenseProducts; norms, softmax and gates are f32 with sums in double.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "backends/dense_products.h"
#include "engine/quantize/calibration/float_matrix.h"
#include "engine/quantize/calibration/layer_weights.h"

namespace tessera::quantize {

// out[t] = weights * x[t] + bias (none when empty); x is [tokens, weights.columns].
FloatMatrix project(DenseProducts& products, DenseProduct::Precision precision, const FloatMatrix& x,
                    const FloatMatrix& weights, std::span<const float> bias);

// Every row over its root mean square, times gain.
FloatMatrix normalized(DenseProducts& products, const FloatMatrix& x, std::span<const float> gain,
                       float epsilon);

// Turns x, [tokens, heads * head_dim], to its positions; windows are the lengths of the texts that its rows
// hold one after another, each beginning at position 0.
void turn_to_positions(DenseProducts& products, const DecoderShape& shape, std::span<const size_t> windows,
                       FloatMatrix& x);

// Causal attention within each window, queries and keys after RoPE. Returns [tokens, query_columns].
FloatMatrix attend(DenseProducts& products, const DecoderShape& shape, std::span<const size_t> windows,
                   const FloatMatrix& query, const FloatMatrix& key, const FloatMatrix& value);

// silu(gate) * up, written over gate.
void apply_gate(DenseProducts& products, FloatMatrix& gate, const FloatMatrix& up);

// What a layer's linear parts read, and its keys.
struct LayerInputs {
  FloatMatrix attention;  // of q, k and v
  FloatMatrix key;        // after RoPE
  FloatMatrix o;
  FloatMatrix ffn;  // of gate and up
  FloatMatrix down;
};

// Advances the residual stream by one layer and gives what its parts have read.
LayerInputs run_layer(DenseProducts& products, DenseProduct::Precision precision, const DecoderShape& shape,
                      const LayerWeights& weights, std::span<const size_t> windows, FloatMatrix& residual);

}  // namespace tessera::quantize
