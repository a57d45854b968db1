// Chooses the kernel for a range of panels: few tokens read codes directly; many tokens expand a block of
// panels to values once, in cache, and reuse it for every token.
#include "backends/cpu/matrix_part.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <iterator>

#include "gguf-like-format/tile_layout.h"
#include "graph/q8_row.h"

namespace tessera::cpu {

namespace {

// An expanded panel with scales per group in scratch: values, then scales, then zero points or minimums.
struct ExpandedLayout {
  size_t values;
  size_t scales;
  size_t bytes;

  ExpandedLayout(const SchemeFacts& scheme, size_t columns)
      : values(columns * tile::kPanelRows * (scheme.activations == ActivationType::int8 ? 1 : 2)),
        scales(columns / scheme.group * tile::kPanelRows * sizeof(float)),
        bytes(values + scales * (scheme.offset != GroupOffset::none ? 2 : 1)) {}
};

size_t stride_of(const View& y) { return y.base == nullptr ? y.columns : y.stride / sizeof(float); }

}  // namespace

struct MatrixPart::Product {
  CodeKind kind;
  size_t (MatrixPart::*expanded_bytes)() const;
  void (MatrixPart::*multiply)(const RunState&, const View& x, const View& y, PanelRange,
                               std::span<std::byte> scratch) const;
  // The kernels: one of these, or none for bytes, which are multiplied as they are.
  FloatKernel FloatKernels::*floats = nullptr;
  NibbleKernels IntegerKernels::*nibbles = nullptr;
  TableCodes table_codes = kLut2;
  GroupForm form = GroupForm::table;
};

const MatrixPart::Product MatrixPart::kProducts[] = {
    {.kind = CodeKind::f32,
     .expanded_bytes = &MatrixPart::not_expanded,
     .multiply = &MatrixPart::multiply_floats,
     .floats = &FloatKernels::product_f32},
    {.kind = CodeKind::f16,
     .expanded_bytes = &MatrixPart::not_expanded,
     .multiply = &MatrixPart::multiply_floats,
     .floats = &FloatKernels::product_f16},
    {.kind = CodeKind::bf16,
     .expanded_bytes = &MatrixPart::not_expanded,
     .multiply = &MatrixPart::multiply_floats,
     .floats = &FloatKernels::product_bf16},
    {.kind = CodeKind::row_bytes,
     .expanded_bytes = &MatrixPart::not_expanded,
     .multiply = &MatrixPart::multiply_integers},
    {.kind = CodeKind::row_nibbles,
     .expanded_bytes = &MatrixPart::expanded_nibbles,
     .multiply = &MatrixPart::multiply_integers,
     .nibbles = &IntegerKernels::row_nibbles},
    {.kind = CodeKind::progressive,
     .expanded_bytes = &MatrixPart::expanded_nibbles,
     .multiply = &MatrixPart::multiply_integers,
     .nibbles = &IntegerKernels::progressive},
    {.kind = CodeKind::lut2,
     .expanded_bytes = &MatrixPart::expanded_table,
     .multiply = &MatrixPart::multiply_table,
     .table_codes = kLut2},
    {.kind = CodeKind::lut3,
     .expanded_bytes = &MatrixPart::expanded_table,
     .multiply = &MatrixPart::multiply_table,
     .table_codes = kLut3},
    {.kind = CodeKind::lut4,
     .expanded_bytes = &MatrixPart::expanded_table,
     .multiply = &MatrixPart::multiply_table,
     .table_codes = kLut4},
    {.kind = CodeKind::int4,
     .expanded_bytes = &MatrixPart::expanded_table,
     .multiply = &MatrixPart::multiply_table,
     .table_codes = kInt4,
     .form = GroupForm::zero_points},
    {.kind = CodeKind::int8,
     .expanded_bytes = &MatrixPart::expanded_table,
     .multiply = &MatrixPart::multiply_table,
     .table_codes = kInt8,
     .form = GroupForm::bytes},
    {.kind = CodeKind::int4m,
     .expanded_bytes = &MatrixPart::expanded_table,
     .multiply = &MatrixPart::multiply_table,
     .table_codes = kInt4m,
     .form = GroupForm::minimums},
    {.kind = CodeKind::int4k,
     .expanded_bytes = &MatrixPart::expanded_table,
     .multiply = &MatrixPart::multiply_table,
     .table_codes = kInt4k,
     .form = GroupForm::minimums},
};

const MatrixPart::Product& MatrixPart::product_of(CodeKind kind) {
  const auto* found = std::find_if(std::begin(kProducts), std::end(kProducts),
                                   [&](const Product& product) { return product.kind == kind; });
  assert(found != std::end(kProducts));  // the graph's check lets no data tensor get here
  return *found;
}

MatrixPart::MatrixPart(const Kernels& kernels, const StoredTensor& weight, const float* bias, size_t y_column)
    : kernels_(kernels),
      scheme_(scheme_facts(weight.scheme)),
      product_(product_of(scheme_.kind)),
      base_(reinterpret_cast<const uint8_t*>(weight.bytes.data())),
      bytes_(weight.bytes.size()),
      panel_bytes_(tessera::panel_bytes(weight.scheme, weight.columns())),
      rows_(weight.rows()),
      stored_columns_(padded_columns(weight.scheme, weight.columns())),
      bias_(bias),
      y_column_(y_column) {
  const RowTail tail = row_tail(weight.scheme, rows_, weight.columns());
  if (scheme_.row_scales) scales_ = reinterpret_cast<const float*>(base_ + tail.scales);
  if (scheme_.row_zeros) zeros_ = base_ + tail.zeros;
  if (scheme_.table) std::memcpy(table_.data(), base_ + tail.table, sizeof table_);
}

std::span<const std::byte> MatrixPart::bytes() const {
  return {reinterpret_cast<const std::byte*>(base_), bytes_};
}

void MatrixPart::move_to(const std::byte* copy) {
  const auto* base = reinterpret_cast<const uint8_t*>(copy);
  if (scales_ != nullptr)
    scales_ = reinterpret_cast<const float*>(base + (reinterpret_cast<const uint8_t*>(scales_) - base_));
  if (zeros_ != nullptr) zeros_ = base + (zeros_ - base_);
  base_ = base;
}

size_t MatrixPart::panels() const { return (rows_ + tile::kPanelRows - 1) / tile::kPanelRows; }

size_t MatrixPart::expanded_bytes() const { return (this->*product_.expanded_bytes)(); }

size_t MatrixPart::expanded_nibbles() const { return stored_columns_ * tile::kPanelRows; }

size_t MatrixPart::expanded_table() const { return ExpandedLayout(scheme_, stored_columns_).bytes; }

size_t MatrixPart::rows_of(PanelRange range) const {
  return std::min(range.count * tile::kPanelRows, rows_ - range.first * tile::kPanelRows);
}

void MatrixPart::multiply(const RunState& run, const View& x, const View& y, PanelRange range,
                          std::span<std::byte> scratch) const {
  (this->*product_.multiply)(run, x, y, range, scratch);
}

void MatrixPart::multiply_integers(const RunState& run, const View& x, const View& y, PanelRange range,
                                   std::span<std::byte> scratch) const {
  const size_t first_row = range.first * tile::kPanelRows;
  const size_t tokens = y.rows(run);
  const uint8_t* panels = base_ + range.first * panel_bytes_;
  IntegerProduct job{
      .panels = panels,
      .panel_stride = panel_bytes_,
      .rows = rows_of(range),
      .columns = stored_columns_,
      .x = x.bytes(0),
      .x_stride = x.stride,
      .x_scale_offset = q8::scale_offset(x.columns),
      .tokens = tokens,
      .row_scale = scales_ + first_row,
      .row_zero = zeros_ != nullptr ? zeros_ + first_row : nullptr,
      .bias = bias_ != nullptr ? bias_ + first_row : nullptr,
      .y = y.floats(run, 0) + y_column_ + first_row,
      .y_stride = stride_of(y),
  };
  if (product_.nibbles != nullptr) {
    const NibbleKernels& nibbles = kernels_.integers.*product_.nibbles;
    if (tokens <= kernels_.integers.code_tokens) return nibbles.product(job);
    auto* expanded = reinterpret_cast<uint8_t*>(scratch.data());
    job.panels = expanded;
    job.panel_stride = expanded_nibbles();
    for (size_t p = 0; p < range.count; ++p)
      nibbles.expand(panels + p * panel_bytes_, stored_columns_, expanded + p * job.panel_stride);
  }
  kernels_.integers.product_bytes(job);
}

void MatrixPart::multiply_table(const RunState& run, const View& x, const View& y, PanelRange range,
                                std::span<std::byte> scratch) const {
  const TableKernels& kernels =
      scheme_.activations == ActivationType::int8 ? kernels_.table_int8 : kernels_.table_bf16;
  const TableCodeKernels& codes = kernels.codes[product_.table_codes];
  const size_t first_row = range.first * tile::kPanelRows;
  const size_t tokens = y.rows(run);
  const uint8_t* panels = base_ + range.first * panel_bytes_;
  const float* bias = bias_ != nullptr ? bias_ + first_row : nullptr;
  float* target = y.floats(run, 0) + y_column_ + first_row;
  if (tokens <= kernels.code_tokens) {
    codes.product({
        .panels = panels,
        .panel_stride = panel_bytes_,
        .rows = rows_of(range),
        .columns = stored_columns_,
        .group = scheme_.group,
        .table = table_.data(),
        .x = x.bytes(0),
        .x_stride = x.stride,
        .x_columns = x.columns,
        .tokens = tokens,
        .bias = bias,
        .y = target,
        .y_stride = stride_of(y),
    });
    return;
  }
  const ExpandedLayout layout(scheme_, stored_columns_);
  const auto panel_at = [&](size_t p) {
    uint8_t* at = reinterpret_cast<uint8_t*>(scratch.data()) + p * layout.bytes;
    auto* scales = reinterpret_cast<float*>(at + layout.values);
    auto* offsets = reinterpret_cast<float*>(at + layout.values + layout.scales);
    return ExpandedPanel{at, scales, has_offsets(product_.form) ? offsets : nullptr};
  };
  for (size_t p = 0; p < range.count; ++p)
    codes.expand(panels + p * panel_bytes_, stored_columns_, scheme_.group, table_.data(), panel_at(p));
  const ExpandedPanel first = panel_at(0);
  kernels.product_expanded({
      .form = product_.form,
      .values = first.values,
      .values_stride = layout.bytes,
      .scales = first.scales,
      .offsets = first.offsets,
      .scales_stride = layout.bytes / sizeof(float),
      .rows = rows_of(range),
      .columns = stored_columns_,
      .group = scheme_.group,
      .x = x.bytes(0),
      .x_stride = x.stride,
      .x_columns = x.columns,
      .tokens = tokens,
      .bias = bias,
      .y = target,
      .y_stride = stride_of(y),
  });
}

void MatrixPart::multiply_floats(const RunState& run, const View& x, const View& y, PanelRange range,
                                 std::span<std::byte>) const {
  const size_t first_row = range.first * tile::kPanelRows;
  const FloatProduct job{
      .panels = base_ + range.first * panel_bytes_,
      .panel_stride = panel_bytes_,
      .rows = rows_of(range),
      .columns = x.columns,
      .x = x.floats(run, 0),
      .x_stride = x.stride / sizeof(float),
      .tokens = y.rows(run),
      .bias = bias_ != nullptr ? bias_ + first_row : nullptr,
      .y = y.floats(run, 0) + y_column_ + first_row,
      .y_stride = stride_of(y),
      .accumulate = false,
  };
  (kernels_.floats.*product_.floats)(job);
}

}  // namespace tessera::cpu
