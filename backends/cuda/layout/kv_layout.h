// How keys and values lie in device memory: as the operands of the tensor cores. Every layer has, for each
// page and KV head, one block: a key part, then a value part; a part is the codes of 64 tokens, then their
// parameters as f16. Codes come in units of 512 bytes, of which lane l of a warp takes the 16 at 16 l.
//
// Keys: lane 4 g + p holds channels 32 s + 8 p … 8 p + 7 (s counts steps of 32) of the tokens 8 t + g, where
// t counts tiles of eight tokens: four tiles in a unit with 4 bits, two with 8, one with 16. A token's last
// step is filled up with zeros. Eight 4-bit codes are a word whose byte j holds channels j (low nibble) and j
// + 4.
//
// Values: lane 4 g + p holds element 8 n + g of the tokens 8 t + 2 p and 8 t + 2 p + 1 for all t, in order:
// the order in which scores leave the tensor cores. With 8 bits a unit is one n, with 16 bits half of one (t
// = 0 … 3, then 4 … 7), with 4 bits two: an even n in the low nibbles, the next in the high ones.
#pragma once

#include "backends/cuda/device/views.h"
#include "graph/batch.h"

namespace tessera::cuda {

inline constexpr uint32_t kPageTokens = static_cast<uint32_t>(kKvPageTokens);
inline constexpr uint32_t kLongestHead = 256;  // elements; a multiple of 8

namespace kv {

inline constexpr uint32_t kUnitBytes = 512;
inline constexpr uint32_t kStepChannels = 32;
inline constexpr uint32_t kParameterBytes = 2 * kPageTokens;  // of one kind

constexpr uint32_t key_steps(uint32_t head_dim) { return (head_dim + kStepChannels - 1) / kStepChannels; }

// Each part has the same number of kinds: 16 bits none, 8 bits scales, 4 bits scales and minima.
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

// The first of the `bits` bytes of a token's channels 8 octet … 8 octet + 7, from the key part's start.
constexpr uint32_t key_byte(uint32_t bits, uint32_t steps, uint32_t token, uint32_t octet) {
  const uint32_t tile = token / 8;
  const uint32_t tiles = 16 / bits;  // in a unit
  const uint32_t unit = (tile / 4 * steps + octet / 4) * (bits / 4) + tile % 4 / tiles;
  return unit * kUnitBytes + 16 * (4 * (token % 8) + octet % 4) + tile % tiles * bits;
}

// The byte of a token's element, from the value part's start; 4 bits: its nibble is high for odd element / 8.
constexpr uint32_t value_byte(uint32_t bits, uint32_t token, uint32_t element) {
  const uint32_t tile = token / 8;
  const uint32_t n = element / 8;
  const uint32_t lane = 4 * (element % 8) + token % 8 / 2;
  if (bits == 16) return (2 * n + tile / 4) * kUnitBytes + 16 * lane + 4 * (tile % 4) + 2 * (token % 2);
  return (bits == 4 ? n / 2 : n) * kUnitBytes + 16 * lane + 2 * tile + token % 2;
}

// Where a token's parameter lies among the 64 of its kind: what a lane needs is 32 bytes in a row.
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
