// How well next-token logits predict a text, and how far a model's are from a reference model's, token by
// token. All sums are float64 and in the order of the tokens, so results do not depend on the thread count.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "engine/measure/sample_statistics.h"

namespace tessera {

// What log-softmax needs of one row of logits: log p(i) = logits[i] - normalizer.
struct LogitRow {
  double normalizer = 0;  // log of the sum of exp(logit); not finite when a logit is not
  uint32_t top = 0;       // the likeliest token, the smallest id in a tie
};
LogitRow read_logits(std::span<const float> logits);

// D(reference || model) = sum over i of p(i) (log p(i) - log q(i)) in nats, p being the reference's
// probabilities. Exactly 0 for equal rows and never negative. probabilities are those that
// softmax(reference, row) wrote; all rows have the same length.
double kl_divergence(std::span<const double> probabilities, std::span<const float> reference,
                     const LogitRow& reference_row, std::span<const float> model, const LogitRow& model_row);

// exp(logits[i] - row.normalizer) into out, which is as long.
void softmax(std::span<const float> logits, const LogitRow& row, std::span<double> out);

// One scored token of a model beside a reference.
struct TokenDivergence {
  double kl = 0;          // nats
  double more_nats = 0;   // the model's -log p of the text's token minus the reference's
  bool same_top = false;  // whether the same token is the likeliest of both
};

// How far a model is from a reference over all scored tokens. Keeps 4 bytes a token for the quantiles.
class Divergence {
 public:
  void add(const TokenDivergence& token);
  size_t count() const { return kl_.count(); }
  const SampleMean& kl() const { return kl_; }
  double most_kl() const { return most_kl_; }
  // Value below which `share` (0 to 1) of the tokens lie, linear between the two nearest tokens.
  double kl_quantile(double share) const;
  double agreement() const;        // share of tokens with the same top choice, 0 to 1
  double agreement_error() const;  // standard error
  // Perplexity over the reference's, and its standard error from the paired differences.
  double ratio() const;
  double ratio_error() const;

 private:
  SampleMean kl_;
  SampleMean more_nats_;
  size_t same_top_ = 0;
  double most_kl_ = 0;
  std::vector<float> each_;
};

// What was measured of one model over all windows.
struct ModelQuality {
  SampleMean nats;                       // -log p of the scored tokens
  std::optional<Divergence> divergence;  // where there is a reference

  double perplexity() const;
  double perplexity_error() const;  // the standard error of nats carried through exp
};

}  // namespace tessera
