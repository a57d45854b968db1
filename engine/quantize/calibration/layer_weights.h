// The float weights of one decoder layer in memory and the shape of the decoder they belong to: what the
// steps of the recipe change.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "backends/dense_products.h"
#include "engine/quantize/calibration/float_matrix.h"
#include "engine/quantize/plan/weight_plan.h"
#include "gguf-like-format/model_header.h"

namespace tessera::quantize {

struct DecoderShape {
  size_t hidden = 0;
  size_t query_heads = 0;
  size_t kv_heads = 0;
  size_t head_dim = 0;
  size_t ffn = 0;
  float norm_epsilon = 0;
  std::vector<double> inverse_frequency;  // [head_dim / 2] radians per position

  DecoderShape() = default;
  explicit DecoderShape(const Hyperparameters& hyperparameters);  // which passed the family's checks
  size_t query_columns() const { return query_heads * head_dim; }
  size_t kv_columns() const { return kv_heads * head_dim; }
  size_t queries_per_kv_head() const { return query_heads / kv_heads; }
};

struct LayerWeights {
  std::vector<float> attention_norm;          // [hidden]
  FloatMatrix q;                              // [query_heads * head_dim, hidden]
  FloatMatrix k, v;                           // [kv_heads * head_dim, hidden]
  std::vector<float> q_bias, k_bias, v_bias;  // by rows of their matrices; empty when the family has none
  FloatMatrix o;                              // [hidden, query_heads * head_dim]
  std::vector<float> o_bias;                  // [hidden] or empty
  std::vector<float> ffn_norm;                // [hidden]
  FloatMatrix gate, up;                       // [ffn, hidden]
  FloatMatrix down;                           // [hidden, ffn]

  // The part with the name that a tensor has within its layer ("q", "o_bias", …); null for other names.
  FloatMatrix* matrix(std::string_view part);
  std::vector<float>* vector(std::string_view part);
};

// The planned weights of one layer, in file order. plan is the whole model's.
std::span<const PlannedWeight> layer_plan(std::span<const PlannedWeight> plan, size_t layer);

// The name of a layer's tensor within its layer: "q" of "layers.3.q".
std::string_view part_name(const PlannedWeight& weight);

// Reads all tensors of a layer. Throws FileError for values that are not finite; folder names the checkpoint.
LayerWeights load_layer(DenseProducts& products, const std::string& folder,
                        std::span<const PlannedWeight> layer);

// Runs work(first, count, thread) over [0, rows) in blocks on all threads.
void for_row_blocks(DenseProducts& products, size_t rows, size_t block,
                    const std::function<void(size_t first, size_t count, size_t thread)>& work);

}  // namespace tessera::quantize
