// Layout of keys and values in device memory, in the order of operands of the tensor cores. Every layer has
// one block for each page and KV head: a key part, then a value part. Each part is the codes of 64 tokens,
// then their parameters as f16. Codes are stored in units of 512 bytes, of which lane l of a warp reads the
// 16 bytes at 16 l.
//
// Keys: lane 4 g + p holds channels 32 s + 8 p … 8 p + 7 (s counts steps of 32) of the tokens 8 t + g, where
// t counts tiles of eight tokens: four tiles in a unit with 4 bits, two with 8, one with 16. A token's last
// step is padded with zeros. Eight 4-bit codes are a word whose byte j holds channels j (low nibble) and j +
// 4.
//
// Values: lane 4 g + p holds element 8 n + g of the tokens 8 t + 2 p and 8 t + 2 p + 1 for all t, in order:
// the order of the scores in the result registers of mma. A unit holds one n with 8 bits, half of one with 16
// bits (t = 0 … 3, then 4 … 7) and two with 4 bits: an even n in the low nibbles, the next in the high ones.
#pragma once

#include "backends/cuda/device/views.h"
#include "graph/batch.h"

namespace tessera::cuda {

inline constexpr uint32_t kPageTokens = static_cast<uint32_t>(kKvPageTokens);
inline constexpr uint32_t kLongestHead = 256;  // elements; a multiple of 8

namespace kv {

inline constexpr uint32_t kUnitBytes = 512;
inline constexpr uint32_t kStepChannels = 32;
inline constexpr uint32_t kParameterBytes = 2 * kPageTokens;  // of one kind of parameter

constexpr uint32_t key_steps(uint32_t head_dim) { return (head_dim + kStepChannels - 1) / kStepChannels; }

// Kinds of parameters of a part: none with 16 bits, scales with 8, scales and minima with 4.
constexpr uint32_t parameter_kinds(uint32_t bits) { return bits == 16 ? 0 : (bits == 8 ? 1 : 2); }
constexpr uint32_t key_code_bytes(uint32_t bits, uint32_t head_dim) {
  return 2 * key_steps(head_dim) * (bits / 4) * kUnitBytes;
}
constexpr uint32_t value_code_bytes(uint32_t bits, uint32_t head_dim) {
  const uint32_t tiles = head_dim / 8;
  return (bits == 4 ? (tiles + 1) / 2 : tiles * (bits / 8)) * kUnitBytes;
}
constexpr uint32_t key_bytes(uint32_t bits, uint32_t head_dim) {
  return key_code_bytes(bits, head_dim) + parameter_kinds(bits) * kParameterBytes;
}
constexpr uint32_t value_bytes(uint32_t bits, uint32_t head_dim) {
  return value_code_bytes(bits, head_dim) + parameter_kinds(bits) * kParameterBytes;
}

// Byte offset in the key part of a token's channels 8 octet … 8 octet + 7, which take `bits` bytes.
constexpr uint32_t key_byte(uint32_t bits, uint32_t steps, uint32_t token, uint32_t octet) {
  const uint32_t tile = token / 8;
  const uint32_t tiles = 16 / bits;  // in a unit
  const uint32_t unit = (tile / 4 * steps + octet / 4) * (bits / 4) + tile % 4 / tiles;
  return unit * kUnitBytes + 16 * (4 * (token % 8) + octet % 4) + tile % tiles * bits;
}

// Byte offset in the value part of a token's element. With 4 bits it is the high nibble for odd element / 8.
constexpr uint32_t value_byte(uint32_t bits, uint32_t token, uint32_t element) {
  const uint32_t tile = token / 8;
  const uint32_t n = element / 8;
  const uint32_t lane = 4 * (element % 8) + token % 8 / 2;
  if (bits == 16) return (2 * n + tile / 4) * kUnitBytes + 16 * lane + 4 * (tile % 4) + 2 * (token % 2);
  return (bits == 4 ? n / 2 : n) * kUnitBytes + 16 * lane + 2 * tile + token % 2;
}

// Index of a token's parameter among the 64 of its kind: those that a lane needs are 32 contiguous bytes.
constexpr uint32_t parameter_place(uint32_t token) {
  return 16 * (token % 8 / 2) + 2 * (token / 8) + token % 2;
}

}  // namespace kv

struct KvLayer {
  Global<std::byte> base;
  uint32_t bits = 16;
  uint32_t head_dim = 0;
  uint32_t kv_heads = 0;

  TESSERA_BOTH size_t block_bytes() const {
    return size_t{kv::key_bytes(bits, head_dim)} + kv::value_bytes(bits, head_dim);
  }
  TESSERA_BOTH Global<std::byte> keys(size_t page, uint32_t head) const {
    return base + (page * kv_heads + head) * block_bytes();
  }
  TESSERA_BOTH Global<std::byte> values(size_t page, uint32_t head) const {
    return keys(page, head) + kv::key_bytes(bits, head_dim);
  }
};

}  // namespace tessera::cuda
