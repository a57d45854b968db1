// Rounds float matrices into stored bytes and back: one pair of functions for every matrix scheme.
// Formulas: docs/quantization.md; layout: gguf-like-format/tile_layout.h.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "engine/codec/panel_codec.h"
#include "gguf-like-format/scheme.h"

namespace tessera {

// Writes the table of a scheme that has one where a stored matrix has it: after its last panel. values: the
// 2^bits entries, in any order, each of which the scheme can store (stored_entry).
void write_table(Scheme scheme, size_t rows, size_t columns, std::span<const float> values,
                 std::span<std::byte> out);
void write_table(Scheme scheme, size_t rows, size_t columns, const ValueTable& table,
                 std::span<std::byte> out);
// The same with the NormalFloat table of the scheme's width; nothing for schemes without a table.
void write_default_table(Scheme scheme, size_t rows, size_t columns, std::span<std::byte> out);
// The table that a stored matrix has; its entries must be rising.
ValueTable read_table(Scheme scheme, size_t rows, size_t columns, std::span<const std::byte> stored);

// Encodes rows [first_row, first_row + row_count) of a [rows, columns] matrix by plain rounding into out,
// which holds the whole stored matrix (stored_bytes). values is [row_count, columns]. first_row must be a
// multiple of 16, and row_count too unless the block is the last. Padding is written. Blocks may be encoded
// by several threads. Values must be finite. A table scheme rounds to the table that out holds already, which
// must be rising.
void encode_rows(Scheme scheme, size_t rows, size_t columns, size_t first_row, size_t row_count,
                 std::span<const float> values, std::span<std::byte> out);

// Writes one row of codes of a scheme with row scales where encode_rows would put it, or a row of padding
// when coded is empty; row may lie anywhere in the last panel. Threads may write different rows. Nothing else
// is written, so all rows of all panels must come.
void store_row(Scheme scheme, size_t rows, size_t columns, size_t row, const panel::CodedRow& coded,
               std::span<std::byte> out);

// The same for table schemes; the table is not written. Of the levels only the groups are read.
void store_row(Scheme scheme, size_t rows, size_t columns, size_t row, const panel::CodedTableRow& coded,
               std::span<std::byte> out);

// The same for int8-gG, whose codes are given around 128, int4m and int4k.
void store_row(Scheme scheme, size_t rows, size_t columns, size_t row, const panel::CodedGroupRow& coded,
               std::span<std::byte> out);

// Reconstructs one row of a stored matrix in float64: what the codes mean, exactly. out is [columns].
void decode_row(Scheme scheme, size_t rows, size_t columns, std::span<const std::byte> stored, size_t row,
                std::span<double> out);

}  // namespace tessera
