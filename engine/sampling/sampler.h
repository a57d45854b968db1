// Chooses the next token from logits: penalties and biases, then top-k, top-p, min-p and temperature, then a
// draw.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "graph/batch.h"

namespace tessera {

struct SamplerSettings {
  float temperature = 0.8f;        // 0: greedy, the smallest id wins a tie
  size_t top_k = 40;               // 0: off
  float top_p = 0.95f;             // 1: off
  float min_p = 0.05f;             // 0: off
  float repeat_penalty = 1.0f;     // 1: off; divides positive and multiplies negative logits of tokens seen
  float presence_penalty = 0.0f;   // subtracted once for every token seen
  float frequency_penalty = 0.0f;  // subtracted for every time a token was seen
  size_t penalty_window = 64;      // how many of the latest tokens count as seen
  uint64_t seed = 0;
  std::vector<std::pair<uint32_t, float>> logit_bias;  // added to the logit; -inf forbids the token
};

class Sampler {
 public:
  // The settings must be in range; the command line checks them.
  explicit Sampler(SamplerSettings settings);
  // The next token. Changes logits [vocabulary]. NaN and +inf count as -inf; when no finite logit remains,
  // the result is id 0. Does not record the token as seen: call accept.
  uint32_t sample(std::span<float> logits);
  // The number of best logits that determine what sample returns; 0 when all logits do.
  size_t candidates_needed() const;
  // Returns what sample returns for a row whose candidates_needed() best finite logits are `best`, best
  // first; entries of -infinity are ignored. The row must have more logits than that.
  uint32_t sample_best(std::span<const TokenLogit> best);
  // Records a token of the reply as seen.
  void accept(uint32_t token);
  // Begins a new reply after these tokens. The generator's state does not change.
  void reset(std::span<const uint32_t> seen = {});
  // Replaces the settings. The generator's state does not change, whatever their seed.
  void configure(SamplerSettings settings) { settings_ = std::move(settings); }
  // Restarts the generator with this seed.
  void reseed(uint64_t seed);

 private:
  bool has_penalties() const;
  double draw();
  // Applies top_p, min_p and temperature to candidates_ and draws one with `uniform` in [0, 1).
  uint32_t choose(double uniform);

  SamplerSettings settings_;
  std::mt19937_64 generator_;
  std::vector<uint32_t> seen_;
  std::vector<std::pair<float, uint32_t>> candidates_;
};

}  // namespace tessera
