// The jobs an instruction set must do for the cpu backend: one table of functions per instruction set.
// Only raw pointers and plain structs here: kernel files are compiled for newer machines than the rest, so
// nothing inline that the linker might share may come with them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backends/cpu/attention_kernels.h"
#include "backends/cpu/table_kernels.h"

namespace tessera::cpu {

// One integer product: rows of quantized activations times 16-row panels, scaled and stored as floats:
// y[t][n] = (row_scale[n] * x_scale[t]) * float(sum_k u[n][k] x[t][k] - zero[n] * sum_k x[t][k]) + bias[n].
struct IntegerProduct {
  const uint8_t* panels;  // stored or expanded panels, panel_stride bytes apart
  size_t panel_stride;
  size_t rows;       // outputs to store; the last panel may be partly used
  size_t columns;    // stored columns: a multiple of 64, of 128 with groups
  const uint8_t* x;  // q8 rows (graph/q8_row.h), x_stride bytes apart
  size_t x_stride;
  size_t x_scale_offset;  // byte offset of the scale; the total follows it, then the group sums
  size_t tokens;
  const float* row_scale;   // [rows rounded up to 16]
  const uint8_t* row_zero;  // [rows rounded up to 16]; null means 128 for every row. Given to product_bytes,
                            // it also says that every byte is an expanded 4-bit code, at most 15.
  const float* bias;        // [rows] or null
  float* y;                 // [tokens][rows], y_stride floats apart
  size_t y_stride;
};

// One float product: y[t][n] = sum_k w[n][k] x[t][k] (+ bias[n], or + y[t][n] when accumulate).
struct FloatProduct {
  const void* panels;   // f32, f16 or bf16 panels
  size_t panel_stride;  // bytes
  size_t rows;
  size_t columns;  // of x; a bf16 panel may hold one more, zero, column
  const float* x;
  size_t x_stride;  // floats
  size_t tokens;
  const float* bias;  // [rows] or null
  float* y;
  size_t y_stride;  // floats
  bool accumulate;
};

struct Kernels {
  const char* name;
  bool bf16_pairs =
      false;  // whether the machine multiplies pairs of bfloat16 (backends/cpu/avx512/bf16_pairs.h)

  // Integer products. codes_*: straight from 4-bit codes, for any number of tokens; up to code_tokens this is
  // faster than expanding to bytes first. bytes: from byte panels.
  size_t code_tokens;
  void (*product_codes_g128)(const IntegerProduct&);
  void (*product_codes_w4)(const IntegerProduct&);
  void (*product_bytes)(const IntegerProduct&);
  // One panel of 4-bit codes to bytes: u = q * s1 + a with groups, u = q without. columns as stored.
  void (*expand_g128)(const uint8_t* panel, size_t columns, uint8_t* bytes);
  void (*expand_w4)(const uint8_t* panel, size_t columns, uint8_t* bytes);

  // Float products over panels of each storage type.
  void (*product_f32)(const FloatProduct&);
  void (*product_f16)(const FloatProduct&);
  void (*product_bf16)(const FloatProduct&);

  // Table schemes, with int8 and with bf16 activations.
  TableKernels table_int8;
  TableKernels table_bf16;

  // Rows. sum = x + residual when residual is given; y = sum / sqrt(mean(sum^2) + epsilon) * gain.
  void (*rms_norm)(const float* x, const float* residual, float* sum, const float* gain, float epsilon,
                   size_t n, float* y);
  void (*quantize_row)(const float* x, size_t n, uint8_t* q8_row);
  void (*round_row)(const float* x, size_t n, uint8_t* bf16_row);  // graph/bf16_row.h
  void (*silu_gate)(const float* gate, const float* up, size_t n, float* y);
  // Half-split rotation of one head in place of y: pairs (i, i + half), cosines and sines [half].
  void (*rotate_head)(const float* x, const float* cosines, const float* sines, size_t half, float* y);

  float (*maximum)(const float* values, size_t n);  // of n >= 1

  AttentionKernels attention;
};

const Kernels& portable_kernels();
const Kernels& avx2_kernels();
struct Avx512Extensions {
  bool bf16 = false;
  bool vbmi = false;
};
const Kernels& avx512_kernels(Avx512Extensions extensions);

}  // namespace tessera::cpu
