#include <algorithm>
#include <cmath>

#include "backends/reference/kv_rounding.h"
#include "backends/reference/ops.h"

namespace tessera::reference {

namespace {

struct Slot {
  size_t page;
  size_t index;
};

// pages: of the sequence in this layer.
Slot slot_of(std::span<const uint32_t> pages, size_t position) {
  return {pages[position / kKvPageTokens], position % kKvPageTokens};
}

void append(const Attention& kind, const BatchSequence& sequence, KvStore& kv, const Rows& qkv) {
  const unsigned bits = kv.geometry().layer_bits(kind.layer);
  const std::span<const uint32_t> pages = sequence.pages_of(kv.geometry().layer_slides(kind.layer));
  for (size_t i = 0; i < sequence.token_count; ++i) {
    const std::span<const float> row = qkv.floats(sequence.first_row + i);
    const Slot slot = slot_of(pages, sequence.position + i);
    for (size_t head = 0; head < kind.kv_heads; ++head) {
      const size_t key = (kind.query_heads + head) * kind.head_dim;
      const size_t value = key + kind.kv_heads * kind.head_dim;
      kv.key_parameters(kind.layer, slot.page, head, slot.index) =
          round_kv(bits, row.subspan(key, kind.head_dim), kv.key(kind.layer, slot.page, head, slot.index));
      kv.value_parameters(kind.layer, slot.page, head, slot.index) = round_kv(
          bits, row.subspan(value, kind.head_dim), kv.value(kind.layer, slot.page, head, slot.index));
    }
  }
}

// step = max|x| / most; returns x / step rounded half to even, or zeros if all of x is zero.
std::vector<double> rounded_to_steps(std::span<const double> x, double most, double& step) {
  double largest = 0;
  for (const double value : x) largest = std::max(largest, std::abs(value));
  step = largest / most;
  std::vector<double> rounded(x.size(), 0.0);
  if (step == 0) return rounded;
  for (size_t i = 0; i < x.size(); ++i) rounded[i] = std::nearbyint(x[i] / step);
  return rounded;
}

// One query head of one token over positions 0 … position, or those of its window. With 4-bit pages the other
// factor of each product is rounded to 8 bits, so that products are of small integers: the query with one
// step for all of it, and the softmax weights times the values' scales with one step per page. Codes count
// from their middle, and what the middle contributes is added unrounded.
class HeadAttention {
 public:
  HeadAttention(const Attention& kind, const BatchSequence& sequence, KvStore& kv, size_t query_head)
      : kind_(kind),
        pages_(sequence.pages_of(kv.geometry().layer_slides(kind.layer))),
        kv_(kv),
        head_(query_head / (kind.query_heads / kind.kv_heads)),
        rounds_(kv.geometry().layer_bits(kind.layer) == 4),
        slope_(kind.alibi > 0 ? alibi_slope(kind, query_head) : 0.0) {}

  void attend(size_t position, std::span<const float> query, std::span<float> out) {
    const size_t begin = kind_.first_seen(position);
    std::vector<double> weights = scores(begin, position, query);
    const double largest = *std::max_element(weights.begin(), weights.end());
    double total = 0;
    for (double& weight : weights) {
      weight = std::exp(weight - largest);
      total += weight;
    }
    std::vector<double> sum(out.size(), 0.0);
    for (size_t first = begin; first <= position;) {
      const size_t end = std::min((first / kKvPageTokens + 1) * kKvPageTokens, position + 1);
      add_page(first, std::span(weights).subspan(first - begin, end - first), sum);
      first = end;
    }
    for (size_t i = 0; i < sum.size(); ++i) out[i] = static_cast<float>(sum[i] / total);
  }

 private:
  // Of positions begin … position.
  std::vector<double> scores(size_t begin, size_t position, std::span<const float> query) {
    std::vector<double> exact(query.begin(), query.end());
    double step = 0;
    std::vector<double> rounded = rounds_ ? rounded_to_steps(exact, 127, step) : exact;
    if (rounds_) {
      for (double& value : rounded) value *= step;
    }
    const double scale = double{kind_.scale} * double{log_scale(kind_, position)};
    std::vector<double> scores(position + 1 - begin);
    for (size_t p = begin; p <= position; ++p) {
      const Slot slot = slot_of(pages_, p);
      const std::span<const double> key = kv_.key(kind_.layer, slot.page, head_, slot.index);
      const double middle = kv_.key_parameters(kind_.layer, slot.page, head_, slot.index).middle;
      double dot = 0;
      for (size_t i = 0; i < query.size(); ++i) dot += rounded[i] * (key[i] - middle) + exact[i] * middle;
      double& score = scores[p - begin];
      score = scale * dot - slope_ * static_cast<double>(position - p);
      const double cap = kind_.soft_cap;
      if (cap > 0) score = cap * std::tanh(score / cap);
    }
    return scores;
  }

  void add_page(size_t first, std::span<const double> weights, std::span<double> sum) {
    std::vector<double> scaled(weights.size());
    for (size_t t = 0; t < weights.size(); ++t) scaled[t] = weights[t] * parameters(first + t).scale;
    double step = 0;
    const std::vector<double> rounded = rounded_to_steps(scaled, 255, step);
    for (size_t t = 0; t < weights.size(); ++t) {
      const Slot slot = slot_of(pages_, first + t);
      const std::span<const double> value = kv_.value(kind_.layer, slot.page, head_, slot.index);
      const KvParameters stored = parameters(first + t);
      const double weight = rounds_ && stored.scale > 0 ? rounded[t] * step / stored.scale : weights[t];
      for (size_t i = 0; i < sum.size(); ++i)
        sum[i] += weight * (value[i] - stored.middle) + weights[t] * stored.middle;
    }
  }

  KvParameters parameters(size_t position) {
    const Slot slot = slot_of(pages_, position);
    return kv_.value_parameters(kind_.layer, slot.page, head_, slot.index);
  }

  const Attention& kind_;
  std::span<const uint32_t> pages_;
  KvStore& kv_;
  size_t head_;
  bool rounds_;
  double slope_;
};

}  // namespace

void run_attention(const Attention& kind, std::span<const BatchSequence> sequences, KvStore& kv,
                   const Rows& qkv, const Rows& y) {
  for (const BatchSequence& sequence : sequences) append(kind, sequence, kv, qkv);
  for (const BatchSequence& sequence : sequences) {
    for (size_t i = 0; i < sequence.token_count; ++i) {
      const size_t row = sequence.first_row + i;
      for (size_t head = 0; head < kind.query_heads; ++head) {
        HeadAttention(kind, sequence, kv, head)
            .attend(sequence.position + i, qkv.floats(row).subspan(head * kind.head_dim, kind.head_dim),
                    y.floats(row).subspan(head * kind.head_dim, kind.head_dim));
      }
    }
  }
}

}  // namespace tessera::reference
