// The AVX2 kernels, one function per entry of the kernel table. Only called where the machine has the
// instructions.
#pragma once

#include "backends/cpu/kernels.h"

namespace tessera::cpu::avx2 {

void product_codes_g128(const IntegerProduct& job);
void product_codes_w4(const IntegerProduct& job);
void product_bytes(const IntegerProduct& job);
void expand_g128(const uint8_t* panel, size_t columns, uint8_t* bytes);
void expand_w4(const uint8_t* panel, size_t columns, uint8_t* bytes);

void product_f32(const FloatProduct& job);
void product_f16(const FloatProduct& job);
void product_bf16(const FloatProduct& job);

void rms_norm(const float* x, const float* residual, float* sum, const float* gain, float epsilon, size_t n,
              float* y);
void quantize_row(const float* x, size_t n, uint8_t* q8_row);
void silu_gate(const float* gate, const float* up, size_t n, float* y);
void rotate_head(const float* x, const float* cosines, const float* sines, size_t half, float* y);

void expand_k8(const uint8_t* codes, const uint16_t* scales, size_t head_dim, float* out);
void expand_k4(const uint8_t* codes, const uint16_t* scales, const uint16_t* minima, size_t head_dim,
               float* out);
void expand_v8(const uint8_t* codes, const uint16_t* scales, size_t tokens, float* out);
void expand_v4(const uint8_t* codes, const uint16_t* scales, const uint16_t* minima, size_t tokens,
               float* out);
float maximum(const float* values, size_t n);
float exponentials(float* scores, float shift, size_t n);
void scale_row(float* values, float factor, size_t n);

}  // namespace tessera::cpu::avx2
