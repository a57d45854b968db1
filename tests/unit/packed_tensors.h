// Stored tensors with random or given contents, packed here by the index maps alone, beside what they mean.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "gguf-like-format/float_types.h"
#include "gguf-like-format/stored_tensor.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera::rig {

using Random = std::mt19937_64;

inline size_t pick(Random& random, size_t low, size_t high) {  // both ends included
  return std::uniform_int_distribution<size_t>(low, high)(random);
}

inline float normal(Random& random) { return std::normal_distribution<float>(0.0f, 1.0f)(random); }

// A stored tensor that owns its bytes, with what they mean.
struct PackedTensor {
  std::string name;
  Scheme scheme = Scheme::f32;
  std::vector<uint64_t> shape;
  std::vector<std::byte> bytes;
  std::vector<double> values;     // [rows * columns], exact
  std::vector<int32_t> integers;  // integer schemes: code - offset, so that value = scales[row] * integer;
                                  // scales per group: the code (less 128 under int8), or
                                  // 127 * table[code] with int8 activations
  std::vector<float> scales;      // integer schemes: one per row; scales per group: [rows][groups]
  std::vector<float> zeros;       // scales per group: [rows][groups], 0 without zero points
  std::vector<float> minimums;    // likewise, 0 without minimums

  StoredTensor view() const { return {name, scheme, shape, bytes}; }
  size_t columns() const { return static_cast<size_t>(shape.back()); }
  size_t rows() const { return shape.size() == 2 ? static_cast<size_t>(shape[0]) : 1; }
};

