// The work of one run, several sequences with new tokens, and what a ranking of its logits holds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

namespace tessera {

// Tokens in one KV page. A page has room for every layer and head.
inline constexpr size_t kKvPageTokens = 64;

// The new tokens of one sequence. Positions are below 2^32.
struct BatchSequence {
  size_t first_row = 0;             // its first token's index in Batch::tokens
  size_t token_count = 0;           // new tokens, consecutive in Batch::tokens; at least 1
  size_t position = 0;              // position of the first new token = tokens already in the cache
  std::span<const uint32_t> pages;  // page ids that hold positions 0 … position + token_count - 1
  // The same for layers that have pages of their own because of a window; empty where there are none. Pages
  // of positions that no new token sees may hold other positions by now.
  std::span<const uint32_t> window_pages = {};

  std::span<const uint32_t> pages_of(bool window) const { return window ? window_pages : pages; }
};

struct Batch {
  std::span<const uint32_t> tokens;
  std::span<const BatchSequence> sequences;  // cover tokens exactly, in order
  std::span<const uint32_t> output_rows;  // ascending indices into tokens: rows of which logits are computed
  std::span<const float> input = {};      // [tokens, input_columns(graph)]
};

// A token of the vocabulary and its logit. Rankings go by descending logit, and by ascending token id among
// equal logits.
struct TokenLogit {
  float logit = -std::numeric_limits<float>::infinity();
  uint32_t token = 0;
};

}  // namespace tessera
