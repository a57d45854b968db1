#include "engine/measure/logit_comparison.h"

#include <algorithm>
#include <cmath>

namespace tessera {

LogitRow read_logits(std::span<const float> logits) {
  LogitRow row;
  for (size_t i = 1; i < logits.size(); ++i) {
    if (logits[i] > logits[row.top]) row.top = static_cast<uint32_t>(i);
  }
  // A NaN never compares as the largest; the sum below carries it into the normalizer all the same.
  const double most = static_cast<double>(logits[row.top]);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - most);
  row.normalizer = most + std::log(sum);
  return row;
}

void softmax(std::span<const float> logits, const LogitRow& row, std::span<double> out) {
  for (size_t i = 0; i < logits.size(); ++i) {
    out[i] = std::exp(static_cast<double>(logits[i]) - row.normalizer);
  }
}

double kl_divergence(std::span<const double> probabilities, std::span<const float> reference,
                     const LogitRow& reference_row, std::span<const float> model, const LogitRow& model_row) {
  double sum = 0;
  for (size_t i = 0; i < reference.size(); ++i) {
    const double log_p = static_cast<double>(reference[i]) - reference_row.normalizer;
    const double log_q = static_cast<double>(model[i]) - model_row.normalizer;
    sum += probabilities[i] * (log_p - log_q);
  }
  return std::max(sum, 0.0);  // rounding can leave -1e-17 where the rows are all but equal
}

void Divergence::add(const TokenDivergence& token) {
  kl_.add(token.kl);
  more_nats_.add(token.more_nats);
  if (token.same_top) ++same_top_;
  most_kl_ = std::max(most_kl_, token.kl);
  each_.push_back(static_cast<float>(token.kl));
}

double Divergence::kl_quantile(double share) const {
  if (each_.empty()) return 0;
  const double at = share * static_cast<double>(each_.size() - 1);
  const auto below = static_cast<size_t>(at);
  std::vector<float> order = each_;
  const auto middle = order.begin() + static_cast<std::ptrdiff_t>(below);
  std::nth_element(order.begin(), middle, order.end());
  const auto low = static_cast<double>(*middle);
  if (below + 1 == order.size()) return low;
  const auto high = static_cast<double>(*std::min_element(middle + 1, order.end()));
  return low + (at - static_cast<double>(below)) * (high - low);
}

double Divergence::agreement() const {
  return count() == 0 ? 0 : static_cast<double>(same_top_) / static_cast<double>(count());
}

double Divergence::agreement_error() const {
  return count() == 0 ? 0 : std::sqrt(agreement() * (1 - agreement()) / static_cast<double>(count()));
}

double Divergence::ratio() const { return std::exp(more_nats_.mean()); }
double Divergence::ratio_error() const { return ratio() * more_nats_.standard_error(); }

double ModelQuality::perplexity() const { return std::exp(nats.mean()); }
double ModelQuality::perplexity_error() const { return perplexity() * nats.standard_error(); }

}  // namespace tessera
