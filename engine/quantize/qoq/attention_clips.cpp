#include "engine/quantize/qoq/attention_clips.h"

#include <limits>
#include <vector>

#include "engine/quantize/qoq/rounded_matrix.h"

namespace tessera::quantize {

namespace {

constexpr int kRatios = 40;

}  // namespace

std::vector<float> best_attention_clips(DenseProducts& products, Scheme scheme, const FloatLayer& layer,
                                        const LinearPart& part, const AttentionScore& score,
                                        std::span<const float> by_row) {
  const FloatMatrix& weights = layer.matrix(part.weight);
  const auto error = [&](std::span<const float> clips) {
    const FloatMatrix rounded = rounded_to_rows(products, scheme, weights, clips);
    return score.error(score.attended(score.inputs_with(part, rounded)));
  };
  std::vector<float> best(by_row.begin(), by_row.end());
  double best_error = error(by_row);
  double best_single = std::numeric_limits<double>::infinity();
  int fruitless = 0;
  for (int step = 0; step <= kRatios && fruitless < kMostFruitless; ++step) {
    const float ratio = 1.0f - 0.8f * static_cast<float>(step) / static_cast<float>(kRatios);
    const std::vector<float> clips(weights.rows, ratio);
    const double found = error(clips);
    ++fruitless;
    if (!(found < best_single)) continue;
    best_single = found;
    fruitless = 0;
    if (!(found < best_error)) continue;
    best_error = found;
    best = clips;
  }
  return best;
}

}  // namespace tessera::quantize
