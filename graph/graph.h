// The computation graph: plain data that a model family describes and a backend compiles.
// Activations are two-dimensional, [rows of the batch, columns]; the number of rows is only known at run
// time.
//
// A new op is a struct here with its kName, its place in OpKind, its check in graph.cpp, its weights in
// op_weights.h and one overload in every backend; the compiler names each of these places that is missing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "gguf-like-format/scheme.h"
#include "graph/gate_function.h"

namespace tessera {

using TensorId = uint32_t;
using WeightId = uint32_t;

enum class RowExtent : uint8_t {
  tokens,   // one row per token of the batch
  outputs,  // one row per output row of the batch: a token whose logits are computed
};

enum class ElementType : uint8_t {
  f32,
  q8,    // int8 codes with one scale and group sums per row: see q8_row.h
  bf16,  // bfloat16 values with group sums: see bf16_row.h
};

// The type of the activations that a linear layer with weights of this scheme reads.
ElementType linear_input(Scheme scheme);

const char* element_name(ElementType type);  // "f32", "q8", "bf16"

struct Tensor {
  std::string name;
  RowExtent rows = RowExtent::tokens;
  size_t columns = 0;
  ElementType type = ElementType::f32;
};

// A weight that the graph reads: the stored tensor of this name. A vector has one row; one of u32 is an order
// of columns.
struct Weight {
  std::string name;
  Scheme scheme = Scheme::f32;
  size_t rows = 1;
  size_t columns = 0;
};

// tokens -> [tokens, columns of table]; a row of the table per token id, times the multiplier.
struct Embed {
  static constexpr const char* kName = "embed";
  WeightId table;
  float multiplier = 1.0f;
};

// y = x + the table's row of each token's position. The output may share the input's memory.
struct AddPosition {
  static constexpr const char* kName = "add_position";
  WeightId table;  // [positions, columns], for as many positions as the model has
};

// -> [tokens, columns] f32: the rows of Batch::input, in a graph that begins where another one ends. Only the
// first op can be one.
struct Input {
  static constexpr const char* kName = "input";
};

// y = x / sqrt(mean(x^2) + epsilon) * gain. With a second input that one, times added_multiplier, is added to
// the first before, and a second output holds the sum. With select_rows only the batch's output rows are read
// and the outputs have RowExtent::outputs. With a bias it is a layer norm (arXiv 1607.06450): x is taken less
// its mean, and the bias is added to y.
struct Norm {
  static constexpr const char* kName = "norm";
  WeightId gain;
  float epsilon;
  bool select_rows;
  float added_multiplier = 1.0f;
  std::optional<WeightId> bias = std::nullopt;  // as long as the gain
};

// y = x * W^T (+ bias) for each part; the columns of the parts' results lie side by side in y. All parts read
// the same input x, whose type is linear_input of their schemes.
struct LinearPart {
  WeightId weight;
  std::optional<WeightId> bias;  // f32 vector [rows of weight]
};
struct Linear {
  static constexpr const char* kName = "linear";
  std::vector<LinearPart> parts;
};

// Rotates pairs (i, i + rotary/2) of each head by position * inverse_frequency[i], half-split order (Hugging
// Face). Input and output are [tokens, total columns]; heads of head_dim columns start at column 0; columns
// after the rotated heads pass through unchanged. The output may share the input's memory.
struct Rope {
  static constexpr const char* kName = "rope";
  size_t heads;
  size_t head_dim;
  std::vector<double> inverse_frequency;  // rotary_dim / 2 entries
};

// Normalizes heads of head_dim columns, each by itself: y = x / sqrt(mean(x^2) + epsilon) * gain. query_heads
// from column 0 on have one gain, [head_dim], the kv_heads after them the other. Input and output are
// [tokens, total columns]; columns after these heads pass through unchanged. The output may share the input's
// memory.
struct HeadNorm {
  static constexpr const char* kName = "head_norm";
  WeightId query_gain;
  WeightId key_gain;
  size_t query_heads;
  size_t kv_heads;
  size_t head_dim;
  float epsilon;
};

// Input [tokens, (query_heads + 2 kv_heads) * head_dim] holds q, k, v side by side. Appends k and v of every
// token to its sequence's KV pages, then attends causally: softmax(scale * q k^T) v. With a window a token
// sees that many positions up to its own, itself among them. With a soft cap c a scaled score s becomes
// c * tanh(s / c). With ALiBi (arXiv 2108.12409) a score loses its head's slope times the distance of the
// key. Queries from position log_scale_from on, counted from 1, are multiplied by its logarithm to the base
// log_scale_from. Output [tokens, query_heads * head_dim].
struct Attention {
  static constexpr const char* kName = "attention";
  size_t layer;
  size_t query_heads;
  size_t kv_heads;
  size_t head_dim;
  float scale;
  size_t window = 0;      // 0: all positions
  float soft_cap = 0.0f;  // 0: none
  // Slopes fall geometrically to 2^-alibi: see alibi_slope; 0: no ALiBi. Not beside a soft cap.
  float alibi = 0.0f;
  size_t log_scale_from = 0;  // 0: queries are taken as they are

