// One 16-row panel of each scheme family, written and decoded row by row: the parts of the matrix codec.
// Formulas: docs/quantization.md; layout: gguf-like-format/tile_layout.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "engine/codec/row_levels.h"
#include "engine/codec/table_levels.h"
#include "gguf-like-format/scheme.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera::panel {

// The rows of a matrix that fall into one panel: 1 to 16 of them, each `columns` finite floats.
struct Rows {
  size_t count = 0;
  size_t columns = 0;
  std::span<const float> values;  // [count, columns]

  std::span<const float> row(size_t index) const { return values.subspan(index * columns, columns); }
};

// One row as it is stored: its levels and a code for every column. Rows of padding are given without codes,
// so that they mean 0.
struct CodedRow {
  const RowLevels* levels = nullptr;
  std::span<const uint8_t> codes;  // [columns]
};

// The same for a table scheme.
struct CodedTableRow {
  const TableLevels* levels = nullptr;
  std::span<const uint8_t> codes;  // [columns]
};

// Write every byte that belongs to one of the 16 rows of a panel (panel_bytes of the scheme), padding
// included, and its entry of the row arrays: `scales` is f32[16], `zeros` u8[16].
void store_progressive_groups(const CodedRow& coded, size_t columns, size_t row, std::span<std::byte> panel,
                              std::span<std::byte> scales);
void store_per_channel_4bit(const CodedRow& coded, size_t columns, size_t row, std::span<std::byte> panel,
                            std::span<std::byte> scales, std::span<std::byte> zeros);
void store_per_channel_8bit(const CodedRow& coded, size_t columns, size_t row, std::span<std::byte> panel,
                            std::span<std::byte> scales);

// Table schemes have no row arrays; padding columns hold code 0.
void store_table_groups(const TableFormat& format, const CodedTableRow& coded, size_t columns, size_t row,
                        std::span<std::byte> panel);

// Encoders of float schemes write every byte of `panel`, padding included.
void encode_f32(const Rows& rows, std::span<std::byte> panel);
void encode_f16(const Rows& rows, std::span<std::byte> panel);
void encode_bf16(const Rows& rows, std::span<std::byte> panel);

// Decoders give row 0..15 of a panel in float64; out.size() is the number of logical columns.
void decode_progressive_groups(std::span<const std::byte> panel, size_t row, float scale,
                               std::span<double> out);
void decode_per_channel_4bit(std::span<const std::byte> panel, size_t row, float scale, uint8_t zero,
                             std::span<double> out);
void decode_per_channel_8bit(std::span<const std::byte> panel, size_t row, float scale,
                             std::span<double> out);
void decode_table_groups(const TableFormat& format, std::span<const std::byte> panel,
                         std::span<const float, 16> table, size_t row, std::span<double> out);
void decode_f32(std::span<const std::byte> panel, size_t row, std::span<double> out);
void decode_f16(std::span<const std::byte> panel, size_t row, std::span<double> out);
void decode_bf16(std::span<const std::byte> panel, size_t row, std::span<double> out);

}  // namespace tessera::panel
