// f32, f16 and bf16 matrices: the values themselves, in panel order.
#include <algorithm>
#include <cstring>

#include "engine/codec/panel_codec.h"
#include "gguf-like-format/float_types.h"

namespace tessera::panel {

namespace {

// Place maps (row, column) to an element index of the panel; convert makes the stored element.
template <typename Element, typename Place, typename Convert>
void encode(const Rows& rows, std::span<std::byte> panel, Place place, Convert convert) {
  std::fill(panel.begin(), panel.end(), std::byte{0});
  for (size_t row = 0; row < rows.count; ++row) {
    const std::span<const float> values = rows.row(row);
    for (size_t column = 0; column < values.size(); ++column) {
      const Element element = convert(values[column]);
      std::memcpy(panel.data() + place(row, column) * sizeof(Element), &element, sizeof(Element));
    }
  }
}

template <typename Element, typename Place, typename Convert>
void decode(std::span<const std::byte> panel, size_t row, std::span<double> out, Place place,
            Convert convert) {
  for (size_t column = 0; column < out.size(); ++column) {
    Element element;
    std::memcpy(&element, panel.data() + place(row, column) * sizeof(Element), sizeof(Element));
    out[column] = static_cast<double>(convert(element));
  }
}

constexpr auto kPlain = [](size_t row, size_t column) { return tile::element_in_panel(row, column); };
constexpr auto kPairs = [](size_t row, size_t column) { return tile::bf16_in_panel(row, column); };
constexpr auto kSame = [](float value) { return value; };

}  // namespace

void encode_f32(const Rows& rows, std::span<std::byte> panel) { encode<float>(rows, panel, kPlain, kSame); }
void encode_f16(const Rows& rows, std::span<std::byte> panel) {
  encode<uint16_t>(rows, panel, kPlain, f32_to_f16);
}
void encode_bf16(const Rows& rows, std::span<std::byte> panel) {
  encode<uint16_t>(rows, panel, kPairs, f32_to_bf16);
}

void decode_f32(std::span<const std::byte> panel, size_t row, std::span<double> out) {
  decode<float>(panel, row, out, kPlain, kSame);
}
void decode_f16(std::span<const std::byte> panel, size_t row, std::span<double> out) {
  decode<uint16_t>(panel, row, out, kPlain, f16_to_f32);
}
void decode_bf16(std::span<const std::byte> panel, size_t row, std::span<double> out) {
  decode<uint16_t>(panel, row, out, kPairs, bf16_to_f32);
}

}  // namespace tessera::panel