namespace detail {

template <class Value>
void put(PackedTensor& tensor, size_t byte, Value value) {
  if (byte + sizeof value > tensor.bytes.size()) throw std::logic_error("op rig: packed past the end");
  std::memcpy(tensor.bytes.data() + byte, &value, sizeof value);
}

inline void put_nibble(PackedTensor& tensor, size_t panel, tile::Nibble where, unsigned code) {
  std::byte& byte = tensor.bytes.at(panel + where.byte);
  byte |= static_cast<std::byte>(where.high ? code << 4 : code);
}

inline PackedTensor empty_tensor(std::string name, Scheme scheme, std::vector<uint64_t> shape) {
  PackedTensor tensor;
  tensor.name = std::move(name);
  tensor.scheme = scheme;
  tensor.shape = std::move(shape);
  tensor.bytes.resize(static_cast<size_t>(stored_bytes(scheme, tensor.shape).value()));
  return tensor;
}

// Fills the integer schemes with random codes over their whole valid range; padding has code = zero point.
inline void fill_integer_row(Random& random, PackedTensor& tensor, size_t row) {
  const size_t columns = tensor.columns();
  const bool real = row < tensor.rows();
  const size_t padded = padded_columns(tensor.scheme, columns);
  const size_t panel = row / tile::kPanelRows * panel_bytes(tensor.scheme, columns);
  const size_t r = row % tile::kPanelRows;
  const RowTail tail = row_tail(tensor.scheme, tensor.rows(), columns);
  const float scale = real ? std::ldexp(std::abs(normal(random)) + 0.1f, -8) : 0.0f;
  put(tensor, tail.scales + 4 * row, scale);
  if (real) tensor.scales.push_back(scale);
  const unsigned row_zero = static_cast<unsigned>(pick(random, 0, 15));
  if (tensor.scheme == Scheme::w4a8) put(tensor, tail.zeros + row, static_cast<uint8_t>(row_zero));
  int s1 = 1;
  int zero = 0;
  for (size_t k = 0; k < padded; ++k) {
    const bool inside = real && k < columns;
    int integer = 0;
    if (tensor.scheme == Scheme::w8a8) {
      integer = inside ? static_cast<int>(pick(random, 0, 254)) - 127 : 0;
      put(tensor, panel + tile::byte_in_panel(r, k), static_cast<uint8_t>(integer + 128));
    } else if (tensor.scheme == Scheme::w4a8) {
      const unsigned code = inside ? static_cast<unsigned>(pick(random, 0, 15)) : row_zero;
      integer = static_cast<int>(code) - static_cast<int>(row_zero);
      put_nibble(tensor, panel, tile::nibble_in_panel(r, k), code);
    } else {
      if (k % tile::kGroupColumns == 0) {
        s1 = static_cast<int>(pick(random, 1, 16));
        zero = static_cast<int>(pick(random, 0, static_cast<size_t>(std::min(15, 127 / s1))));
        const size_t group = k / tile::kGroupColumns;
        put(tensor, panel + tile::group_scale_byte(r, group), static_cast<uint8_t>(s1));
        put(tensor, panel + tile::group_offset_byte(r, group), static_cast<uint8_t>(128 - zero * s1));
      }
      // Any code whose meaning stays within the -127 … 127 that the scheme guarantees.
      const int lowest = std::max(0, zero - 127 / s1);
      const int highest = std::min(15, zero + 127 / s1);
      const int code =
          inside ? static_cast<int>(pick(random, static_cast<size_t>(lowest), static_cast<size_t>(highest)))
                 : zero;
      integer = (code - zero) * s1;
      put_nibble(tensor, panel, tile::nibble_in_grouped_panel(r, k), static_cast<unsigned>(code));
    }
    if (inside) {
      tensor.integers.push_back(integer);
      tensor.values.push_back(double{scale} * integer);
    }
  }
}

// Sets bits that are still zero.
inline void put_code(PackedTensor& tensor, size_t unit, unsigned bits, tile::CodeBits where, unsigned code) {
  tensor.bytes.at(unit + where.byte) |=
      static_cast<std::byte>((code & ((1u << where.low) - 1)) << where.shift);
  if (where.low < bits)
    tensor.bytes.at(unit + where.high_byte) |=
        static_cast<std::byte>((code >> where.low) << where.high_shift);
}

// What every code stands for: any bfloat16 values, or any steps of 1/127, in a table; else the code itself,
// less 128 under int8.
inline std::vector<float> random_table(Random& random, const SchemeFacts& facts) {
  std::vector<float> table(std::max<size_t>(16, size_t{1} << facts.bits), 0.0f);
  for (size_t code = 0; code < size_t{1} << facts.bits; ++code) {
    const int step = static_cast<int>(pick(random, 0, 254)) - 127;
    const bool int8 = facts.activations == ActivationType::int8;
    table[code] = facts.kind == CodeKind::int8 ? static_cast<float>(code) - 128.0f
                  : !facts.table               ? static_cast<float>(code)
                  : int8                       ? static_cast<float>(step) / 127.0f
                                               : bf16_to_f32(f32_to_bf16(40.0f * normal(random)));
  }
  if (facts.table && pick(random, 0, 1) == 0) table[0] = -1.0f;
  if (facts.table && pick(random, 0, 1) == 0) table[1] = 1.0f;
  return table;
}

// Of either sign.
inline float random_f16(Random& random, float least, float most) {
  const float size = std::uniform_real_distribution<float>(least, most)(random);
  return f16_to_f32(f32_to_f16(pick(random, 0, 1) == 0 ? size : -size));
}

// The levels of one group of a row, at random, put where they belong.
inline void put_levels(Random& random, PackedTensor& tensor, size_t panel, size_t r, size_t g) {
  const SchemeFacts& facts = scheme_facts(tensor.scheme);
  const bool offsets = facts.offset != GroupOffset::none;
  float scale = pick(random, 0, 20) == 0 ? 0.0f : random_f16(random, 1e-4f, 1e-2f);
  float zero = 0;
  float minimum = facts.offset == GroupOffset::minimum ? random_f16(random, 0.0f, 5e-2f) : 0.0f;
  if (facts.offset == GroupOffset::zero_point)
    zero = pick(random, 0, 1) == 0 ? static_cast<float>(pick(random, 0, 15))
                                   : std::fabs(random_f16(random, 0.0f, 15.0f));
  if (facts.kind == CodeKind::int4k) {
    const size_t scale_at = panel + tile::nested_scale_byte(r, g / tile::kNestedGroups);
    const size_t minimum_at = panel + tile::nested_minimum_byte(r, g / tile::kNestedGroups);
    if (g % tile::kNestedGroups == 0) {
      put(tensor, scale_at, f32_to_f16(scale / 16));
      put(tensor, minimum_at, f32_to_f16(minimum / 16));
    }
    uint16_t d = 0;
    uint16_t dmin = 0;
    std::memcpy(&d, &tensor.bytes[scale_at], 2);
    std::memcpy(&dmin, &tensor.bytes[minimum_at], 2);
    const auto s = static_cast<uint8_t>(pick(random, 0, 255));
    const auto m = static_cast<uint8_t>(pick(random, 0, 255));
    put(tensor, panel + tile::nested_group_scale_byte(r, g), s);
    put(tensor, panel + tile::nested_group_minimum_byte(r, g), m);
    scale = f16_to_f32(d) * static_cast<float>(s);
    minimum = -f16_to_f32(dmin) * static_cast<float>(m);
  } else {
    put(tensor, panel + tile::table_scale_byte(facts.bits, facts.group, offsets, r, g), f32_to_f16(scale));
    if (offsets)
      put(tensor, panel + tile::table_zero_byte(facts.bits, facts.group, r, g),
          f32_to_f16(facts.offset == GroupOffset::minimum ? minimum : zero));
  }
  tensor.scales.push_back(scale);
  tensor.zeros.push_back(zero);
  tensor.minimums.push_back(minimum);
}

// Fills a scheme with scales per group with random codes and levels, in the padding columns too, where
// activations are zero; of padding columns only those that share a group with others are kept in scales.
inline void fill_group_matrix(Random& random, PackedTensor& tensor) {
  const SchemeFacts& facts = scheme_facts(tensor.scheme);
  const size_t columns = tensor.columns();
  const RowTail tail = row_tail(tensor.scheme, tensor.rows(), columns);
  const std::vector<float> table = random_table(random, facts);
  for (size_t i = 0; facts.table && i < 16; ++i) put(tensor, tail.table + 4 * i, table[i]);
  for (size_t row = 0; row < tensor.rows(); ++row) {
    const size_t panel = row / tile::kPanelRows * panel_bytes(tensor.scheme, columns);
    const size_t r = row % tile::kPanelRows;
    const size_t groups = (columns + facts.group - 1) / facts.group;
    for (size_t k = 0; k < padded_columns(tensor.scheme, columns); ++k) {
      if (k % facts.group == 0) put_levels(random, tensor, panel, r, k / facts.group);
      const unsigned code = static_cast<unsigned>(pick(random, 0, (size_t{1} << facts.bits) - 1));
      const size_t unit =
          facts.kind == CodeKind::int4k
              ? tile::nested_unit_byte(k)
              : tile::table_unit_byte(facts.bits, facts.group, facts.offset != GroupOffset::none, k);
      put_code(tensor, panel + unit, facts.bits,
               tile::code_in_unit(facts.bits, r, k % tile::kTableUnitColumns), code);
      if (k >= columns) continue;
      const bool steps = facts.table && facts.activations == ActivationType::int8;
      tensor.integers.push_back(steps ? static_cast<int32_t>(std::lround(127.0f * table[code]))
                                : facts.kind == CodeKind::int8 ? static_cast<int32_t>(code) - 128
                                                               : static_cast<int32_t>(code));
      tensor.values.push_back(double{tensor.scales.back()} *
                                  (double{table[code]} - double{tensor.zeros.back()}) +
                              double{tensor.minimums.back()});
    }
    for (std::vector<float>* levels : {&tensor.scales, &tensor.zeros, &tensor.minimums})
      levels->resize((row + 1) * groups);
  }
}

inline void put_float(PackedTensor& tensor, size_t row, size_t column, float value) {
  const size_t panel = row / tile::kPanelRows * panel_bytes(tensor.scheme, tensor.columns());
  const size_t r = row % tile::kPanelRows;
  double& meaning = tensor.values[row * tensor.columns() + column];
  if (tensor.scheme == Scheme::f32) {
    put(tensor, panel + 4 * tile::element_in_panel(r, column), value);
    meaning = value;
  } else if (tensor.scheme == Scheme::f16) {
    put(tensor, panel + 2 * tile::element_in_panel(r, column), f32_to_f16(value));
    meaning = f16_to_f32(f32_to_f16(value));
  } else {
    put(tensor, panel + 2 * tile::bf16_in_panel(r, column), f32_to_bf16(value));
    meaning = bf16_to_f32(f32_to_bf16(value));
  }
}

}  // namespace detail

