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
  // settings must be in range: the command line checks them.
  explicit Sampler(SamplerSettings settings);
  // logits [vocabulary] is used as scratch. Non-finite logits other than -inf are treated as -inf; when
  // nothing is left the result is the smallest id. The token is not recorded as seen: call accept.
  uint32_t sample(std::span<float> logits);
  // How many of the best logits decide what sample returns; 0 when it has to see all of them.
  size_t candidates_needed() const;
  // What sample returns for a row of which best holds the candidates_needed() best finite logits, best first;
  // entries of -infinity are none. Only for rows of more logits than that.
  uint32_t sample_best(std::span<const TokenLogit> best);
  void accept(uint32_t token);                      // a token of the reply
  void reset(std::span<const uint32_t> seen = {});  // a new reply after these tokens; the generator goes on
  // Settings from now on; the generator goes on as it is, whatever their seed.
  void configure(SamplerSettings settings) { settings_ = std::move(settings); }
  void reseed(uint64_t seed);

 private:
  bool has_penalties() const;
  double draw();
  uint32_t choose(double uniform);  // from candidates_

  SamplerSettings settings_;
  std::mt19937_64 generator_;
  std::vector<uint32_t> seen_;
  std::vector<std::pair<float, uint32_t>> candidates_;
};

}  // namespace tessera
