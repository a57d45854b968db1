// Writes one finished row as the type of its tensor, with a whole block: f32, q8 or bf16.
#pragma once

#include "backends/cuda/elementwise/quantize_row.h"
#include "gguf-like-format/tile_layout.h"
#include "graph/bf16_row.h"
#include "graph/graph.h"

namespace tessera::cuda {

// Rounds to bfloat16, half to even; infinities and NaN are preserved.
TESSERA_DEVICE uint32_t bf16_bits(float value) {
  const uint32_t bits = float_bits(value);
  if ((bits & 0x7fffffffu) > kInfinityBits) return bits >> 16 | 0x40u;
  return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}

inline constexpr uint32_t kSumLanes = bf16_row::kGroup / 4;  // lanes of 4 columns that share a sum

// One bf16 row (graph/bf16_row.h). Each stored sum is over 32 columns, in float32 and always in the same
// order.
template <class Values>
TESSERA_DEVICE void round_row(uint32_t columns, Global<std::byte> row, const Values& values) {
  static_assert(tile::bf16_position(1) == 2, "the words below are columns 0 and 2, 1 and 3 of a quad");
  static_assert(bf16_row::kColumnPad == kRowPad, "a row has as many quads as are visited");
  const Global<Words2> quads = row.as<Words2>();
  const Global<float> sums = row.as<float>(bf16_row::sums_offset(columns));
  values.each([&](uint32_t quad, const Quad& value) {
    uint32_t rounded[4];
    float sum = 0;
    TESSERA_UNROLL
    for (uint32_t i = 0; i < 4; ++i) {
      rounded[i] = bf16_bits(value.at[i]);
      sum = add_rn(sum, bits_float(rounded[i] << 16));
    }
    quads.store(quad, {rounded[0] | rounded[2] << 16, rounded[1] | rounded[3] << 16});
    for (uint32_t mask = 1; mask < kSumLanes; mask *= 2)
      sum = add_rn(sum, bits_float(shuffle_xor(float_bits(sum), mask)));
    if (quad % kSumLanes == 0) sums.store(quad / kSumLanes, sum);
  });
}

// values: as RowQuads. scratch holds kReduceWords words.
template <class Values>
TESSERA_DEVICE void store_row(ElementType type, uint32_t columns, Global<std::byte> row,
                              Shared<uint32_t> scratch, const Values& values) {
  if (type == ElementType::q8) {
    quantize_row(columns, row, scratch, values);
  } else if (type == ElementType::bf16) {
    round_row(columns, row, values);
  } else {
    values.each([&](uint32_t quad, const Quad& value) { store_quad(row.as<float>(), columns, quad, value); });
  }
}

}  // namespace tessera::cuda
