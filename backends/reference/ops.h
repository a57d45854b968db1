// One function per op of the graph, each over views of the arena.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "backends/reference/kv_store.h"
#include "gguf-like-format/stored_tensor.h"
#include "graph/graph.h"

namespace tessera::reference {

// An activation tensor of the current run; rows do not overlap.
struct Rows {
  std::byte* base = nullptr;
  size_t stride = 0;
  size_t count = 0;
  size_t columns = 0;
  ElementType type = ElementType::f32;

  std::byte* bytes(size_t row) const { return base + row * stride; }
  std::span<float> floats(size_t row) const {  // f32 tensors only
    return {reinterpret_cast<float*>(bytes(row)), columns};
  }
};

// Writes a row of float32 values [columns] into a tensor, rounded to the tensor's type.
void store_row(const Rows& out, size_t row, std::span<const float> values);

// Row i of out is row tokens[i] of the table.
void run_embed(const StoredTensor& table, float multiplier, std::span<const uint32_t> tokens,
               const Rows& out);

// y[row] = x[row] + row positions[row] of the table; y may be the same tensor as x.
void run_add_position(const StoredTensor& table, std::span<const size_t> positions, const Rows& x,
                      const Rows& y);

// added and sum are set for a norm of two inputs.
struct NormRows {
  Rows x;
  std::optional<Rows> added;
  Rows y;
  std::optional<Rows> sum;
};
// gain [columns], and so is bias, null for a norm without. selected holds the input row of every output row
// when the op selects rows.
void run_norm(const StoredTensor& gain, const StoredTensor* bias, const Norm& kind, const NormRows& rows,
              std::optional<std::span<const uint32_t>> selected);

// Columns [first_column, first_column + matrix rows) of y become x times the transposed matrix, plus a bias
// [matrix rows] if there is one.
void run_linear_part(const StoredTensor& matrix, const StoredTensor* bias, const Rows& x, const Rows& y,
                     size_t first_column);

// gains [head_dim]; y may be x.
void run_head_norm(const HeadNorm& kind, const StoredTensor& query_gain, const StoredTensor& key_gain,
                   const Rows& x, const Rows& y);

// positions [rows]; y may be the same tensor as x.
void run_rope(const Rope& kind, std::span<const size_t> positions, const Rows& x, const Rows& y);

// Appends the keys and values of all tokens to kv, then attends. qkv [tokens, (query_heads + 2 kv_heads) *
// head_dim], y [tokens, query_heads * head_dim].
void run_attention(const Attention& kind, std::span<const BatchSequence> sequences, KvStore& kv,
                   const Rows& qkv, const Rows& y);

// Column i of y is column order[i] of x. order [columns] is u32.
void run_gather(const StoredTensor& order, const Rows& x, const Rows& y);

// Each row of x rotated back, times gain [columns], rotated again. y may be the same tensor as x.
void run_rotated_gain(const StoredTensor& gain, const Rows& x, const Rows& y);

// gate_up [rows, 2 columns] holds gate and up side by side, or gate alone where the op has no up.
void run_gate(const Gate& kind, const Rows& gate_up, const Rows& y);

// y may be the same tensor as x.
void run_soft_cap(const SoftCap& kind, const Rows& x, const Rows& y);

}  // namespace tessera::reference
