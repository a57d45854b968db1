// Tiles of activations in shared memory as wgmma reads them, and the places of a ring of them: 128 bytes of a
// token side by side, swizzled.
#pragma once

#include "backends/cuda/device/views.h"

namespace tessera::cuda {

inline constexpr uint32_t kSwizzledBytes = 128;  // of a token

// Where 16 bytes of a token's 128 lie in a tile: exclusive-or with the token's number modulo 8, which is how
// wgmma wants rows of 128 bytes swizzled; ldmatrix then finds eight tokens in different banks, too.
TESSERA_BOTH constexpr uint32_t swizzled_chunk(uint32_t token, uint32_t chunk) {
  return token * kSwizzledBytes + (chunk ^ token % 8) * 16;
}

// The descriptor of B for wgmma: columns side by side, swizzled over 128 bytes (mode 1 in bits 62 and 63);
// eight tokens make an atom of 1024 bytes, the stride in bits 32-45; the leading offset means nothing then.
// All in units of 16 bytes, without the address's bits above 18.
constexpr uint64_t swizzled_descriptor(uint32_t shared_address) {
  return uint64_t{1} << 62 | uint64_t{1024 / 16} << 32 | uint64_t{1} << 16 | (shared_address & 0x3ffffu) >> 4;
}
// The same so many products further on, of 32 bytes of columns each.
constexpr uint64_t advanced(uint64_t descriptor, uint32_t products) {
  return descriptor + products * (32 / 16);
}

// A place in the ring: the first time around parity is 0.
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
