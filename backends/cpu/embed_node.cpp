// Looks up one row of a stored matrix per token, by its id or by its position. A row is spread over the lines
// of its panel; reading it touches one dword a line, which is little beside the rest of a token's work.
#include <algorithm>
#include <cassert>
#include <cstring>
#include <iterator>

#include "backends/cpu/node.h"
#include "gguf-like-format/float_types.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera::cpu {

namespace {

template <class Value>
Value read(const uint8_t* at) {
  Value value{};
  std::memcpy(&value, at, sizeof value);
  return value;
}

unsigned code_at(const uint8_t* panel, tile::Nibble at) {
  return at.high ? panel[at.byte] >> 4u : panel[at.byte] & 15u;
}

// One row of a stored matrix.
struct StoredRow {
  const StoredTensor& matrix;
  const uint8_t* bytes;  // of the whole matrix
  const uint8_t* panel;  // that holds the row
  size_t row;
  size_t in_panel;
  RowTail tail;

  StoredRow(const StoredTensor& from, size_t index)
      : matrix(from),
        bytes(reinterpret_cast<const uint8_t*>(from.bytes.data())),
        panel(bytes + index / tile::kPanelRows * panel_bytes(from.scheme, from.columns())),
        row(index),
        in_panel(index % tile::kPanelRows),
        tail(row_tail(from.scheme, from.rows(), from.columns())) {}

  size_t columns() const { return matrix.columns(); }
  float scale() const { return read<float>(bytes + tail.scales + 4 * row); }
};

void read_f32(const StoredRow& from, float* y) {
  for (size_t k = 0; k < from.columns(); ++k)
    y[k] = read<float>(from.panel + 4 * tile::element_in_panel(from.in_panel, k));
}

void read_f16(const StoredRow& from, float* y) {
  for (size_t k = 0; k < from.columns(); ++k)
    y[k] = f16_to_f32(read<uint16_t>(from.panel + 2 * tile::element_in_panel(from.in_panel, k)));
}

void read_bf16(const StoredRow& from, float* y) {
  for (size_t k = 0; k < from.columns(); ++k)
    y[k] = bf16_to_f32(read<uint16_t>(from.panel + 2 * tile::bf16_in_panel(from.in_panel, k)));
}

void read_row_bytes(const StoredRow& from, float* y) {
  const float scale = from.scale();
  for (size_t k = 0; k < from.columns(); ++k) {
    const int code = from.panel[tile::byte_in_panel(from.in_panel, k)];
    y[k] = static_cast<float>(code - 128) * scale;
  }
}

void read_row_nibbles(const StoredRow& from, float* y) {
  const float scale = from.scale();
  const int zero = from.bytes[from.tail.zeros + from.row];
  for (size_t k = 0; k < from.columns(); ++k) {
    const auto code = static_cast<int>(code_at(from.panel, tile::nibble_in_panel(from.in_panel, k)));
    y[k] = static_cast<float>(code - zero) * scale;
  }
}

void read_progressive(const StoredRow& from, float* y) {
  const float scale = from.scale();
  const size_t group = group_columns(from.matrix.scheme);
  const size_t r = from.in_panel;
  for (size_t k = 0; k < from.columns(); ++k) {
    const unsigned code = code_at(from.panel, tile::nibble_in_grouped_panel(r, k, group));
    const unsigned u = code * from.panel[tile::group_scale_byte(r, k / group, group)] +
                       from.panel[tile::group_offset_byte(r, k / group, group)];
    y[k] = static_cast<float>(static_cast<int>(u) - 128) * scale;
  }
}

float f16_at(const StoredRow& from, size_t byte) { return f16_to_f32(read<uint16_t>(from.panel + byte)); }

// unit: the first byte of the unit of 32 columns that holds column k.
unsigned unit_code(const StoredRow& from, const SchemeFacts& scheme, size_t unit_byte, size_t k) {
  const uint8_t* unit = from.panel + unit_byte;
  const tile::CodeBits bits = tile::code_in_unit(scheme.bits, from.in_panel, k % tile::kTableUnitColumns);
  unsigned code = (unit[bits.byte] >> bits.shift) & ((1u << bits.low) - 1u);
  if (bits.low < scheme.bits) code |= ((unit[bits.high_byte] >> bits.high_shift) & 1u) << bits.low;
  return code;
}

// meaning(code, scale, offset) gives a value; offset is the f16 beside the scale, or 0.
template <class Meaning>
void read_groups(const StoredRow& from, float* y, Meaning meaning) {
  const SchemeFacts& scheme = scheme_facts(from.matrix.scheme);
  const bool offsets = scheme.offset != GroupOffset::none;
  const size_t r = from.in_panel;
  for (size_t k = 0; k < from.columns(); ++k) {
    const size_t g = k / scheme.group;
    const unsigned code =
        unit_code(from, scheme, tile::table_unit_byte(scheme.bits, scheme.group, offsets, k), k);
    const float scale = f16_at(from, tile::table_scale_byte(scheme.bits, scheme.group, offsets, r, g));
    const float offset =
        offsets ? f16_at(from, tile::table_zero_byte(scheme.bits, scheme.group, r, g)) : 0.0f;
    y[k] = meaning(code, scale, offset);
  }
}

void read_table_codes(const StoredRow& from, float* y) {
  const uint8_t* table = from.bytes + from.tail.table;
  read_groups(from, y,
              [&](unsigned code, float scale, float) { return scale * read<float>(table + 4 * code); });
}

void read_int4(const StoredRow& from, float* y) {
  read_groups(from, y, [](unsigned code, float scale, float zero) {
    return scale * (static_cast<float>(code) - zero);
  });
}

void read_int8(const StoredRow& from, float* y) {
  read_groups(from, y, [](unsigned code, float scale, float) {
    return scale * static_cast<float>(static_cast<int>(code) - 128);
  });
}

// Products of scales and codes are exact in f32, here and below.
void read_int4m(const StoredRow& from, float* y) {
  read_groups(from, y, [](unsigned code, float scale, float minimum) {
    return scale * static_cast<float>(code) + minimum;
  });
}

void read_int4k(const StoredRow& from, float* y) {
  const SchemeFacts& scheme = scheme_facts(from.matrix.scheme);
  const size_t r = from.in_panel;
  for (size_t k = 0; k < from.columns(); ++k) {
    const size_t block = k / tile::kNestedBlock;
    const size_t g = k / tile::kNestedGroup;
    const auto s = static_cast<float>(from.panel[tile::nested_group_scale_byte(r, g)]);
    const auto m = static_cast<float>(from.panel[tile::nested_group_minimum_byte(r, g)]);
    const auto code = static_cast<float>(unit_code(from, scheme, tile::nested_unit_byte(k), k));
    const float product = f16_at(from, tile::nested_scale_byte(r, block)) * s * code;
    y[k] = product - f16_at(from, tile::nested_minimum_byte(r, block)) * m;
  }
}

// How a row of each kind is read: y is [columns].
struct RowReader {
  CodeKind kind;
  void (*read)(const StoredRow& from, float* y);
};
constexpr RowReader kReaders[] = {
    {CodeKind::f32, read_f32},
    {CodeKind::f16, read_f16},
    {CodeKind::bf16, read_bf16},
    {CodeKind::row_bytes, read_row_bytes},
    {CodeKind::row_nibbles, read_row_nibbles},
    {CodeKind::progressive, read_progressive},
    {CodeKind::lut2, read_table_codes},
    {CodeKind::lut3, read_table_codes},
    {CodeKind::lut4, read_table_codes},
    {CodeKind::int4, read_int4},
    {CodeKind::int8, read_int8},
    {CodeKind::int4m, read_int4m},
    {CodeKind::int4k, read_int4k},
};

const RowReader& reader_of(CodeKind kind) {
  const auto* found = std::find_if(std::begin(kReaders), std::end(kReaders),
                                   [&](const RowReader& reader) { return reader.kind == kind; });
  assert(found != std::end(kReaders));  // the graph's check lets no data tensor get here
  return *found;
}

class EmbedNode : public Node {
 public:
  EmbedNode(const NodeContext& context, const Op& op, const Embed& embed)
      : y_(context.views[op.outputs[0]]),
        table_(context.weight(embed.table)),
        multiplier_(embed.multiplier),
        reader_(reader_of(scheme_facts(table_.scheme).kind)) {}

