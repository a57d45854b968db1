// w4a8 and w8a8: one float scale per row, codes of 4 bits with a zero point or of 8 bits around 128.
#include <algorithm>
#include <vector>

#include "engine/quantize/nibble_lines.h"
#include "engine/quantize/panel_codec.h"
#include "engine/quantize/rounding.h"

namespace tessera::panel {

namespace {

constexpr uint8_t kByteZero = 128;  // the w8a8 code that means 0

static_assert(tile::byte_in_panel(5, 7) == tile::byte_in_panel(5, 4) + 3,
              "4 columns of a row are adjacent in a byte panel");

}  // namespace

void encode_per_channel_4bit(const Rows& rows, std::span<std::byte> panel, std::span<std::byte> scales,
                             std::span<std::byte> zeros) {
  std::vector<uint8_t> codes(tile::round_up(rows.columns, tile::kIntegerColumnPad));
  std::fill(panel.begin(), panel.end(), std::byte{0});
  for (size_t row = 0; row < tile::kPanelRows; ++row) {
    const std::span<const float> values = row < rows.count ? rows.row(row) : std::span<const float>{};
    const rounding::Range range = rounding::range_with_zero(values);
    if (range.low == range.high) {  // padding or a row of zeros: codes 0 with zero point 0
      rounding::store_float(scales, row, 0.0f);
      zeros[row] = std::byte{0};
      continue;
    }
    // In float64, where the difference of two large floats cannot overflow.
    const double width = static_cast<double>(range.high) - static_cast<double>(range.low);
    const float scale = rounding::stored_scale(width / 15.0);
    const uint8_t zero = rounding::half_even_clamped(-range.low / scale, 0.0f, 15.0f);
    const float shift = zero;
    for (size_t i = 0; i < values.size(); ++i)
      codes[i] = rounding::half_even_clamped(values[i] / scale + shift, 0.0f, 15.0f);
    std::fill(codes.begin() + static_cast<std::ptrdiff_t>(values.size()), codes.end(), zero);
    nibble_lines::pack_row(codes, row, panel);
    rounding::store_float(scales, row, scale);
    zeros[row] = static_cast<std::byte>(zero);
  }
}

void decode_per_channel_4bit(std::span<const std::byte> panel, size_t row, float scale, uint8_t zero,
                             std::span<double> out) {
  std::vector<uint8_t> codes(tile::round_up(out.size(), tile::kIntegerColumnPad));
  nibble_lines::unpack_row(panel, row, codes);
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = static_cast<double>(scale) * static_cast<double>(codes[i] - zero);
}

void encode_per_channel_8bit(const Rows& rows, std::span<std::byte> panel, std::span<std::byte> scales) {
  std::vector<uint8_t> codes(tile::round_up(rows.columns, tile::kIntegerColumnPad), kByteZero);
  std::fill(panel.begin(), panel.end(), static_cast<std::byte>(kByteZero));
  for (size_t row = 0; row < tile::kPanelRows; ++row) {
    const std::span<const float> values = row < rows.count ? rows.row(row) : std::span<const float>{};
    const float largest = rounding::largest_magnitude(values);
    if (largest == 0.0f) {
      rounding::store_float(scales, row, 0.0f);
      continue;
    }
    const float scale = rounding::stored_scale(static_cast<double>(largest) / 127.0);
    for (size_t i = 0; i < values.size(); ++i)
      codes[i] = static_cast<uint8_t>(rounding::half_even(values[i] / scale) + kByteZero);
    for (size_t column = 0; column < codes.size(); column += 4)
      std::memcpy(&panel[tile::byte_in_panel(row, column)], &codes[column], 4);
    rounding::store_float(scales, row, scale);
  }
}

void decode_per_channel_8bit(std::span<const std::byte> panel, size_t row, float scale,
                             std::span<double> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    const int32_t code = std::to_integer<int32_t>(panel[tile::byte_in_panel(row, i)]);
    out[i] = static_cast<double>(scale) * static_cast<double>(code - kByteZero);
  }
}

}  // namespace tessera::panel