  // The first position that the token at this one sees.
  size_t first_seen(size_t position) const {
    return window != 0 && position >= window ? position + 1 - window : 0;
  }
};

// Input [rows, 2 columns] holds gate and up side by side: y = function(gate) * up, rounded to the output's
// type. Without up the input is [rows, columns] and y = function(input).
struct Gate {
  static constexpr const char* kName = "gate";
  GateFunction function = GateFunction::silu;
  bool has_up = true;
};

// y = cap * tanh(x / cap), f32. The output may share the input's memory.
struct SoftCap {
  static constexpr const char* kName = "soft_cap";
  float cap;
};

// f32 -> q8 or bf16, each row by itself.
struct Quantize {
  static constexpr const char* kName = "quantize";
};

// y[i] = x[order[i]], f32 rounded to the output's type: the columns of x in the order in which matrices that
// were quantized in another order of columns ("act-order") are stored.
struct Gather {
  static constexpr const char* kName = "gather";
  WeightId order;  // u32 vector [columns] in which every column appears once
};

// y = ((x * Q^T) * gain) * Q, f32, with Q the Rotation (rotation.h) of x's columns: the gain of a norm in a
// model whose residual stream and head are rotated by Q. The output may share the input's memory.
struct RotatedGain {
  static constexpr const char* kName = "rotated_gain";
  static constexpr size_t kMostOrder = 1024;  // of the rotation's factor that is no power of two
  WeightId gain;
};

using OpKind = std::variant<Embed, AddPosition, Input, Norm, Linear, HeadNorm, Rope, Attention, Gate, SoftCap,
                            Quantize, Gather, RotatedGain>;

struct Op {
  std::string name;
  OpKind kind;
  std::vector<TensorId> inputs;
  std::vector<TensorId> outputs;
};

struct Graph {
  std::vector<Tensor> tensors;
  std::vector<Weight> weights;
  std::vector<Op> ops;  // in an order that can be run
  TensorId logits = 0;  // [outputs, vocabulary] f32
};

const char* op_name(const OpKind& kind);  // "embed", "norm", …

// Whether the op's output may share the memory of its input.
bool can_work_in_place(const OpKind& kind);

// Calls f(op, kind) for every op of one kind, in order: for_each_op<Rope>(graph, [](const Op&, const Rope&)
// …).
template <class Kind, class Function>
void for_each_op(const Graph& graph, Function&& f) {
  for (const Op& op : graph.ops) {
    if (const Kind* kind = std::get_if<Kind>(&op.kind)) f(op, *kind);
  }
}

// One line that names the first op whose ids, shapes or types do not fit together; empty when the graph is
// sound.
std::string check_graph(const Graph& graph);

// Of the query head of this number, with the op's alibi: 2^(-alibi (head + 1) / heads), and where the number
// of heads is no power of two, those of the next smaller one, then every second one of the next larger one.
float alibi_slope(const Attention& attention, size_t head);

// What the query at a position is multiplied by besides the scale.
float log_scale(const Attention& attention, size_t position);

// Columns of Batch::input for a sound graph; 0 when it has no input op.
size_t input_columns(const Graph& graph);

// Graphviz text of the graph, one node per op with its weights, one edge per tensor with its shape.
std::string graph_to_dot(const Graph& graph);

}  // namespace tessera
