// Table schemes: codes of 2 to 4 bits with an f16 scale, and perhaps a zero point, for each group of columns
// of a row.
#include <algorithm>
#include <array>
#include <cstring>

#include "engine/codec/panel_codec.h"
#include "gguf-like-format/float_types.h"

namespace tessera::panel {

namespace {

constexpr size_t kUnit = tile::kTableUnitColumns;
constexpr size_t kLargestGroup = 256;

static_assert(tile::code_in_unit(3, 5, 30).byte == tile::code_in_unit(3, 5, 28).byte + 2 &&
                  tile::code_in_unit(3, 5, 30).high_byte == tile::code_in_unit(3, 5, 28).high_byte + 2,
              "a row's 4 codes of a quad are 4 adjacent bytes at one shift");

uint32_t load_word(std::span<const std::byte> lines, size_t at) {
  uint32_t word = 0;
  std::memcpy(&word, &lines[at], 4);
  return word;
}

void add_bits(std::span<std::byte> lines, size_t at, uint32_t bits) {
  const uint32_t word = load_word(lines, at) | bits;
  std::memcpy(&lines[at], &word, 4);
}

constexpr uint32_t in_every_byte(uint32_t byte) { return byte * 0x01010101u; }

// codes: those of one unit, a byte each; lines: bits * 64 bytes, of which this row's are overwritten.
void pack_unit(size_t bits, std::span<const uint8_t> codes, size_t row, std::span<std::byte> lines) {
  const uint32_t nothing = 0;
  for (size_t line = 0; line < bits; ++line)
    std::memcpy(&lines[line * tile::kLineBytes + 4 * row], &nothing, 4);
  for (size_t column = 0; column < kUnit; column += 4) {
    const tile::CodeBits place = tile::code_in_unit(bits, row, column);
    uint32_t quad = 0;
    std::memcpy(&quad, &codes[column], 4);
    add_bits(lines, place.byte, (quad & in_every_byte((1u << place.low) - 1)) << place.shift);
    if (place.low < bits)
      add_bits(lines, place.high_byte, (quad >> place.low & in_every_byte(1)) << place.high_shift);
  }
}

void unpack_unit(size_t bits, std::span<const std::byte> lines, size_t row, std::span<uint8_t> codes) {
  for (size_t column = 0; column < kUnit; column += 4) {
    const tile::CodeBits place = tile::code_in_unit(bits, row, column);
    uint32_t quad = load_word(lines, place.byte) >> place.shift & in_every_byte((1u << place.low) - 1);
    if (place.low < bits)
      quad |= (load_word(lines, place.high_byte) >> place.high_shift & in_every_byte(1)) << place.low;
    std::memcpy(&codes[column], &quad, 4);
  }
}

void store_half(std::span<std::byte> panel, size_t at, float value) {
  const uint16_t half = f32_to_f16(value);
  std::memcpy(&panel[at], &half, 2);
}

float load_half(std::span<const std::byte> panel, size_t at) {
  uint16_t half = 0;
  std::memcpy(&half, &panel[at], 2);
  return f16_to_f32(half);
}

TableFormat format_of(const SchemeFacts& scheme) {
  return {scheme.bits, scheme.group, !scheme.table, scheme.activations == ActivationType::int8};
}

std::array<float, 16> load_table(std::span<const std::byte> table) {
  std::array<float, 16> values{};
  if (!table.empty()) std::memcpy(values.data(), table.data(), sizeof values);
  return values;
}

// Padding columns hold code 0.
void store(const CodedTableRow& coded, size_t row, const Panel& panel) {
  const TableFormat format = format_of(panel.scheme);
  std::array<uint8_t, kLargestGroup> codes;
  for (size_t first = 0, index = 0; first < panel.columns; first += format.group, ++index) {
    const TableLevels::Group group = coded.codes.empty() ? TableLevels::Group{} : coded.levels->groups[index];
    codes.fill(0);  // what padding columns hold means nothing: their inputs are 0
    if (!coded.codes.empty()) {
      const auto part = coded.codes.subspan(first, std::min(format.group, panel.columns - first));
      std::copy(part.begin(), part.end(), codes.begin());
    }
    for (size_t unit = 0; unit < format.group; unit += kUnit) {
      const size_t at = tile::table_unit_byte(format.bits, format.group, format.zero_points, first + unit);
      pack_unit(format.bits, std::span(codes).subspan(unit, kUnit), row,
                panel.codes.subspan(at, format.bits * tile::kLineBytes));
    }
    store_half(panel.codes, tile::table_scale_byte(format.bits, format.group, format.zero_points, row, index),
               group.scale);
    if (format.zero_points)
      store_half(panel.codes, tile::table_zero_byte(format.bits, format.group, row, index), group.zero);
  }
}

void encode(const Rows& rows, const Panel& panel) {
  const TableFormat format = format_of(panel.scheme);
  ValueTable table;
  if (!format.zero_points) {
    const std::array<float, 16> values = load_table(panel.table);
    table = make_value_table(std::span(values).first(size_t{1} << format.bits));
  }
  encode_by_levels<TableLevels>(
      rows, panel,
      [&](std::span<const float> row, TableLevels& levels) {
        fit_levels(format, format.zero_points ? nullptr : &table, row, levels);
      },
      store);
}

void decode(const StoredPanel& panel, size_t row, std::span<double> out) {
  const TableFormat format = format_of(panel.scheme);
  const std::array<float, 16> table = load_table(panel.table);
  std::array<uint8_t, kUnit> codes;
  for (size_t first = 0; first < out.size(); first += kUnit) {
    const size_t index = first / format.group;
    const double scale = static_cast<double>(load_half(
        panel.codes, tile::table_scale_byte(format.bits, format.group, format.zero_points, row, index)));
    const size_t at = tile::table_unit_byte(format.bits, format.group, format.zero_points, first);
    unpack_unit(format.bits, panel.codes.subspan(at, format.bits * tile::kLineBytes), row, codes);
    const auto part = out.subspan(first, std::min(kUnit, out.size() - first));
    if (format.zero_points) {
      const double zero = static_cast<double>(
          load_half(panel.codes, tile::table_zero_byte(format.bits, format.group, row, index)));
      for (size_t i = 0; i < part.size(); ++i) part[i] = scale * (static_cast<double>(codes[i]) - zero);
    } else {
      for (size_t i = 0; i < part.size(); ++i) part[i] = scale * static_cast<double>(table[codes[i]]);
    }
  }
}

constexpr Codec codec(CodeKind kind) {
  return {.kind = kind, .encode = encode, .decode = decode, .store_table = store};
}

}  // namespace

constinit const Codec kLut2 = codec(CodeKind::lut2);
constinit const Codec kLut3 = codec(CodeKind::lut3);
constinit const Codec kLut4 = codec(CodeKind::lut4);
constinit const Codec kInt4 = codec(CodeKind::int4);

}  // namespace tessera::panel
