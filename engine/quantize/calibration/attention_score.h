// How far a change of a layer's attention moves what the attention block adds to the residual stream: the
// measure behind the searches that concern queries, keys and values.
#pragma once

#include <cstddef>
#include <span>

#include "engine/quantize/calibration/float_layer.h"
#include "engine/quantize/calibration/float_ops.h"
#include "engine/quantize/calibration/layer_statistics.h"

namespace tessera::quantize {

// Every run of head_dim elements of every row as the 4-bit KV cache would give it back: scale and minimum in
// f16, codes 0 to 15.
void round_to_kv4(DenseProducts& products, size_t head_dim, FloatMatrix& x);

// Every row as the integer schemes read it: 127 steps to either side of zero.
void round_to_int8(DenseProducts& products, FloatMatrix& x);

// Of a layer with an AttentionBlock.
class AttentionScore {
 public:
  // Computes what attention reads and the block's output of the sample. layer and sample must outlive the
  // object and must not change.
  AttentionScore(DenseProducts& products, DenseProduct::Precision precision, const FloatLayer& layer,
                 const AttentionSample& sample);

  // What the attention op reads, [tokens, queries, keys and values side by side].
  const FloatMatrix& inputs() const { return inputs_; }
  const FloatMatrix& output() const { return output_; }  // [tokens, hidden], without o's bias
  FloatMatrix keys() const { return columns_of(inputs_, keys_); }
  FloatMatrix values() const { return columns_of(inputs_, values_); }

  // What attention would read if q, k or v were this matrix of the same shape.
  FloatMatrix inputs_with(const LinearPart& part, const FloatMatrix& weights) const;
  // What it would read if q, k and v gave this, biases included.
  FloatMatrix inputs_of(FloatMatrix projected) const;
  FloatMatrix inputs_with_keys(const FloatMatrix& keys) const { return with_columns(inputs_, keys_, keys); }
  FloatMatrix inputs_with_values(const FloatMatrix& values) const {
    return with_columns(inputs_, values_, values);
  }

  // What attention gives to o, [tokens, query_heads * head_dim].
  FloatMatrix attended(const FloatMatrix& inputs) const;

  // Squared error of the block's output when o reads this.
  double error(const FloatMatrix& attended) const;
  // The same with other weights of o.
  double error(const FloatMatrix& attended, const FloatMatrix& o) const;

 private:
  DenseProducts* products_;
  DenseProduct::Precision precision_;
  const FloatLayer* layer_;
  const AttentionBlock* block_;
  const AttentionSample* sample_;
  ColumnRange keys_, values_;  // of what attention reads
  FloatMatrix projected_, inputs_, output_;
};

// sum (a - b)^2; the order of summation does not depend on threads.
double squared_difference(DenseProducts& products, const FloatMatrix& a, const FloatMatrix& b);

}  // namespace tessera::quantize
