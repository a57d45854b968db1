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

Slot slot_of(const BatchSequence& sequence, size_t position) {
  return {sequence.pages[position / kKvPageTokens], position % kKvPageTokens};
}

void append(const Attention& kind, const BatchSequence& sequence, KvStore& kv, const Rows& qkv) {
  const unsigned bits = kv.geometry().layer_bits(kind.layer);
  for (size_t i = 0; i < sequence.token_count; ++i) {
    const std::span<const float> row = qkv.floats(sequence.first_row + i);
    const Slot slot = slot_of(sequence, sequence.position + i);
    for (size_t head = 0; head < kind.kv_heads; ++head) {
      const size_t key = (kind.query_heads + head) * kind.head_dim;
      const size_t value = key + kind.kv_heads * kind.head_dim;
      round_kv(bits, row.subspan(key, kind.head_dim), kv.key(kind.layer, slot.page, head, slot.index));
      round_kv(bits, row.subspan(value, kind.head_dim), kv.value(kind.layer, slot.page, head, slot.index));
    }
  }
}

// One query head of one token over positions 0 … position.
void attend(const Attention& kind, const BatchSequence& sequence, KvStore& kv, size_t position,
            size_t kv_head, std::span<const float> query, std::span<float> out) {
  std::vector<double> scores(position + 1);
  for (size_t p = 0; p <= position; ++p) {
    const Slot slot = slot_of(sequence, p);
    const std::span<const double> key = kv.key(kind.layer, slot.page, kv_head, slot.index);
    double dot = 0;
    for (size_t i = 0; i < query.size(); ++i) dot += double{query[i]} * key[i];
    scores[p] = double{kind.scale} * dot;
  }
  const double largest = *std::max_element(scores.begin(), scores.end());
  double total = 0;
  for (double& score : scores) {
    score = std::exp(score - largest);
    total += score;
  }
  std::vector<double> sum(out.size(), 0.0);
  for (size_t p = 0; p <= position; ++p) {
    const Slot slot = slot_of(sequence, p);
    const std::span<const double> value = kv.value(kind.layer, slot.page, kv_head, slot.index);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += scores[p] * value[i];
  }
  for (size_t i = 0; i < sum.size(); ++i) out[i] = static_cast<float>(sum[i] / total);
}

}  // namespace

void run_attention(const Attention& kind, std::span<const BatchSequence> sequences, KvStore& kv,
                   const Rows& qkv, const Rows& y) {
  const size_t queries_per_kv_head = kind.query_heads / kind.kv_heads;
  for (const BatchSequence& sequence : sequences) append(kind, sequence, kv, qkv);
  for (const BatchSequence& sequence : sequences) {
    for (size_t i = 0; i < sequence.token_count; ++i) {
      const size_t row = sequence.first_row + i;
      for (size_t head = 0; head < kind.query_heads; ++head) {
        attend(kind, sequence, kv, sequence.position + i, head / queries_per_kv_head,
               qkv.floats(row).subspan(head * kind.head_dim, kind.head_dim),
               y.floats(row).subspan(head * kind.head_dim, kind.head_dim));
      }
    }
  }
}

}  // namespace tessera::reference
