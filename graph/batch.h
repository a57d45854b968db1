// The work of one run: several sequences, each with some new tokens at its own position. And what may come
// back of a row of logits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

namespace tessera {

inline constexpr size_t kKvPageTokens =
    64;  // tokens in one KV page (one page id serves every layer and head)

struct BatchSequence {
  size_t first_row = 0;             // its first token's index in Batch::tokens
  size_t token_count = 0;           // new tokens, consecutive in Batch::tokens; at least 1
  size_t position = 0;              // position of the first new token = tokens already in the cache
  std::span<const uint32_t> pages;  // page ids that hold positions 0 … position + token_count - 1
};

struct Batch {
  std::span<const uint32_t> tokens;
  std::span<const BatchSequence> sequences;  // cover tokens exactly, in order
  std::span<const uint32_t> output_rows;     // indices into tokens whose logits are wanted, ascending
  std::span<const float> input = {};         // [tokens, columns] of the graph's input op, where it has one
};

// A token of the vocabulary and its logit. The one before this in a ranking has a higher logit, or the same
// and a smaller token id.
struct TokenLogit {
  float logit = -std::numeric_limits<float>::infinity();
  uint32_t token = 0;
};

}  // namespace tessera
