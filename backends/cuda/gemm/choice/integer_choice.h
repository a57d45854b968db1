// Which kernel makes an integer product, by the numbers of tokens and rows and by what the device has. All
// sums are exact, so the choice does not show in the results.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tessera::cuda {

enum class IntegerKernel : uint8_t {
  // sm80_int8_few_tokens.h: up to 8 or 16 tokens, with 16-byte copies or with bulk copies.
  few8,
  few16,
  few8_bulk,
  few16_bulk,
  // sm80_int8_tiles.h: 128 rows by 64 or 128 tokens.
  sm80_tiles64,
  sm80_tiles128,
  // sm90_int8_tiles.h: 128 rows by 64, 128 or 256 tokens.
  sm90_tiles64,
  sm90_tiles128,
  sm90_tiles256,
};

struct IntegerChoices {
  size_t processors = 1;
  size_t shared_bytes = 0;  // that a block may have
  bool bulk_copies = false;
  bool warpgroups = false;
};

inline constexpr uint32_t kIntegerTilePanels = 8;  // panels of 16 rows in a tile of any kernel

// Tiles of 256 tokens move the fewest bytes but are never cut: they pay where every processor gets at least
// two of them and at most half of the last tile's tokens are missing.
inline bool takes_largest_tiles(const IntegerChoices& device, uint32_t panels, uint32_t tokens) {
  const size_t tiles =
      size_t{(panels + kIntegerTilePanels - 1) / kIntegerTilePanels} * ((tokens + 255) / 256);
  return tiles >= 2 * device.processors && (tokens + 127) / 128 % 2 == 0;
}

// The kernel for `panels` panels of 16 rows and `tokens` tokens, at least one.
inline IntegerKernel choose_integer_kernel(const IntegerChoices& device, uint32_t panels, uint32_t tokens) {
  // Devices of compute capability 12 run the code for 9.0, with 99 KiB of shared memory.
  const bool bulk = device.bulk_copies && device.shared_bytes >= size_t{227} << 10;
  if (tokens <= 8) return bulk ? IntegerKernel::few8_bulk : IntegerKernel::few8;
  if (tokens <= 16) return bulk ? IntegerKernel::few16_bulk : IntegerKernel::few16;
  if (!device.warpgroups) return tokens <= 64 ? IntegerKernel::sm80_tiles64 : IntegerKernel::sm80_tiles128;
  if (tokens <= 64) return IntegerKernel::sm90_tiles64;
  return takes_largest_tiles(device, panels, tokens) ? IntegerKernel::sm90_tiles256
                                                     : IntegerKernel::sm90_tiles128;
}

}  // namespace tessera::cuda
