// IEEE half and bfloat16 as storage: conversions with round-to-nearest-even, in plain code for any machine.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

namespace tessera {

// Kernels read a mapped file as it lies on disk: little-endian numbers, with offsets and sizes of 64 bits.
static_assert(std::endian::native == std::endian::little,
              "Tessera reads .tess files where they are mapped, and their numbers are little-endian: "
              "big-endian machines are not supported");
static_assert(sizeof(size_t) == 8,
              "Tessera maps whole model files and counts their bytes in 64 bits: "
              "32-bit machines are not supported");

inline float bf16_to_f32(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

// Rounds half to even; a NaN stays a (quiet) NaN.
inline uint16_t f32_to_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline float f16_to_f32(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1fu;
  const uint32_t fraction = bits & 0x3ffu;
  if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000u | (fraction << 13));
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (fraction << 13));
  const float magnitude = static_cast<float>(fraction) * 0x1p-24f;  // zero and subnormals are exact in f32
  return sign != 0 ? -magnitude : magnitude;
}

// OCP 8-bit float E4M3: bias 7, no infinities; both signs of 0x7F are NaN.
inline float f8_e4m3_to_f32(uint8_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x80u) << 24;
  const uint32_t exponent = (bits >> 3) & 0xfu;
  const uint32_t fraction = bits & 0x7u;
  if ((bits & 0x7fu) == 0x7fu) return std::bit_cast<float>(sign | 0x7fc00000u);
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 120) << 23) | (fraction << 20));
  const float magnitude = static_cast<float>(fraction) * 0x1p-9f;  // zero and subnormals are exact in f32
  return sign != 0 ? -magnitude : magnitude;
}

// Rounds half to even; overflow becomes infinity, NaN stays NaN, results below 2^-25 become zero.
inline uint16_t f32_to_f16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u)
    return static_cast<uint16_t>(sign | 0x7c00u);  // 65520 and up round to infinity
  if (magnitude <
      0x38800000u) {  // below the smallest normal half: scale so that adding aligns and rounds the bits
    const float aligned = std::bit_cast<float>(magnitude) + 0.5f;  // ulp of 0.5 is 2^-24, the subnormal step
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(aligned) - 0x3f000000u));
  }
  const uint32_t rebased = magnitude - 0x38000000u;
  return static_cast<uint16_t>(sign | ((rebased + 0xfffu + ((rebased >> 13) & 1u)) >> 13));
}

}  // namespace tessera
