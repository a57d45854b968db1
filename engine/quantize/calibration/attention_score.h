// How far a change of a layer's attention moves what the attention block adds to the residual stream: the
// measure behind the searches that concern queries, keys and values.
#pragma once

#include <cstddef>
#include <span>

#include "engine/quantize/calibration/layer_statistics.h"
#include "engine/quantize/calibration/layer_weights.h"

namespace tessera::quantize {

// Every run of head_dim elements of every row as the 4-bit KV cache would give it back: scale and minimum in
// f16, codes 0 to 15.
void round_to_kv4(DenseProducts& products, size_t head_dim, FloatMatrix& x);

// Every row as the integer schemes read it: 127 steps to either side of zero.
void round_to_int8(DenseProducts& products, FloatMatrix& x);

class AttentionScore {
 public:
  // Computes queries, keys (both after RoPE), values and the block's output of the sample. The weights must
  // outlive the object and must not change.
  AttentionScore(DenseProducts& products, DenseProduct::Precision precision, const DecoderShape& shape,
                 const LayerWeights& weights, const AttentionSample& sample);

  const FloatMatrix& query() const { return query_; }
  const FloatMatrix& key() const { return key_; }
  const FloatMatrix& value() const { return value_; }
  const FloatMatrix& output() const { return output_; }  // [tokens, hidden], without o's bias

  // Queries or keys that other weights of the same shape would give, after RoPE.
  FloatMatrix queries_with(const FloatMatrix& q, std::span<const float> bias) const;

  // What attention gives to o, [tokens, query_columns].
  FloatMatrix attended(const FloatMatrix& query, const FloatMatrix& key, const FloatMatrix& value) const;

  // Squared error of the block's output when o reads this.
  double error(const FloatMatrix& attended) const;
  // The same with other weights of o.
  double error(const FloatMatrix& attended, const FloatMatrix& o) const;

 private:
  DenseProducts* products_;
  DenseProduct::Precision precision_;
  const DecoderShape* shape_;
  const LayerWeights* weights_;
  const AttentionSample* sample_;
  FloatMatrix query_, key_, value_, output_;
};

// sum (a - b)^2; the order of summation does not depend on threads.
double squared_difference(DenseProducts& products, const FloatMatrix& a, const FloatMatrix& b);

}  // namespace tessera::quantize
