// Reading the parts of a block of a quantized tensor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

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

// Formats of 256 values, in k_blocks.cpp.
void decode_q2_k(const std::byte* block, float* out);
void decode_q3_k(const std::byte* block, float* out);
void decode_q4_k(const std::byte* block, float* out);
void decode_q5_k(const std::byte* block, float* out);
void decode_q6_k(const std::byte* block, float* out);
void decode_iq4_xs(const std::byte* block, float* out);
void decode_tq1_0(const std::byte* block, float* out);
void decode_tq2_0(const std::byte* block, float* out);

}  // namespace tessera::gguf_blocks
