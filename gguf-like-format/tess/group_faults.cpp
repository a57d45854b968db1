#include "gguf-like-format/tess/group_faults.h"

#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <cstring>

#include "gguf-like-format/float_types.h"
#include "gguf-like-format/level_places.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera {

namespace {

template <class Value>
Value value_at(const StoredTensor& tensor, size_t byte) {
  Value value{};
  std::memcpy(&value, tensor.bytes.subspan(byte, sizeof value).data(), sizeof value);
  return value;
}

std::string entry_fault(size_t entry, float value, const SchemeFacts& scheme) {
  const char* expected = nullptr;
  if (entry >= (size_t{1} << scheme.bits)) {
    if (value != 0) expected = "0 beyond the last code";
  } else if (scheme.activations == ActivationType::int8) {
    const float whole = std::nearbyint(value * 127.0f);
    if (!(std::fabs(value) <= 1.0f) || whole / 127.0f != value) expected = "a multiple of 1/127 up to 1";
  } else if (!std::isfinite(value) || (std::bit_cast<uint32_t>(value) & 0xffffu) != 0) {
    expected = "a finite bfloat16 value";
  }
  return expected != nullptr ? fmt::format("table entry {}: expected {}, found {}", entry, expected, value)
                             : std::string();
}

const char* offset_name(const SchemeFacts& scheme) {
  return scheme.offset == GroupOffset::zero_point ? "zero point" : "minimum";
}

}  // namespace

std::string find_group_fault(const StoredTensor& tensor) {
  const SchemeFacts& scheme = scheme_facts(tensor.scheme);
  const LevelPlaces places{scheme};
  const size_t rows = tile::round_up(tensor.rows(), tile::kPanelRows);
  const size_t levels = padded_columns(tensor.scheme, tensor.columns()) / scheme.column_pad;
  const size_t panel = panel_bytes(tensor.scheme, tensor.columns());
  for (size_t row = 0; row < rows; ++row) {
    const size_t first = row / tile::kPanelRows * panel;
    const size_t r = row % tile::kPanelRows;
    const auto fault = [&](const char* what, size_t index, size_t byte) {
      const float value = f16_to_f32(value_at<uint16_t>(tensor, first + byte));
      return std::isfinite(value) ? std::string()
                                  : fmt::format("{} of row {}, {} {}: expected a finite number, found {}",
                                                what, row, places.nested ? "block" : "group", index, value);
    };
    for (size_t index = 0; index < levels; ++index) {
      if (std::string found = fault("scale", index, places.scale(r, index)); !found.empty()) return found;
      if (!places.offsets) continue;
      std::string found = fault(offset_name(scheme), index, places.offset(r, index));
      if (!found.empty()) return found;
    }
  }
  if (!scheme.table) return {};
  const size_t table = row_tail(tensor.scheme, tensor.rows(), tensor.columns()).table;
  for (size_t entry = 0; entry < tile::kTableBytes / 4; ++entry) {
    const std::string fault = entry_fault(entry, value_at<float>(tensor, table + 4 * entry), scheme);
    if (!fault.empty()) return fault;
  }
  return {};
}

}  // namespace tessera