// An f32 vector with the given entries.
inline PackedTensor packed_vector(std::string name, std::span<const float> entries) {
  PackedTensor tensor = detail::empty_tensor(std::move(name), Scheme::f32, {entries.size()});
  std::memcpy(tensor.bytes.data(), entries.data(), entries.size_bytes());
  tensor.values.assign(entries.begin(), entries.end());
  return tensor;
}

// An order of columns with the given entries.
inline PackedTensor packed_order(std::string name, std::span<const uint32_t> entries) {
  PackedTensor tensor = detail::empty_tensor(std::move(name), Scheme::u32, {entries.size()});
  std::memcpy(tensor.bytes.data(), entries.data(), entries.size_bytes());
  return tensor;
}

inline PackedTensor random_vector(Random& random, std::string name, size_t length) {
  std::vector<float> entries(length);
  for (float& entry : entries) entry = 1.0f + 0.5f * normal(random);
  return packed_vector(std::move(name), entries);
}

// An f32, f16 or bf16 matrix with the given entries, [rows * columns].
inline PackedTensor packed_matrix(std::string name, Scheme scheme, size_t rows, size_t columns,
                                  std::span<const float> entries) {
  PackedTensor tensor = detail::empty_tensor(std::move(name), scheme, {rows, columns});
  tensor.values.resize(rows * columns);
  for (size_t i = 0; i < entries.size(); ++i) detail::put_float(tensor, i / columns, i % columns, entries[i]);
  return tensor;
}

