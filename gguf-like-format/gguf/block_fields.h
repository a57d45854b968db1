// Reading the parts of a block of a quantized tensor.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "gguf-like-format/float_types.h"

namespace tessera::gguf_blocks {

inline uint32_t byte_at(const std::byte* block, size_t at) { return std::to_integer<uint32_t>(block[at]); }

inline int32_t signed_byte_at(const std::byte* block, size_t at) {
  return static_cast<int8_t>(std::to_integer<uint8_t>(block[at]));
}

inline uint32_t word16_at(const std::byte* block, size_t at) {
  return byte_at(block, at) | byte_at(block, at + 1) << 8;
}

inline uint32_t word32_at(const std::byte* block, size_t at) {
  return word16_at(block, at) | word16_at(block, at + 2) << 16;
}

inline float half_at(const std::byte* block, size_t at) {
  return f16_to_f32(static_cast<uint16_t>(word16_at(block, at)));
}

// The low or the high four bits of a byte.
inline uint32_t nibble_at(const std::byte* block, size_t at, bool high) {
  return byte_at(block, at) >> (high ? 4 : 0) & 15;
}

// Values of IQ4_NL and IQ4_XS codes.
inline constexpr int32_t kNonlinearLevels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                                 1,    13,   25,  38,  53,  69,  89,  113};

// Twice the values of MXFP4's codes, which are floats of four bits.
inline constexpr int32_t kDoubledFloats[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// Half the power of two that the exponent of an MXFP4 block stands for; 2^-128 and 2^-127 are subnormal.
inline float half_power(uint32_t exponent) {
  return std::bit_cast<float>(exponent < 2 ? 0x00200000U << exponent : (exponent - 1) << 23);
}

struct ScaleAndMinimum {
  uint32_t scale;
  uint32_t minimum;
};

// Of group 0 to 7 of a Q4_K or Q5_K block: six bits each, packed in 12 bytes; groups 4 to 7 keep their upper
// two bits in the bytes of groups 0 to 3.
inline ScaleAndMinimum packed_scales(const std::byte* packed, size_t group) {
  if (group < 4) return {byte_at(packed, group) & 63, byte_at(packed, group + 4) & 63};
  const uint32_t low = byte_at(packed, group + 4);
  return {(low & 15) | byte_at(packed, group - 4) >> 6 << 4, low >> 4 | byte_at(packed, group) >> 6 << 4};
}

// Of group 0 to 7 of an IQ4_XS block: six bits around 32.
inline int32_t iq4_xs_scale(const std::byte* block, size_t group) {
  const uint32_t low = nibble_at(block, 4 + group / 2, group % 2 != 0);
  return static_cast<int32_t>(low | (word16_at(block, 2) >> (2 * group) & 3) << 4) - 32;
}

// Formats of 256 values, in k_blocks.cpp. Codes are one in a byte.
void q4_k_codes(const std::byte* block, uint8_t* out);
void iq4_xs_codes(const std::byte* block, uint8_t* out);
void tq1_0_codes(const std::byte* block, uint8_t* out);
void tq2_0_codes(const std::byte* block, uint8_t* out);
void decode_q2_k(const std::byte* block, float* out);
void decode_q3_k(const std::byte* block, float* out);
void decode_q4_k(const std::byte* block, float* out);
void decode_q5_k(const std::byte* block, float* out);
void decode_q6_k(const std::byte* block, float* out);
void decode_iq4_xs(const std::byte* block, float* out);
void decode_tq1_0(const std::byte* block, float* out);
void decode_tq2_0(const std::byte* block, float* out);

}  // namespace tessera::gguf_blocks
