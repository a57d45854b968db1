#include "engine/sampling/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace tessera {

// The order of the chain, which decides what the controls mean together:
//   1. logit biases are added;
//   2. tokens of the window are penalised: first repeat_penalty, then presence and frequency;
//   3. top_k keeps the k best tokens;
//   4. top_p keeps the smallest set of best tokens whose probabilities, among those that top_k kept, sum to
//   at least p;
//   5. min_p keeps tokens at least min_p times as probable as the best one;
//   6. temperature divides the logits of the remaining tokens, and one of them is drawn from their softmax.
// Steps 4 and 5 look at probabilities before the temperature, so a high temperature mixes the kept tokens but
// never adds others. Equal logits rank by id, the smaller first. Every draw uses exactly one number of the
// generator, so that settings which only remove unlikely tokens do not change later draws.

namespace {

using Candidate = std::pair<float, uint32_t>;  // logit (later weight) and token id

bool ranks_before(const Candidate& a, const Candidate& b) {
  return a.first > b.first || (a.first == b.first && a.second < b.second);
}

// Sets candidates to all finite logits in order of id, or to the k best of them, best first. k = 0: all.
void collect(std::span<const float> logits, size_t k, std::vector<Candidate>& candidates) {
  candidates.clear();
  const bool limited = k > 0 && k < logits.size();
  if (limited) candidates.reserve(k);
  for (size_t id = 0; id < logits.size(); ++id) {
    const float logit = logits[id];
    if (!std::isfinite(logit)) continue;
    const Candidate candidate{logit, static_cast<uint32_t>(id)};
    if (!limited) {
      candidates.push_back(candidate);
    } else if (candidates.size() < k) {
      // A heap whose first element is the worst candidate kept so far.
      candidates.push_back(candidate);
      std::push_heap(candidates.begin(), candidates.end(), ranks_before);
    } else if (ranks_before(candidate, candidates.front())) {
      std::pop_heap(candidates.begin(), candidates.end(), ranks_before);
      candidates.back() = candidate;
      std::push_heap(candidates.begin(), candidates.end(), ranks_before);
    }
  }
  // Sorted, so that the result does not depend on the standard library's arrangement of a heap.
  if (limited) std::sort_heap(candidates.begin(), candidates.end(), ranks_before);
}

// Keeps the fewest best candidates whose weights exp(logit - best) sum to at least `wanted`. Sorts little
// more than it keeps: it selects blocks of growing size from the rest.
void keep_top_p(std::vector<Candidate>& candidates, float best, double wanted) {
  double reached = 0.0;
  size_t sorted = 0;
  size_t block = 64;
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (i == sorted) {
      const auto begin = candidates.begin() + static_cast<std::ptrdiff_t>(sorted);
      sorted = std::min(candidates.size(), sorted + block);
      const auto end = candidates.begin() + static_cast<std::ptrdiff_t>(sorted);
      if (end != candidates.end()) std::nth_element(begin, end, candidates.end(), ranks_before);
      std::sort(begin, end, ranks_before);
      block *= 8;
    }
    reached += std::exp(static_cast<double>(candidates[i].first) - best);
    if (reached >= wanted) {
      candidates.resize(i + 1);
      return;
    }
  }
}

uint32_t best_token(std::span<const float> logits) {
  uint32_t best = 0;
  float highest = -std::numeric_limits<float>::infinity();
  for (size_t id = 0; id < logits.size(); ++id) {
    if (std::isfinite(logits[id]) && logits[id] > highest) {
      highest = logits[id];
      best = static_cast<uint32_t>(id);
    }
  }
  return best;
}

void penalise(std::span<float> logits, std::span<const uint32_t> window, const SamplerSettings& settings) {
  std::vector<uint32_t> tokens(window.begin(), window.end());
  std::sort(tokens.begin(), tokens.end());
  for (size_t i = 0; i < tokens.size();) {
    const uint32_t token = tokens[i];
    const size_t first = i;
    while (i < tokens.size() && tokens[i] == token) ++i;
    if (token >= logits.size()) continue;
    float& logit = logits[token];
    logit = logit > 0.0f ? logit / settings.repeat_penalty : logit * settings.repeat_penalty;
    logit -= settings.presence_penalty + settings.frequency_penalty * static_cast<float>(i - first);
  }
}

}  // namespace

