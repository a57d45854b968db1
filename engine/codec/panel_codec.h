// The codecs, one for each kind of codes: how 16-row panels are written and what they mean. A kind's file
// defines its row; panel_codec.cpp lists them. Formulas: docs/quantization.md; layout:
// gguf-like-format/tile_layout.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/codec/group_levels.h"
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
template <class Levels>
struct Coded {
  const Levels* levels = nullptr;
  std::span<const uint8_t> codes;  // [columns]
};
using CodedRow = Coded<RowLevels>;
using CodedTableRow = Coded<TableLevels>;  // of a table scheme
using CodedGroupRow = Coded<GroupLevels>;  // of int8-gG, int4m and int4k

// One panel of a stored matrix and its part of the arrays after the panels, empty where the scheme has none.
template <class Byte>
struct PanelBytes {
  const SchemeFacts& scheme;
  size_t columns;              // logical
  std::span<Byte> codes;       // panel_bytes of the scheme
  std::span<Byte> row_scales;  // f32[16]
  std::span<Byte> row_zeros;   // u8[16]
  std::span<Byte> table;       // f32[16] of the whole matrix
};
using Panel = PanelBytes<std::byte>;
using StoredPanel = PanelBytes<const std::byte>;

struct Codec {
  CodeKind kind;
  // Writes a whole panel, padding included, by plain rounding. A table is read, not written.
  void (*encode)(const Rows& rows, const Panel& panel);
  // Gives row 0..15 of a panel in float64; out is [columns].
  void (*decode)(const StoredPanel& panel, size_t row, std::span<double> out);
  // Kinds with a scale per row: levels of one row of values, with the range narrowed by clip, 0 to 1; all
  // fields are set. Null for others.
  void (*fit)(const SchemeFacts& scheme, std::span<const float> values, double clip,
              RowLevels& levels) = nullptr;
  // Writes every byte that belongs to row 0..15 of a panel, padding columns and row arrays included. A kind
  // has the one that takes its levels; floats have none.
  void (*store)(const CodedRow& coded, size_t row, const Panel& panel) = nullptr;
  void (*store_table)(const CodedTableRow& coded, size_t row, const Panel& panel) = nullptr;
  void (*store_groups)(const CodedGroupRow& coded, size_t row, const Panel& panel) = nullptr;
};

// Of a kind that matrices have.
const Codec& codec_of(CodeKind kind);

extern const Codec kF32;
extern const Codec kF16;
extern const Codec kBf16;
extern const Codec kRowBytes;
extern const Codec kRowNibbles;
extern const Codec kProgressive;
extern const Codec kLut2;
extern const Codec kLut3;
extern const Codec kLut4;
extern const Codec kInt4;
extern const Codec kInt8;
extern const Codec kInt4m;
extern const Codec kInt4k;

// The encode of kinds with levels: fit(values, levels) gives the levels of a row, store writes it.
template <class Levels, class Fit>
void encode_by_levels(const Rows& rows, const Panel& panel, Fit fit,
                      void (*store)(const Coded<Levels>&, size_t, const Panel&)) {
  Levels levels;
  std::vector<uint8_t> codes(rows.columns);
  for (size_t row = 0; row < tile::kPanelRows; ++row) {
    if (row >= rows.count) {
      store({}, row, panel);
      continue;
    }
    fit(rows.row(row), levels);
    levels.encode(0, rows.row(row), codes);
    store({&levels, codes}, row, panel);
  }
}

}  // namespace tessera::panel
