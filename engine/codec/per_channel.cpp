// w4a8 and w8a8: one float scale per row, codes of 4 bits with a zero point or of 8 bits around 128.
#include <algorithm>
#include <cstring>
#include <vector>

#include "engine/codec/nibble_lines.h"
#include "engine/codec/panel_codec.h"
#include "engine/codec/rounding.h"

namespace tessera::panel {

namespace {

constexpr uint8_t kByteZero = 128;  // the w8a8 code that means 0

static_assert(tile::byte_in_panel(5, 7) == tile::byte_in_panel(5, 4) + 3,
              "4 columns of a row are adjacent in a byte panel");

}  // namespace

void store_per_channel_4bit(const CodedRow& coded, size_t columns, size_t row, std::span<std::byte> panel,
                            std::span<std::byte> scales, std::span<std::byte> zeros) {
  const bool padding = coded.codes.empty();
  const uint8_t zero = padding ? uint8_t{0} : static_cast<uint8_t>(coded.levels->groups[0].zero);
  std::vector<uint8_t> codes(tile::round_up(columns, tile::kIntegerColumnPad), zero);
  std::copy(coded.codes.begin(), coded.codes.end(), codes.begin());
  nibble_lines::pack_row(codes, row, panel);
  rounding::store_float(scales, row, padding ? 0.0f : coded.levels->scale);
  zeros[row] = static_cast<std::byte>(zero);
}

void decode_per_channel_4bit(std::span<const std::byte> panel, size_t row, float scale, uint8_t zero,
                             std::span<double> out) {
  std::vector<uint8_t> codes(tile::round_up(out.size(), tile::kIntegerColumnPad));
  nibble_lines::unpack_row(panel, row, codes);
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = static_cast<double>(scale) * static_cast<double>(codes[i] - zero);
}

void store_per_channel_8bit(const CodedRow& coded, size_t columns, size_t row, std::span<std::byte> panel,
                            std::span<std::byte> scales) {
  std::vector<uint8_t> codes(tile::round_up(columns, tile::kIntegerColumnPad), kByteZero);
  std::copy(coded.codes.begin(), coded.codes.end(), codes.begin());
  for (size_t column = 0; column < codes.size(); column += 4)
    std::memcpy(&panel[tile::byte_in_panel(row, column)], &codes[column], 4);
  rounding::store_float(scales, row, coded.codes.empty() ? 0.0f : coded.levels->scale);
}

void decode_per_channel_8bit(std::span<const std::byte> panel, size_t row, float scale,
                             std::span<double> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    const int32_t code = std::to_integer<int32_t>(panel[tile::byte_in_panel(row, i)]);
    out[i] = static_cast<double>(scale) * static_cast<double>(code - kByteZero);
  }
}

}  // namespace tessera::panel
