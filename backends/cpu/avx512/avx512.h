// The AVX-512 kernels, one function per entry of the kernel table. Only called where the machine has the
// instructions.
#pragma once

#include "backends/cpu/kernels.h"

namespace tessera::cpu::avx512 {

void product_codes_g128(const IntegerProduct& job);
void product_codes_w4(const IntegerProduct& job);
void product_bytes(const IntegerProduct& job);
void expand_g128(const uint8_t* panel, size_t columns, uint8_t* bytes);
void expand_w4(const uint8_t* panel, size_t columns, uint8_t* bytes);

void product_f32(const FloatProduct& job);
void product_f16(const FloatProduct& job);
void product_bf16(const FloatProduct& job);      // widened to f32
void product_bf16_dot(const FloatProduct& job);  // vdpbf16ps, where the machine has AVX512-BF16

void rms_norm(const float* x, const float* residual, float* sum, const float* gain, float epsilon, size_t n,
              float* y);
void quantize_row(const float* x, size_t n, uint8_t* q8_row);
void round_row(const float* x, size_t n, uint8_t* bf16_row);
void silu_gate(const float* gate, const float* up, size_t n, float* y);
void rotate_head(const float* x, const float* cosines, const float* sines, size_t half, float* y);

float maximum(const float* values, size_t n);

// Table schemes: products of codes and expansion of a panel, for every kind of code, and products of expanded
// panels. _vbmi: where the machine has AVX512-VBMI; _bf16: with bfloat16 activations, where it has
// AVX512-BF16.
void product_lut2(const TableProduct& job);
void product_lut3(const TableProduct& job);
void product_lut4(const TableProduct& job);
void product_int4(const TableProduct& job);
void product_lut2_vbmi(const TableProduct& job);
void product_lut3_vbmi(const TableProduct& job);
void product_lut4_vbmi(const TableProduct& job);
void product_lut2_bf16(const TableProduct& job);
void product_lut3_bf16(const TableProduct& job);
void product_lut4_bf16(const TableProduct& job);
void product_int4_bf16(const TableProduct& job);
void expand_lut2(const uint8_t* panel, size_t columns, size_t group, const float* table,
                 const ExpandedPanel& out);
void expand_lut3(const uint8_t* panel, size_t columns, size_t group, const float* table,
                 const ExpandedPanel& out);
void expand_lut4(const uint8_t* panel, size_t columns, size_t group, const float* table,
                 const ExpandedPanel& out);
void expand_int4(const uint8_t* panel, size_t columns, size_t group, const float* table,
                 const ExpandedPanel& out);
void expand_lut2_vbmi(const uint8_t* panel, size_t columns, size_t group, const float* table,
                      const ExpandedPanel& out);
void expand_lut3_vbmi(const uint8_t* panel, size_t columns, size_t group, const float* table,
                      const ExpandedPanel& out);
void expand_lut4_vbmi(const uint8_t* panel, size_t columns, size_t group, const float* table,
                      const ExpandedPanel& out);
void expand_lut2_bf16(const uint8_t* panel, size_t columns, size_t group, const float* table,
                      const ExpandedPanel& out);
void expand_lut3_bf16(const uint8_t* panel, size_t columns, size_t group, const float* table,
                      const ExpandedPanel& out);
void expand_lut4_bf16(const uint8_t* panel, size_t columns, size_t group, const float* table,
                      const ExpandedPanel& out);
void expand_int4_bf16(const uint8_t* panel, size_t columns, size_t group, const float* table,
                      const ExpandedPanel& out);
void product_expanded(const ExpandedProduct& job);
void product_expanded_bf16(const ExpandedProduct& job);

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

}  // namespace tessera::cpu::avx512
