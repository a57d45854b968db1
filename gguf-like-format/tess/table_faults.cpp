#include "gguf-like-format/tess/table_faults.h"

#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <cstring>

#include "gguf-like-format/float_types.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera {

namespace {

template <class Value>
Value value_at(const StoredTensor& tensor, size_t byte) {
  Value value{};
  std::memcpy(&value, tensor.bytes.subspan(byte, sizeof value).data(), sizeof value);
  return value;
}

std::string entry_fault(size_t entry, float value, const TableFormat& format) {
  const char* expected = nullptr;
  if (entry >= (size_t{1} << format.bits)) {
    if (value != 0) expected = "0 beyond the last code";
  } else if (format.int8_activations) {
    const float whole = std::nearbyint(value * 127.0f);
    if (!(std::fabs(value) <= 1.0f) || whole / 127.0f != value) expected = "a multiple of 1/127 up to 1";
  } else if (!std::isfinite(value) || (std::bit_cast<uint32_t>(value) & 0xffffu) != 0) {
    expected = "a finite bfloat16 value";
  }
  return expected != nullptr ? fmt::format("table entry {}: expected {}, found {}", entry, expected, value)
                             : std::string();
}

}  // namespace

std::string find_table_fault(const StoredTensor& tensor, const TableFormat& format) {
  const size_t rows = tile::round_up(tensor.rows(), tile::kPanelRows);
  const size_t groups = padded_columns(tensor.scheme, tensor.columns()) / format.group;
  const size_t panel = panel_bytes(tensor.scheme, tensor.columns());
  for (size_t row = 0; row < rows; ++row) {
    const size_t first = row / tile::kPanelRows * panel;
    const size_t r = row % tile::kPanelRows;
    for (size_t g = 0; g < groups; ++g) {
      const size_t at = tile::table_scale_byte(format.bits, format.group, format.zero_points, r, g);
      const float scale = f16_to_f32(value_at<uint16_t>(tensor, first + at));
      if (!std::isfinite(scale) || std::signbit(scale))
        return fmt::format("scale of row {}, group {}: expected a finite number of at least 0, found {}", row,
                           g, scale);
      if (!format.zero_points) continue;
      const size_t zero_at = tile::table_zero_byte(format.bits, format.group, r, g);
      const float zero = f16_to_f32(value_at<uint16_t>(tensor, first + zero_at));
      if (!std::isfinite(zero))
        return fmt::format("zero point of row {}, group {}: expected a finite number, found {}", row, g,
                           zero);
    }
  }
  if (format.zero_points) return {};
  const size_t table = row_tail(tensor.scheme, tensor.rows(), tensor.columns()).table;
  for (size_t entry = 0; entry < tile::kTableBytes / 4; ++entry) {
    const std::string fault = entry_fault(entry, value_at<float>(tensor, table + 4 * entry), format);
    if (!fault.empty()) return fault;
  }
  return {};
}

}  // namespace tessera