Sampler::Sampler(SamplerSettings settings) : settings_(std::move(settings)), generator_(settings_.seed) {}

bool Sampler::has_penalties() const {
  return settings_.repeat_penalty != 1.0f || settings_.presence_penalty != 0.0f ||
         settings_.frequency_penalty != 0.0f;
}

// A number in [0, 1) of 53 random bits. The distributions of the standard library differ between its
// implementations.
double Sampler::draw() { return static_cast<double>(generator_() >> 11) * 0x1p-53; }

size_t Sampler::candidates_needed() const {
  if (!settings_.logit_bias.empty() || (has_penalties() && settings_.penalty_window > 0)) return 0;
  return settings_.temperature <= 0.0f ? 1 : settings_.top_k;
}

uint32_t Sampler::sample_best(std::span<const TokenLogit> best) {
  candidates_.clear();
  for (const TokenLogit& candidate : best) {
    if (std::isfinite(candidate.logit)) candidates_.emplace_back(candidate.logit, candidate.token);
  }
  if (settings_.temperature <= 0.0f) return candidates_.empty() ? 0 : candidates_.front().second;
  return choose(draw());
}

uint32_t Sampler::sample(std::span<float> logits) {
  for (const auto& [token, bias] : settings_.logit_bias) {
    if (token < logits.size()) logits[token] += bias;
  }
  const size_t window = std::min(seen_.size(), settings_.penalty_window);
  if (has_penalties() && window > 0) penalise(logits, std::span(seen_).last(window), settings_);

  if (settings_.temperature <= 0.0f) return best_token(logits);

  const double uniform = draw();
  collect(logits, settings_.top_k, candidates_);
  return choose(uniform);
}

uint32_t Sampler::choose(double uniform) {
  if (candidates_.empty()) return 0;
  const float best = std::min_element(candidates_.begin(), candidates_.end(), ranks_before)->first;

  // Both top_p and min_p keep the first candidates of the ranking, so min_p, which takes less time, can be
  // applied first; the total must include all candidates.
  const bool cut_top_p = settings_.top_p < 1.0f;
  double total = 0.0;
  if (cut_top_p) {
    for (const Candidate& candidate : candidates_)
      total += std::exp(static_cast<double>(candidate.first) - best);
  }
  if (settings_.min_p > 0.0f) {
    const double lowest = best + std::log(std::min(1.0, static_cast<double>(settings_.min_p)));
    std::erase_if(candidates_, [lowest](const Candidate& candidate) { return candidate.first < lowest; });
  }
  if (cut_top_p) keep_top_p(candidates_, best, total * std::max(0.0, static_cast<double>(settings_.top_p)));

  total = 0.0;
  for (Candidate& candidate : candidates_) {
    const double scaled = (static_cast<double>(candidate.first) - best) / settings_.temperature;
    candidate.first = static_cast<float>(std::exp(scaled));
    total += candidate.first;
  }
  const double drawn = uniform * total;
  double reached = 0.0;
  uint32_t last = candidates_.front().second;
  for (const Candidate& candidate : candidates_) {
    if (candidate.first <= 0.0f) continue;
    reached += candidate.first;
    last = candidate.second;
    if (drawn < reached) break;
  }
  return last;
}

void Sampler::accept(uint32_t token) {
  if (settings_.penalty_window == 0) return;
  seen_.push_back(token);
  // Removing the older half from time to time takes less time than moving all tokens for each new one.
  if (seen_.size() / 2 >= settings_.penalty_window) {
    seen_.erase(seen_.begin(), seen_.end() - static_cast<std::ptrdiff_t>(settings_.penalty_window));
  }
}

void Sampler::reset(std::span<const uint32_t> seen) {
  const std::span<const uint32_t> kept = seen.last(std::min(seen.size(), settings_.penalty_window));
  seen_.assign(kept.begin(), kept.end());
}

void Sampler::reseed(uint64_t seed) {
  settings_.seed = seed;
  generator_.seed(seed);
}

}  // namespace tessera
