// f32, f16 and bf16 matrices: the values themselves, in panel order.
#include <algorithm>
#include <cstring>

#include "engine/codec/panel_codec.h"
#include "gguf-like-format/float_types.h"

namespace tessera::panel {

namespace {

// How one kind of float is stored: its place in a panel, as an element index, and its conversions.
struct F32 {
  using Element = float;
  static size_t place(size_t row, size_t column) { return tile::element_in_panel(row, column); }
  static Element stored(float value) { return value; }
  static float value(Element element) { return element; }
};
struct F16 {
  using Element = uint16_t;
  static size_t place(size_t row, size_t column) { return tile::element_in_panel(row, column); }
  static Element stored(float value) { return f32_to_f16(value); }
  static float value(Element element) { return f16_to_f32(element); }
};
struct Bf16 {
  using Element = uint16_t;
  static size_t place(size_t row, size_t column) { return tile::bf16_in_panel(row, column); }
  static Element stored(float value) { return f32_to_bf16(value); }
  static float value(Element element) { return bf16_to_f32(element); }
};

template <class Float>
void encode(const Rows& rows, const Panel& panel) {
  using Element = typename Float::Element;
  std::fill(panel.codes.begin(), panel.codes.end(), std::byte{0});
  for (size_t row = 0; row < rows.count; ++row) {
    const std::span<const float> values = rows.row(row);
    for (size_t column = 0; column < values.size(); ++column) {
      const Element element = Float::stored(values[column]);
      std::memcpy(panel.codes.data() + Float::place(row, column) * sizeof element, &element, sizeof element);
    }
  }
}

template <class Float>
void decode(const StoredPanel& panel, size_t row, std::span<double> out) {
  for (size_t column = 0; column < out.size(); ++column) {
    typename Float::Element element;
    std::memcpy(&element, panel.codes.data() + Float::place(row, column) * sizeof element, sizeof element);
    out[column] = static_cast<double>(Float::value(element));
  }
}

}  // namespace

constinit const Codec kF32{.kind = CodeKind::f32, .encode = encode<F32>, .decode = decode<F32>};
constinit const Codec kF16{.kind = CodeKind::f16, .encode = encode<F16>, .decode = decode<F16>};
constinit const Codec kBf16{.kind = CodeKind::bf16, .encode = encode<Bf16>, .decode = decode<Bf16>};

}  // namespace tessera::panel
