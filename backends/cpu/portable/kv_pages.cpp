// KV codes back to f32 panels in plain loops.
#include "backends/cpu/portable/portable.h"
#include "gguf-like-format/float_types.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera::cpu::portable {

namespace {

constexpr size_t kRows = tile::kPanelRows;

float nibble(const uint8_t* codes, size_t row, size_t column) {
  const tile::Nibble at = tile::nibble_in_panel(row, column);
  return static_cast<float>(at.high ? codes[at.byte] >> 4 : codes[at.byte] & 15);
}

float signed_byte(const uint8_t* codes, size_t row, size_t column) {
  return static_cast<float>(static_cast<int8_t>(codes[tile::byte_in_panel(row, column)]));
}

}  // namespace

void expand_k8(const uint8_t* codes, const uint16_t* scales, size_t head_dim, float* out) {
  for (size_t r = 0; r < kRows; ++r) {
    const float scale = f16_to_f32(scales[r]);
    for (size_t k = 0; k < head_dim; ++k) out[k * kRows + r] = signed_byte(codes, r, k) * scale;
  }
}

void expand_k4(const uint8_t* codes, const uint16_t* scales, const uint16_t* minima, size_t head_dim,
               float* out) {
  for (size_t r = 0; r < kRows; ++r) {
    const float scale = f16_to_f32(scales[r]);
    const float minimum = f16_to_f32(minima[r]);
    for (size_t k = 0; k < head_dim; ++k) out[k * kRows + r] = nibble(codes, r, k) * scale + minimum;
  }
}

void expand_v8(const uint8_t* codes, const uint16_t* scales, size_t tokens, float* out) {
  for (size_t t = 0; t < tokens; ++t) {
    const float scale = f16_to_f32(scales[t]);
    for (size_t r = 0; r < kRows; ++r) out[t * kRows + r] = signed_byte(codes, r, t) * scale;
  }
}

void expand_v4(const uint8_t* codes, const uint16_t* scales, const uint16_t* minima, size_t tokens,
               float* out) {
  for (size_t t = 0; t < tokens; ++t) {
    const float scale = f16_to_f32(scales[t]);
    const float minimum = f16_to_f32(minima[t]);
    for (size_t r = 0; r < kRows; ++r) out[t * kRows + r] = nibble(codes, r, t) * scale + minimum;
  }
}

}  // namespace tessera::cpu::portable
