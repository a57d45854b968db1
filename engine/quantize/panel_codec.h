// One 16-row panel of each scheme family, encoded by plain rounding and decoded row by row: the parts of the
// matrix codec. Formulas: docs/quantization.md; layout: gguf-like-format/tile_layout.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "gguf-like-format/scheme.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera::panel {

// The rows of a matrix that fall into one panel: 1 to 16 of them, each `columns` finite floats.
struct Rows {
  size_t count = 0;
  size_t columns = 0;
  std::span<const float> values;  // [count, columns]

  std::span<const float> row(size_t index) const { return values.subspan(index * columns, columns); }
};

// Encoders write every byte of `panel` (panel_bytes of the scheme) and of the row arrays, padding included:
// `scales` is f32[16], `zeros` u8[16]. Padding rows get scale 0 and codes that mean 0.
void encode_progressive_groups(const Rows& rows, std::span<std::byte> panel, std::span<std::byte> scales);
void encode_per_channel_4bit(const Rows& rows, std::span<std::byte> panel, std::span<std::byte> scales,
                             std::span<std::byte> zeros);
void encode_per_channel_8bit(const Rows& rows, std::span<std::byte> panel, std::span<std::byte> scales);
void encode_f32(const Rows& rows, std::span<std::byte> panel);
void encode_f16(const Rows& rows, std::span<std::byte> panel);
void encode_bf16(const Rows& rows, std::span<std::byte> panel);

// Decoders give row 0..15 of a panel in float64; out.size() is the number of logical columns.
void decode_progressive_groups(std::span<const std::byte> panel, size_t row, float scale,
                               std::span<double> out);
void decode_per_channel_4bit(std::span<const std::byte> panel, size_t row, float scale, uint8_t zero,
                             std::span<double> out);
void decode_per_channel_8bit(std::span<const std::byte> panel, size_t row, float scale,
                             std::span<double> out);
void decode_f32(std::span<const std::byte> panel, size_t row, std::span<double> out);
void decode_f16(std::span<const std::byte> panel, size_t row, std::span<double> out);
void decode_bf16(std::span<const std::byte> panel, size_t row, std::span<double> out);

}  // namespace tessera::panel
