// How keys and values lie in device memory. Every layer has, for each page and KV head, one block: the codes
// of 64 keys, one row of head_dim codes for each token, then those of 64 values, then the rows' parameters as
// f16. Rows of 4-bit codes pack eight to a word: byte j holds elements j (low nibble) and j + 4. Rows of
// 8-bit codes are signed bytes, those of 16 bits f16.
#pragma once

#include "backends/cuda/views.h"
#include "engine/graph/batch.h"

namespace tessera::cuda {

inline constexpr uint32_t kPageTokens = static_cast<uint32_t>(kKvPageTokens);
inline constexpr uint32_t kLongestHead = 256;  // elements; a multiple of 8

// The kinds of parameters, in the order in which a block has them: 16 bits none, 8 bits the scales, 4 bits
// all.
enum class KvParameter : uint8_t { key_scale, value_scale, key_minimum, value_minimum };

struct KvLayer {
  Global<std::byte> base;
  uint32_t bits = 16;
  uint32_t head_dim = 0;
  uint32_t kv_heads = 0;

  TESSERA_BOTH size_t row_bytes() const { return size_t{head_dim} * bits / 8; }
  TESSERA_BOTH size_t parameter_bytes() const {
    const size_t kinds = bits == 16 ? 0 : (bits == 8 ? 2 : 4);
    return kinds * 2 * kPageTokens;
  }
  TESSERA_BOTH size_t block_bytes() const { return 2 * kPageTokens * row_bytes() + parameter_bytes(); }
  TESSERA_BOTH Global<std::byte> block(size_t page, uint32_t head) const {
    return base + (page * kv_heads + head) * block_bytes();
  }
  TESSERA_BOTH Global<std::byte> key(Global<std::byte> block, uint32_t slot) const {
    return block + slot * row_bytes();
  }
  TESSERA_BOTH Global<std::byte> value(Global<std::byte> block, uint32_t slot) const {
    return block + (kPageTokens + slot) * row_bytes();
  }
  // f16[64]
  TESSERA_BOTH Global<uint16_t> parameters(Global<std::byte> block, KvParameter kind) const {
    return block.as<uint16_t>(2 * kPageTokens * row_bytes() + static_cast<size_t>(kind) * 2 * kPageTokens);
  }
};

}  // namespace tessera::cuda
