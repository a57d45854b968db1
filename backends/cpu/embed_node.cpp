// Looks up one row of a stored matrix per token. A row is spread over the lines of its panel; reading it
// touches one dword a line, which is little beside the rest of a token's work.
#include <cstring>
#include <optional>

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

class EmbedNode : public Node {
 public:
  EmbedNode(const NodeContext& context, const Op& op, const Embed& embed)
      : y_(context.views[op.outputs[0]]), table_(context.weight(embed.table)) {}

  void execute(const RunState& run, size_t, std::span<std::byte>) override {
    const size_t rows = run.batch->tokens.size();
    for (size_t row = take(); row < rows; row = take()) look_up(run.batch->tokens[row], y_.floats(run, row));
  }

 private:
  void look_up(size_t token, float* y) const {
    const auto* bytes = reinterpret_cast<const uint8_t*>(table_.bytes.data());
    const uint8_t* panel = bytes + token / tile::kPanelRows * panel_bytes(table_.scheme, table_.columns());
    const size_t r = token % tile::kPanelRows;
    const RowTail tail = row_tail(table_.scheme, table_.rows(), table_.columns());
    const size_t columns = table_.columns();
    if (const std::optional<TableFormat> format = table_format(table_.scheme)) {
      look_up_in_table(*format, panel, r, bytes + tail.table, y);
      return;
    }
    switch (table_.scheme) {
      case Scheme::f32:
        for (size_t k = 0; k < columns; ++k) y[k] = read<float>(panel + 4 * tile::element_in_panel(r, k));
        return;
      case Scheme::f16:
        for (size_t k = 0; k < columns; ++k) {
          y[k] = f16_to_f32(read<uint16_t>(panel + 2 * tile::element_in_panel(r, k)));
        }
        return;
      case Scheme::bf16:
        for (size_t k = 0; k < columns; ++k) {
          y[k] = bf16_to_f32(read<uint16_t>(panel + 2 * tile::bf16_in_panel(r, k)));
        }
        return;
      case Scheme::w8a8: {
        const auto scale = read<float>(bytes + tail.scales + 4 * token);
        for (size_t k = 0; k < columns; ++k) {
          y[k] = static_cast<float>(static_cast<int>(panel[tile::byte_in_panel(r, k)]) - 128) * scale;
        }
        return;
      }
      case Scheme::w4a8: {
        const auto scale = read<float>(bytes + tail.scales + 4 * token);
        const int zero = bytes[tail.zeros + token];
        for (size_t k = 0; k < columns; ++k) {
          const auto code = static_cast<int>(code_at(panel, tile::nibble_in_panel(r, k)));
          y[k] = static_cast<float>(code - zero) * scale;
        }
        return;
      }
      case Scheme::w4a8_g128: {
        const auto scale = read<float>(bytes + tail.scales + 4 * token);
        for (size_t k = 0; k < columns; ++k) {
          const size_t g = k / tile::kGroupColumns;
          const unsigned u =
              code_at(panel, tile::nibble_in_grouped_panel(r, k)) * panel[tile::group_scale_byte(r, g)] +
              panel[tile::group_offset_byte(r, g)];
          y[k] = static_cast<float>(static_cast<int>(u) - 128) * scale;
        }
        return;
      }
      case Scheme::u8:
      case Scheme::u32:
        return;  // check_graph lets no data tensor get here
    }
  }

  void look_up_in_table(const TableFormat& format, const uint8_t* panel, size_t r, const uint8_t* table,
                        float* y) const {
    const auto f16_at = [&](size_t byte) { return f16_to_f32(read<uint16_t>(panel + byte)); };
    for (size_t k = 0; k < table_.columns(); ++k) {
      const size_t g = k / format.group;
      const tile::CodeBits bits = tile::code_in_unit(format.bits, r, k % tile::kTableUnitColumns);
      const uint8_t* unit = panel + tile::table_unit_byte(format.bits, format.group, format.zero_points, k);
      unsigned code = (unit[bits.byte] >> bits.shift) & ((1u << bits.low) - 1u);
      if (bits.low < format.bits) code |= ((unit[bits.high_byte] >> bits.high_shift) & 1u) << bits.low;
      const float scale = f16_at(tile::table_scale_byte(format.bits, format.group, format.zero_points, r, g));
      const float entry =
          format.zero_points
              ? static_cast<float>(code) - f16_at(tile::table_zero_byte(format.bits, format.group, r, g))
              : read<float>(table + 4 * code);
      y[k] = scale * entry;
    }
  }

  View y_;
  const StoredTensor& table_;
};

}  // namespace

std::unique_ptr<Node> make_node(const NodeContext& context, const Op& op, const Embed& embed) {
  return std::make_unique<EmbedNode>(context, op, embed);
}

}  // namespace tessera::cpu