// A matrix of any scheme: normal values, or random codes over all that the scheme allows.
inline PackedTensor random_matrix(Random& random, std::string name, Scheme scheme, size_t rows,
                                  size_t columns) {
  if (activation_type(scheme) == ActivationType::f32) {
    std::vector<float> entries(rows * columns);
    for (float& entry : entries) entry = normal(random);
    return packed_matrix(std::move(name), scheme, rows, columns, entries);
  }
  PackedTensor tensor = detail::empty_tensor(std::move(name), scheme, {rows, columns});
  if (scheme_facts(scheme).group_scales()) {
    detail::fill_group_matrix(random, tensor);
    return tensor;
  }
  for (size_t row = 0; row < tile::round_up(rows, tile::kPanelRows); ++row)
    detail::fill_integer_row(random, tensor, row);
  return tensor;
}

// The matrix that turns a bf16 row into its values: entry 1 of the table is 1, all scales are 1.
inline PackedTensor bf16_identity_matrix(std::string name, size_t columns) {
  const TableFormat format{2, 32, false, false};
  PackedTensor tensor = detail::empty_tensor(std::move(name), table_scheme(format), {columns, columns});
  detail::put(tensor, row_tail(tensor.scheme, columns, columns).table + 4, 1.0f);
  for (size_t row = 0; row < columns; ++row) {
    const size_t panel = row / tile::kPanelRows * panel_bytes(tensor.scheme, columns);
    const size_t r = row % tile::kPanelRows;
    for (size_t g = 0; g * format.group < columns; ++g)
      detail::put(tensor, panel + tile::table_scale_byte(format.bits, format.group, false, r, g),
                  f32_to_f16(1.0f));
    detail::put_code(tensor, panel + tile::table_unit_byte(format.bits, format.group, false, row),
                     format.bits, tile::code_in_unit(format.bits, r, row % tile::kTableUnitColumns), 1);
  }
  return tensor;
}

// The w8a8 matrix that turns a q8 row into scale * code.
inline PackedTensor identity_matrix(std::string name, size_t columns) {
  PackedTensor tensor = detail::empty_tensor(std::move(name), Scheme::w8a8, {columns, columns});
  std::fill(tensor.bytes.begin(), tensor.bytes.end(), std::byte{128});
  const RowTail tail = row_tail(Scheme::w8a8, columns, columns);
  for (size_t row = 0; row < tile::round_up(columns, tile::kPanelRows); ++row)
    detail::put(tensor, tail.scales + 4 * row, row < columns ? 1.0f : 0.0f);
  for (size_t row = 0; row < columns; ++row) {
    const size_t panel = row / tile::kPanelRows * panel_bytes(Scheme::w8a8, columns);
    detail::put(tensor, panel + tile::byte_in_panel(row % tile::kPanelRows, row), uint8_t{129});
  }
  return tensor;
}

// Rows of an input table: mostly normal, with outliers, an all-zero row, a constant row, tiny values, and
// exact halves of codes (largest magnitude 127, so that the scale is 1 and every value lies on a rounding
// tie).
inline PackedTensor input_table(Random& random, std::string name, size_t rows, size_t columns,
                                float outlier = 100.0f, float largest_tie = 127.0f) {
  std::vector<float> entries(rows * columns);
  for (size_t row = 0; row < rows; ++row) {
    for (size_t i = 0; i < columns; ++i) {
      float& entry = entries[row * columns + i];
      entry = normal(random);
      if (row % 8 == 1 && pick(random, 0, 30) == 0) entry *= outlier;
      if (row == 2) entry = 0.0f;
      if (row == 3) entry = -0.7f;
      if (row == 4) entry *= 1e-20f;
      if (row == 5)
        entry = (i == 0 ? 127.0f : static_cast<float>(static_cast<int>(pick(random, 0, 252)) - 126) + 0.5f) *
                (largest_tie / 127.0f);
    }
  }
  return packed_matrix(std::move(name), Scheme::f32, rows, columns, entries);
}

}  // namespace tessera::rig
