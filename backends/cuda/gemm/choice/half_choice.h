// Which kernel multiplies with 16-bit weights, by the numbers of tokens and rows and by what the device has.
// All kernels give a token the same bits.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tessera::cuda::halves {

enum class HalfKernel : uint8_t {
  // sm80_half_few_tokens.h: up to 8 or 16 tokens; large: with up to 227 KiB of shared memory.
  few8,
  few16,
  few8_large,
  few16_large,
  // sm80_half_tiles.h: rows by tokens.
  tiles128x128,
  tiles128x64,
  tiles64x64,
};

struct HalfChoices {
  size_t processors = 1;
  size_t shared_bytes = 0;  // that a block may have
};

constexpr size_t tile_count(uint32_t rows, uint32_t tokens, uint32_t tile_rows, uint32_t tile_tokens) {
  return size_t{(rows + tile_rows - 1) / tile_rows} * ((tokens + tile_tokens - 1) / tile_tokens);
}

// With more than 16 tokens, the largest tiles of which every processor gets at least one.
inline HalfKernel choose_half_kernel(const HalfChoices& device, uint32_t rows, uint32_t tokens) {
  const bool large = device.shared_bytes >= size_t{227} << 10;
  if (tokens <= 8) return large ? HalfKernel::few8_large : HalfKernel::few8;
  if (tokens <= 16) return large ? HalfKernel::few16_large : HalfKernel::few16;
  if (tokens > 64 && tile_count(rows, tokens, 128, 128) >= device.processors) return HalfKernel::tiles128x128;
  return tile_count(rows, tokens, 128, 64) >= device.processors ? HalfKernel::tiles128x64
                                                                : HalfKernel::tiles64x64;
}

}  // namespace tessera::cuda::halves