  void execute(const RunState& run, size_t, std::span<std::byte>) override {
    const size_t rows = run.batch->tokens.size();
    for (size_t row = next_task(); row < rows; row = next_task()) {
      float* y = y_.floats(run, row);
      reader_.read({table_, run.batch->tokens[row]}, y);
      if (multiplier_ == 1.0f) continue;
      for (size_t i = 0; i < y_.columns; ++i) y[i] *= multiplier_;
    }
  }

 private:
  View y_;
  const StoredTensor& table_;
  float multiplier_;
  const RowReader& reader_;
};

class AddPositionNode : public Node {
 public:
  AddPositionNode(const NodeContext& context, const Op& op, const AddPosition& add)
      : x_(context.views[op.inputs[0]]),
        y_(context.views[op.outputs[0]]),
        table_(context.weight(add.table)),
        reader_(reader_of(scheme_facts(table_.scheme).kind)) {}

  void execute(const RunState& run, size_t, std::span<std::byte> scratch) override {
    auto* added = reinterpret_cast<float*>(scratch.data());
    const size_t rows = run.batch->tokens.size();
    for (size_t row = next_task(); row < rows; row = next_task()) {
      reader_.read({table_, run.position[row]}, added);
      const float* x = x_.floats(run, row);
      float* y = y_.floats(run, row);
      for (size_t i = 0; i < y_.columns; ++i) y[i] = x[i] + added[i];
    }
  }

  size_t scratch_bytes() const override { return y_.columns * sizeof(float); }

 private:
  View x_;
  View y_;
  const StoredTensor& table_;
  const RowReader& reader_;
};

}  // namespace

std::unique_ptr<Node> make_node(const NodeContext& context, const Op& op, const Embed& embed) {
  return std::make_unique<EmbedNode>(context, op, embed);
}

std::unique_ptr<Node> make_node(const NodeContext& context, const Op& op, const AddPosition& add) {
  return std::make_unique<AddPositionNode>(context, op, add);
}

}  // namespace tessera::cpu
