// The AVX2 kernels, one function per entry of the kernel table (those of table schemes already together).
// Only called where the machine has the instructions.
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

extern const TableKernels kTableInt8;
extern const TableKernels kTableBf16;

void rms_norm(const float* x, const float* residual, float* sum, const float* gain, float epsilon, size_t n,
              float* y);
void quantize_row(const float* x, size_t n, uint8_t* q8_row);
void round_row(const float* x, size_t n, uint8_t* bf16_row);
void silu_gate(const float* gate, const float* up, size_t n, float* y);
void rotate_head(const float* x, const float* cosines, const float* sines, size_t half, float* y);

float maximum(const float* values, size_t n);

void split_query8(const float* q, size_t head_dim, float scale, uint8_t* digits, QueryTerms* terms);
void split_query4(const float* q, size_t head_dim, float scale, uint8_t* digits, QueryTerms* terms);
void score_keys8(const ScoreProduct& job);
void score_keys4(const ScoreProduct& job);
float powers(float* scores, float reference, size_t n, size_t end);
float coarse_powers(float* scores, float reference, size_t n, size_t end);
void split_weights8(const WeightSplit& job);
void split_weights4(const WeightSplit& job);
void add_values8(const ValueProduct& job);
void add_values4(const ValueProduct& job);

}  // namespace tessera::cpu::avx2
