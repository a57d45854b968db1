// Tiles of activations in shared memory as wgmma reads them: rows of 128 bytes of a token, swizzled. And a
// cursor over a ring of such tiles.
#pragma once

#include "backends/cuda/device/views.h"

namespace tessera::cuda {

inline constexpr uint32_t kSwizzledBytes = 128;  // of a token

// Byte offset in a tile of chunk `chunk`, 16 bytes, of a token's 128: the chunk's number exclusive-or the
// token's modulo 8, the 128-byte swizzle of wgmma. The rows of eight tokens that ldmatrix reads are in
// different banks too.
TESSERA_BOTH constexpr uint32_t swizzled_chunk(uint32_t token, uint32_t chunk) {
  return token * kSwizzledBytes + (chunk ^ token % 8) * 16;
}

// The descriptor of B for wgmma, by the PTX manual: a token's columns are contiguous, swizzled over 128 bytes
// (mode 1 in bits 62 and 63); eight tokens make an atom of 1024 bytes, the stride in bits 32-45; the leading
// offset is not used in this mode. Offsets are in units of 16 bytes, addresses without bits above 18.
constexpr uint64_t swizzled_descriptor(uint32_t shared_address) {
  return uint64_t{1} << 62 | uint64_t{1024 / 16} << 32 | uint64_t{1} << 16 | (shared_address & 0x3ffffu) >> 4;
}
// The descriptor `products` products further on in the columns, 32 bytes each.
constexpr uint64_t advanced(uint64_t descriptor, uint32_t products) {
  return descriptor + products * (32 / 16);
}

// A stage of the ring and the parity of its mbarrier's phase, 0 in the first round.
template <uint32_t kStages>
struct RingPlace {
  uint32_t stage = 0;
  uint32_t parity = 0;
  TESSERA_DEVICE void advance() {
    if (++stage < kStages) return;
    stage = 0;
    parity ^= 1;
  }
};

}  // namespace tessera::cuda
