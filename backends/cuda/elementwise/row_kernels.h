// Kernels that work row by row. Every function queues a launch for `rows` rows and returns at once.
#pragma once

#include "backends/cuda/device/device.h"
#include "backends/cuda/layout/activation_rows.h"
#include "backends/cuda/layout/weight_views.h"
#include "graph/graph.h"

namespace tessera::cuda {

// y[row] = row tokens[row] of the table, as float32.
struct EmbedJob {
  MatrixView table;
  Global<const uint32_t> tokens;
  Rows y;
  uint32_t columns = 0;
  float multiplier = 1;  // of what is looked up
  Rows added;            // to it; base null: nothing
};
void embed(Queue& queue, const EmbedJob& job, uint32_t rows);

// The same for a table scheme.
struct EmbedTableJob {
  TableView table;
  Global<const uint32_t> tokens;
  Rows y;
  uint32_t columns = 0;
  float multiplier = 1;  // of what is looked up
  Rows added;            // to it; base null: nothing
};
void embed_table(Queue& queue, const EmbedTableJob& job, uint32_t rows);

// v = x (+ added_multiplier * added); y = v / sqrt(mean(v^2) + epsilon) * gain, rounded to y's type. sum
// receives v. With a bias v is taken less its mean, and the bias is added to y.
struct NormJob {
  Rows x;
  Rows added;  // base null: none
  Rows sum;    // base null: not stored
  Rows y;
  Global<const float> gain;         // [columns]
  Global<const float> bias;         // [columns]; null: none
  Global<const uint32_t> selected;  // index of each output row's input row; null: the same index
  uint32_t columns = 0;
  float epsilon = 0;
  float added_multiplier = 1;
  ElementType type = ElementType::f32;  // of y
};
void norm(Queue& queue, const NormJob& job, uint32_t rows);

// y = x, f32, rounded to q8 or bf16.
struct QuantizeJob {
  Rows x;
  Rows y;
  uint32_t columns = 0;
  ElementType type = ElementType::q8;  // of y
};
void quantize(Queue& queue, const QuantizeJob& job, uint32_t rows);

// y[i] = x[order[i]], f32, rounded to y's type.
struct GatherJob {
  Rows x;
  Rows y;
  Global<const uint32_t> order;  // [columns]
  uint32_t columns = 0;
  ElementType type = ElementType::q8;  // of y
};
void gather(Queue& queue, const GatherJob& job, uint32_t rows);

// A row of x holds gate, then up if there is one, of `columns` elements each: y = function(gate) * up,
// rounded to y's type.
struct GateJob {
  Rows x;
  Rows y;
  uint32_t columns = 0;
  ElementType type = ElementType::f32;  // of y
  GateFunction function = GateFunction::silu;
  bool has_up = true;
};
void gate(Queue& queue, const GateJob& job, uint32_t rows);

// y = cap * tanh(x / cap); y may be x.
struct SoftCapJob {
  Rows x;
  Rows y;
  uint32_t columns = 0;
  float cap = 0;
};
void soft_cap(Queue& queue, const SoftCapJob& job, uint32_t rows);

// y = ((x * Q^T) * gain) * Q, Q the rotation (graph/rotation.h) that these signs and this factor make up, in
// the order of its operations in single precision. y may be x.
struct RotatedGainJob {
  Rows x;
  Rows y;
  Global<const float> gain;    // [columns]
  Global<const float> signs;   // [columns]
  Global<const float> factor;  // [order, order]
  uint32_t order = 1;          // at most 1024, a divisor of columns
  uint32_t columns = 0;
};
void rotated_gain(Queue& queue, const RotatedGainJob& job, uint32_t rows);

// Every head of head_dim columns by itself: y = x / sqrt(mean(x^2) + epsilon) * gain, query_heads with one
// gain and then kv_heads with the other; later columns are copied. y may be x.
struct HeadNormJob {
  Rows x;
  Rows y;
  Global<const float> query_gain;  // [head_dim]
  Global<const float> key_gain;    // [head_dim]
  uint32_t query_heads = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  uint32_t columns = 0;
  float epsilon = 0;
};
void head_norm(Queue& queue, const HeadNormJob& job, uint32_t rows);

// cosines and sines [rows, half] of position * inverse_frequency, computed in float64.
struct RopeTableJob {
  Global<const uint32_t> positions;        // [rows]
  Global<const double> inverse_frequency;  // [half]
  Global<float> cosines;
  Global<float> sines;
  uint32_t half = 0;
};
void rope_table(Queue& queue, const RopeTableJob& job, uint32_t rows);

// Rotates the pairs (i, i + half) of every head; columns after the heads are copied. y may be x.
struct RopeJob {
  Rows x;
  Rows y;
  Global<const float> cosines;  // [rows, half]
  Global<const float> sines;
  uint32_t heads = 0;
  uint32_t head_dim = 0;
  uint32_t half = 0;
  uint32_t columns = 0;
};
void rope(Queue& queue, const RopeJob& job, uint32_t rows);

}  // namespace tessera::cuda
