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
constexpr float kHighestNibble = 15.0f;

static_assert(tile::byte_in_panel(5, 7) == tile::byte_in_panel(5, 4) + 3,
              "4 columns of a row are adjacent in a byte panel");

void fit_nibbles(const SchemeFacts&, std::span<const float> values, double clip, RowLevels& levels) {
  levels.scale = 0;
  levels.lowest = 0;
  levels.code_offset = 0;
  levels.group_columns = std::max<size_t>(1, values.size());
  levels.groups.assign(1, {.step = 1, .zero = 0, .highest = kHighestNibble});
  const rounding::Range range = rounding::range_with_zero(values);
  if (range.low == range.high) return;
  // In float64, where the difference of two large floats cannot overflow.
  const double width = static_cast<double>(range.high) - static_cast<double>(range.low);
  levels.scale = rounding::stored_scale(width * clip / 15.0);
  const auto low = static_cast<float>(static_cast<double>(range.low) * clip);
  levels.groups[0].zero = rounding::half_even_clamped(-low / levels.scale, 0.0f, kHighestNibble);
}

void store_nibbles(const CodedRow& coded, size_t row, const Panel& panel) {
  const bool padding = coded.codes.empty();
  const uint8_t zero = padding ? uint8_t{0} : static_cast<uint8_t>(coded.levels->groups[0].zero);
  std::vector<uint8_t> codes(tile::round_up(panel.columns, panel.scheme.column_pad), zero);
  std::copy(coded.codes.begin(), coded.codes.end(), codes.begin());
  nibble_lines::pack_row(codes, row, panel.codes);
  rounding::store_float(panel.row_scales, row, padding ? 0.0f : coded.levels->scale);
  panel.row_zeros[row] = static_cast<std::byte>(zero);
}

void encode_nibbles(const Rows& rows, const Panel& panel) {
  encode_by_levels<RowLevels>(
      rows, panel,
      [&](std::span<const float> row, RowLevels& levels) { fit_nibbles(panel.scheme, row, 1.0, levels); },
      store_nibbles);
}

void decode_nibbles(const StoredPanel& panel, size_t row, std::span<double> out) {
  const auto scale = static_cast<double>(rounding::load_float(panel.row_scales, row));
  const auto zero = std::to_integer<uint8_t>(panel.row_zeros[row]);
  std::vector<uint8_t> codes(tile::round_up(out.size(), panel.scheme.column_pad));
  nibble_lines::unpack_row(panel.codes, row, codes);
  for (size_t i = 0; i < out.size(); ++i) out[i] = scale * static_cast<double>(codes[i] - zero);
}

void fit_bytes(const SchemeFacts&, std::span<const float> values, double clip, RowLevels& levels) {
  levels.scale = 0;
  levels.lowest = -127;
  levels.code_offset = 128;
  levels.group_columns = std::max<size_t>(1, values.size());
  levels.groups.assign(1, {.step = 1, .zero = 0, .highest = 127});
  const float largest = rounding::largest_magnitude(values);
  if (largest != 0.0f) levels.scale = rounding::stored_scale(static_cast<double>(largest) * clip / 127.0);
}

void store_bytes(const CodedRow& coded, size_t row, const Panel& panel) {
  std::vector<uint8_t> codes(tile::round_up(panel.columns, panel.scheme.column_pad), kByteZero);
  std::copy(coded.codes.begin(), coded.codes.end(), codes.begin());
  for (size_t column = 0; column < codes.size(); column += 4)
    std::memcpy(&panel.codes[tile::byte_in_panel(row, column)], &codes[column], 4);
  rounding::store_float(panel.row_scales, row, coded.codes.empty() ? 0.0f : coded.levels->scale);
}

void encode_bytes(const Rows& rows, const Panel& panel) {
  encode_by_levels<RowLevels>(
      rows, panel,
      [&](std::span<const float> row, RowLevels& levels) { fit_bytes(panel.scheme, row, 1.0, levels); },
      store_bytes);
}

void decode_bytes(const StoredPanel& panel, size_t row, std::span<double> out) {
  const auto scale = static_cast<double>(rounding::load_float(panel.row_scales, row));
  for (size_t i = 0; i < out.size(); ++i) {
    const int32_t code = std::to_integer<int32_t>(panel.codes[tile::byte_in_panel(row, i)]);
    out[i] = scale * static_cast<double>(code - kByteZero);
  }
}

}  // namespace

constinit const Codec kRowBytes{.kind = CodeKind::row_bytes,
                                .encode = encode_bytes,
                                .decode = decode_bytes,
                                .fit = fit_bytes,
                                .store = store_bytes};
constinit const Codec kRowNibbles{.kind = CodeKind::row_nibbles,
                                  .encode = encode_nibbles,
                                  .decode = decode_nibbles,
                                  .fit = fit_nibbles,
                                  .store = store_nibbles};

}  // namespace tessera::panel
