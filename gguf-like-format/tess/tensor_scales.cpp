#include "gguf-like-format/tess/tensor_scales.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>

#include "gguf-like-format/tess/group_faults.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera {

namespace {

// Largest s1 that keeps u = q * s1 + a inside a byte; see docs/quantization.md.
constexpr uint32_t kMostGroupScale = 16;
constexpr uint32_t kMostGroupOffset = 128;
constexpr uint32_t kMostByte = 255;
constexpr uint32_t kMostZeroPoint = 15;
constexpr uint32_t kByteZero = 128;  // the byte that stands for 0 in w8a8 and in expanded groups

// One row of a stored matrix, padding rows and columns included.
class RowView {
 public:
  RowView(const StoredTensor& tensor, const RowTail& tail, size_t row)
      : tensor_(tensor),
        rule_(rule_of(scheme_facts(tensor.scheme).kind)),
        panel_(tensor.bytes.subspan(row / tile::kPanelRows * panel_bytes(tensor.scheme, tensor.columns()))),
        tail_(tail),
        row_(row),
        in_panel_(row % tile::kPanelRows),
        columns_(padded_columns(tensor.scheme, tensor.columns())) {}

  std::string fault() const {
    float scale = 0;
    std::memcpy(&scale, tensor_.bytes.subspan(tail_.scales + 4 * row_, 4).data(), 4);
    if (!std::isfinite(scale) || scale < 0 || std::signbit(scale))
      return fmt::format("scale of row {}: expected a finite positive number, found {}", row_, scale);
    if (std::string fault = (this->*rule_.codes_fault)(); !fault.empty()) return fault;
    if (scale == 0 && !all_zero())
      return fmt::format("scale of row {}: expected a positive number, found 0 for a row that is not zero",
                         row_);
    return {};
  }

 private:
  // What must hold for the codes of one kind, and which of them mean 0.
  struct Rule {
    CodeKind kind;
    std::string (RowView::*codes_fault)() const;
    bool (RowView::*means_zero)(size_t column) const;
  };
  static const Rule kRules[];
  static const Rule& rule_of(CodeKind kind);

  uint32_t byte(size_t offset) const { return std::to_integer<uint32_t>(panel_[offset]); }
  uint32_t code(tile::Nibble nibble) const {
    return nibble.high ? byte(nibble.byte) >> 4 : byte(nibble.byte) & 15u;
  }
  uint32_t zero_point() const { return std::to_integer<uint32_t>(tensor_.bytes[tail_.zeros + row_]); }

  bool all_zero() const {
    for (size_t column = 0; column < columns_; ++column)
      if (!(this->*rule_.means_zero)(column)) return false;
    return true;
  }

  // Any byte will do.
  std::string bytes_fault() const { return {}; }
  bool zero_byte(size_t column) const { return byte(tile::byte_in_panel(in_panel_, column)) == kByteZero; }

  std::string nibbles_fault() const {
    if (zero_point() <= kMostZeroPoint) return {};
    return fmt::format("zero point of row {}: expected at most {}, found {}", row_, kMostZeroPoint,
                       zero_point());
  }
  bool zero_nibble(size_t column) const {
    return code(tile::nibble_in_panel(in_panel_, column)) == zero_point();
  }

  std::string progressive_fault() const {
    const size_t width = group_columns(tensor_.scheme);
    for (size_t group = 0; group < columns_ / width; ++group) {
      const uint32_t s1 = byte(tile::group_scale_byte(in_panel_, group, width));
      const uint32_t a = byte(tile::group_offset_byte(in_panel_, group, width));
      if (s1 < 1 || s1 > kMostGroupScale)
        return fmt::format("scale of row {}, group {}: expected 1 to {}, found {}", row_, group,
                           kMostGroupScale, s1);
      if (a < 1 || a > kMostGroupOffset)
        return fmt::format("offset of row {}, group {}: expected 1 to {}, found {}", row_, group,
                           kMostGroupOffset, a);
      for (size_t column = group * width; column < (group + 1) * width; ++column) {
        const uint32_t q = code(tile::nibble_in_grouped_panel(in_panel_, column, width));
        if (q * s1 + a > kMostByte)
          return fmt::format("code of row {}, column {}: expected at most {}, found {}", row_, column,
                             (kMostByte - a) / s1, q);
      }
    }
    return {};
  }
  bool zero_progressive(size_t column) const {
    const size_t width = group_columns(tensor_.scheme);
    const uint32_t s1 = byte(tile::group_scale_byte(in_panel_, column / width, width));
    const uint32_t a = byte(tile::group_offset_byte(in_panel_, column / width, width));
    return code(tile::nibble_in_grouped_panel(in_panel_, column, width)) * s1 + a == kByteZero;
  }

  const StoredTensor& tensor_;
  const Rule& rule_;
  std::span<const std::byte> panel_;
  RowTail tail_;
  size_t row_;
  size_t in_panel_;
  size_t columns_;
};

// One for every kind with a scale per row.
const RowView::Rule RowView::kRules[] = {
    {CodeKind::row_bytes, &RowView::bytes_fault, &RowView::zero_byte},
    {CodeKind::row_nibbles, &RowView::nibbles_fault, &RowView::zero_nibble},
    {CodeKind::progressive, &RowView::progressive_fault, &RowView::zero_progressive},
};

const RowView::Rule& RowView::rule_of(CodeKind kind) {
  return *std::find_if(std::begin(kRules), std::end(kRules),
                       [&](const Rule& rule) { return rule.kind == kind; });
}

}  // namespace

std::string find_scale_fault(const StoredTensor& tensor) {
  if (tensor.shape.size() != 2) return {};
  if (scheme_facts(tensor.scheme).group_scales()) return find_group_fault(tensor);
  if (!has_row_scales(tensor.scheme)) return {};
  const RowTail tail = row_tail(tensor.scheme, tensor.rows(), tensor.columns());
  const size_t padded_rows = tile::round_up(tensor.rows(), tile::kPanelRows);
  for (size_t row = 0; row < padded_rows; ++row)
    if (std::string fault = RowView(tensor, tail, row).fault(); !fault.empty()) return fault;
  return {};
}

}  // namespace tessera
