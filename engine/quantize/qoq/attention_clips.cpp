#include "engine/quantize/qoq/attention_clips.h"

#include <limits>
#include <vector>

#include "engine/quantize/qoq/rounded_matrix.h"

namespace tessera::quantize {

namespace {

constexpr int kRatios = 40;

template <typename Error>
std::vector<float> best_clips(DenseProducts& products, Scheme scheme, const FloatMatrix& weights,
                              std::span<const float> by_row, Error error) {
  std::vector<float> best(by_row.begin(), by_row.end());
  double best_error = error(rounded_to_rows(products, scheme, weights, by_row));
  double best_single = std::numeric_limits<double>::infinity();
  int idle = 0;
  for (int step = 0; step <= kRatios && idle < kPatience; ++step) {
    const float ratio = 1.0f - 0.8f * static_cast<float>(step) / static_cast<float>(kRatios);
    const std::vector<float> clips(weights.rows, ratio);
    const double found = error(rounded_to_rows(products, scheme, weights, clips));
    ++idle;
    if (!(found < best_single)) continue;
    best_single = found;
    idle = 0;
    if (!(found < best_error)) continue;
    best_error = found;
    best = clips;
  }
  return best;
}

}  // namespace

std::vector<float> best_key_clips(DenseProducts& products, Scheme scheme, const LayerWeights& weights,
                                  const AttentionScore& score, std::span<const float> by_row) {
  return best_clips(products, scheme, weights.k, by_row, [&](const FloatMatrix& k) {
    return score.error(score.attended(score.query(), score.queries_with(k, weights.k_bias), score.value()));
  });
}

std::vector<float> best_query_clips(DenseProducts& products, Scheme scheme, const LayerWeights& weights,
                                    const AttentionScore& score, std::span<const float> by_row) {
  return best_clips(products, scheme, weights.q, by_row, [&](const FloatMatrix& q) {
    return score.error(score.attended(score.queries_with(q, weights.q_bias), score.key(), score.value()));
  });
}

}  // namespace tessera::quantize
