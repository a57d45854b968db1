// How a context is divided into chunks. Attention is computed for each chunk separately and the results are
// blended in order, so that a token's result is the same whether one block processes all chunks or each has
// its own block. The division depends only on the position in the context.
#pragma once

#include "backends/cuda/layout/kv_layout.h"

namespace tessera::cuda {

// Sizes in pages: short chunks first, so that short contexts give several blocks, then long ones, so that
// fewer results have to be blended.
struct Chunking {
  uint32_t short_pages = 4;
  uint32_t short_chunks = 16;
  uint32_t long_pages = 8;

  TESSERA_BOTH uint32_t first_page(uint32_t chunk) const {
    if (chunk <= short_chunks) return chunk * short_pages;
    return short_chunks * short_pages + (chunk - short_chunks) * long_pages;
  }
  TESSERA_BOTH uint32_t of_page(uint32_t page) const {
    const uint32_t short_end = short_chunks * short_pages;
    return page < short_end ? page / short_pages : short_chunks + (page - short_end) / long_pages;
  }
  // Number of chunks of a context of `tokens` tokens, at least one.
  TESSERA_BOTH uint32_t count(uint32_t tokens) const { return of_page((tokens - 1) / kPageTokens) + 1; }
};

// The first key that a token at this position sees; window 0: all up to its own.
TESSERA_BOTH inline uint32_t first_seen_key(uint32_t position, uint32_t window) {
  return window != 0 && position >= window ? position + 1 - window : 0;
}

}  // namespace tessera::cuda
