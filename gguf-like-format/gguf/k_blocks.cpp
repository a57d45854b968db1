// Formats of 256 values per block: groups of 16 or 32 with small integer scales below one or two f16 ones.
#include <array>

#include "gguf-like-format/gguf/block_fields.h"

namespace tessera::gguf_blocks {

namespace {

constexpr size_t kValues = 256;

// Two bits of value i: four runs of 32 values share the 32 bytes of each half of the block.
uint32_t two_bits(const std::byte* codes, size_t i) {
  return byte_at(codes, 32 * (i / 128) + i % 32) >> (2 * (i / 32 % 4)) & 3;
}

// Four bits of value i where two runs of 32 values share 32 bytes.
uint32_t four_bits(const std::byte* codes, size_t i) {
  return nibble_at(codes, 32 * (i / 64) + i % 32, i / 32 % 2 != 0);
}

// What Q4_K and Q5_K share: value i is d * scale * code(i) - dmin * minimum.
template <class Code>
void decode_with_minima(const std::byte* block, float* out, Code code) {
  const float d = half_at(block, 0);
  const float dmin = half_at(block, 2);
  for (size_t group = 0; group < 8; ++group) {
    const ScaleAndMinimum packed = packed_scales(block + 4, group);
    const float scale = d * static_cast<float>(packed.scale);
    const float minimum = dmin * static_cast<float>(packed.minimum);
    for (size_t i = 32 * group; i < 32 * (group + 1); ++i)
      out[i] = scale * static_cast<float>(code(i)) - minimum;
  }
}

void decode_ternary(const std::array<uint8_t, kValues>& codes, float d, float* out) {
  for (size_t i = 0; i < kValues; ++i) out[i] = d * static_cast<float>(static_cast<int32_t>(codes[i]) - 1);
}

}  // namespace

void decode_q2_k(const std::byte* block, float* out) {
  const std::byte* const codes = block + 16;
  const float d = half_at(block, 80);
  const float dmin = half_at(block, 82);
  for (size_t i = 0; i < kValues; ++i) {
    const float scale = d * static_cast<float>(nibble_at(block, i / 16, false));
    const float minimum = dmin * static_cast<float>(nibble_at(block, i / 16, true));
    out[i] = scale * static_cast<float>(two_bits(codes, i)) - minimum;
  }
}

void decode_q3_k(const std::byte* block, float* out) {
  const std::byte* const codes = block + 32;
  const std::byte* const scales = block + 96;
  const float d = half_at(block, 108);
  for (size_t i = 0; i < kValues; ++i) {
    const size_t group = i / 16;
    const uint32_t low = nibble_at(scales, group % 8, group >= 8);
    const uint32_t high = byte_at(scales, 8 + group % 4) >> (2 * (group / 4)) & 3;
    const auto scale = static_cast<int32_t>(low | high << 4) - 32;
    const bool upper_half = (byte_at(block, i % 32) >> (i / 32) & 1) != 0;
    const int32_t code = static_cast<int32_t>(two_bits(codes, i)) - (upper_half ? 0 : 4);
    out[i] = d * static_cast<float>(scale) * static_cast<float>(code);
  }
}

void decode_q4_k(const std::byte* block, float* out) {
  decode_with_minima(block, out, [&](size_t i) { return four_bits(block + 16, i); });
}

void decode_q5_k(const std::byte* block, float* out) {
  decode_with_minima(block, out, [&](size_t i) {
    return four_bits(block + 48, i) | (byte_at(block, 16 + i % 32) >> (i / 32) & 1) << 4;
  });
}

void decode_q6_k(const std::byte* block, float* out) {
  const float d = half_at(block, 208);
  for (size_t i = 0; i < kValues; ++i) {
    const uint32_t low = nibble_at(block, 64 * (i / 128) + i % 64, i / 64 % 2 != 0);
    const auto code = static_cast<int32_t>(low | two_bits(block + 128, i) << 4) - 32;
    out[i] = d * static_cast<float>(signed_byte_at(block, 192 + i / 16)) * static_cast<float>(code);
  }
}

void q4_k_codes(const std::byte* block, uint8_t* out) {
  for (size_t i = 0; i < kValues; ++i) out[i] = static_cast<uint8_t>(four_bits(block + 16, i));
}

void iq4_xs_codes(const std::byte* block, uint8_t* out) {
  for (size_t i = 0; i < kValues; ++i)
    out[i] = static_cast<uint8_t>(nibble_at(block, 8 + 16 * (i / 32) + i % 16, i % 32 >= 16));
}

void decode_iq4_xs(const std::byte* block, float* out) {
  std::array<uint8_t, kValues> codes;
  iq4_xs_codes(block, codes.data());
  const float d = half_at(block, 0);
  for (size_t group = 0; group < 8; ++group) {
    const float scale = d * static_cast<float>(iq4_xs_scale(block, group));
    for (size_t i = 32 * group; i < 32 * (group + 1); ++i)
      out[i] = scale * static_cast<float>(kNonlinearLevels[codes[i]]);
  }
}

// A byte holds five digits of base three as a fraction of 256: multiplied by 3^n, modulo 256, its upper part
// is digit n.
void tq1_0_codes(const std::byte* block, uint8_t* out) {
  constexpr std::array<uint32_t, 5> kPowers{1, 3, 9, 27, 81};
  struct Run {
    size_t first;  // byte
    size_t bytes;
    size_t digits;  // per byte
  };
  constexpr std::array<Run, 3> kRuns{Run{0, 32, 5}, Run{32, 16, 5}, Run{48, 4, 4}};
  for (const Run& run : kRuns) {
    for (size_t digit = 0; digit < run.digits; ++digit) {
      for (size_t at = run.first; at < run.first + run.bytes; ++at) {
        const uint32_t fraction = byte_at(block, at) * kPowers[digit] & 255;
        *out++ = static_cast<uint8_t>(fraction * 3 >> 8);
      }
    }
  }
}

void tq2_0_codes(const std::byte* block, uint8_t* out) {
  for (size_t i = 0; i < kValues; ++i) out[i] = static_cast<uint8_t>(two_bits(block, i));
}

void decode_tq1_0(const std::byte* block, float* out) {
  std::array<uint8_t, kValues> codes;
  tq1_0_codes(block, codes.data());
  decode_ternary(codes, half_at(block, 52), out);
}

void decode_tq2_0(const std::byte* block, float* out) {
  std::array<uint8_t, kValues> codes;
  tq2_0_codes(block, codes.data());
  decode_ternary(codes, half_at(block, 64), out);
}

}  // namespace tessera::gguf_blocks
