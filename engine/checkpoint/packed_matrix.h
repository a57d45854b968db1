// A matrix that a checkpoint holds as codes of a few bits with levels for groups of columns: what its codes
// stand for, so that a scheme which holds the same codes can take them over without rounding.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace tessera {

// What a code q means. Group levels are f32 values, computed as the format's own definition does.
enum class PackedMeaning : uint8_t {
  zero_point,  // scale * (q - offset)
  minimum,     // scale * q + offset
  table,       // scale * table[q]
  nested,      // (block_scale * group_scale) * q - block_minimum * group_minimum; groups lie in blocks
};

// Of a whole matrix.
struct PackedFormat {
  PackedMeaning meaning = PackedMeaning::zero_point;
  unsigned bits = 4;  // of a code, at most 8
  size_t group =
      32;            // neighbouring columns that share levels; the columns of a row where a row has one group
  size_t block = 0;  // nested: columns that share block levels, a multiple of group
  std::array<float, 16> table{};  // table: values of the codes 0 .. 2^bits - 1
  // Where groups were formed in another order of columns: stored column i is column order[i] of the matrix.
  // Empty: as they are. Codes and levels below are in stored order.
  std::vector<uint32_t> order;
};

// Some rows of such a matrix; the last group of a row may be short.
struct PackedRows {
  std::vector<uint8_t> codes;  // [rows, columns], one code in a byte
  std::vector<float> scales;   // [rows, groups]; empty for nested
  std::vector<float> offsets;  // [rows, groups] for zero_point and minimum, otherwise empty
  // For nested only.
  std::vector<float> block_scales;      // [rows, blocks]
  std::vector<float> block_minimums;    // [rows, blocks]
  std::vector<uint8_t> group_scales;    // [rows, groups]
  std::vector<uint8_t> group_minimums;  // [rows, groups]
};

}  // namespace tessera
