// How a context is cut into chunks. Each is attended over by itself and the results are blended in order, so
// that a token's result is the same whether one block walks over all chunks or many blocks take one each. The
// cuts depend on nothing but the position in the context.
#pragma once

#include "backends/cuda/layout/kv_layout.h"

namespace tessera::cuda {

// In pages: short chunks first, so that few tokens are many blocks, then long ones, so that little is
// blended.
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
  // Chunks of a context of so many tokens, at least one.
  TESSERA_BOTH uint32_t count(uint32_t tokens) const { return of_page((tokens - 1) / kPageTokens) + 1; }
};

}  // namespace tessera::cuda
