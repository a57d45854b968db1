// Chooses the kernel for a range of panels: few tokens read codes directly; many tokens expand a block of
// panels to values once, in cache, and reuse it for every token.
#include "backends/cpu/matrix_part.h"

#include <algorithm>
#include <cstring>

#include "gguf-like-format/tile_layout.h"
#include "graph/q8_row.h"

namespace tessera::cpu {

namespace {

bool has_codes(Scheme scheme) { return scheme == Scheme::w4a8 || scheme == Scheme::w4a8_g128; }

TableCodes codes_of(const TableFormat& format) {
  if (format.zero_points) return kInt4;
  return format.bits == 2 ? kLut2 : format.bits == 3 ? kLut3 : kLut4;
}

const TableKernels& kernels_of(const Kernels& kernels, const TableFormat& format) {
  return format.int8_activations ? kernels.table_int8 : kernels.table_bf16;
}

// An expanded panel of a table scheme in scratch: values, then scales, then zero points.
struct ExpandedLayout {
  size_t values;
  size_t scales;
  size_t bytes;

  ExpandedLayout(const TableFormat& format, size_t columns)
      : values(columns * tile::kPanelRows * (format.int8_activations ? 1 : 2)),
        scales(columns / format.group * tile::kPanelRows * sizeof(float)),
        bytes(values + scales * (format.zero_points ? 2 : 1)) {}
};

size_t stride_of(const View& y) { return y.base == nullptr ? y.columns : y.stride / sizeof(float); }

}  // namespace

MatrixPart::MatrixPart(const Kernels& kernels, const StoredTensor& weight, const float* bias, size_t y_column)
    : kernels_(kernels),
      scheme_(weight.scheme),
      format_(table_format(weight.scheme)),
      base_(reinterpret_cast<const uint8_t*>(weight.bytes.data())),
      bytes_(weight.bytes.size()),
      panel_bytes_(tessera::panel_bytes(weight.scheme, weight.columns())),
      rows_(weight.rows()),
      stored_columns_(padded_columns(weight.scheme, weight.columns())),
      bias_(bias),
      y_column_(y_column) {
  const RowTail tail = row_tail(scheme_, rows_, weight.columns());
  if (has_row_scales(scheme_)) scales_ = reinterpret_cast<const float*>(base_ + tail.scales);
  if (scheme_ == Scheme::w4a8) zeros_ = base_ + tail.zeros;
  if (format_ && !format_->zero_points) std::memcpy(table_.data(), base_ + tail.table, sizeof table_);
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

size_t MatrixPart::expanded_bytes() const {
  if (format_) return ExpandedLayout(*format_, stored_columns_).bytes;
  return has_codes(scheme_) ? stored_columns_ * tile::kPanelRows : 0;
}

size_t MatrixPart::rows_of(PanelRange range) const {
  return std::min(range.count * tile::kPanelRows, rows_ - range.first * tile::kPanelRows);
}

void MatrixPart::multiply(const RunState& run, const View& x, const View& y, PanelRange range,
                          std::span<std::byte> scratch) const {
  if (format_) {
    multiply_table(run, x, y, range, scratch);
  } else if (scales_ != nullptr) {
    multiply_row_scaled(run, x, y, range, scratch);
  } else {
    multiply_floats(run, x, y, range);
  }
}

void MatrixPart::multiply_row_scaled(const RunState& run, const View& x, const View& y, PanelRange range,
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
  const NibbleKernels& codes =
      scheme_ == Scheme::w4a8 ? kernels_.integers.row_nibbles : kernels_.integers.progressive;
  if (has_codes(scheme_) && tokens <= kernels_.integers.code_tokens) {
    codes.product(job);
    return;
  }
  if (has_codes(scheme_)) {
    auto* expanded = reinterpret_cast<uint8_t*>(scratch.data());
    job.panels = expanded;
    job.panel_stride = expanded_bytes();
    for (size_t p = 0; p < range.count; ++p)
      codes.expand(panels + p * panel_bytes_, stored_columns_, expanded + p * job.panel_stride);
  }
  kernels_.integers.product_bytes(job);
}

void MatrixPart::multiply_table(const RunState& run, const View& x, const View& y, PanelRange range,
                                std::span<std::byte> scratch) const {
  const TableKernels& kernels = kernels_of(kernels_, *format_);
  const TableCodes codes = codes_of(*format_);
  const size_t first_row = range.first * tile::kPanelRows;
  const size_t tokens = y.rows(run);
  const uint8_t* panels = base_ + range.first * panel_bytes_;
  const float* bias = bias_ != nullptr ? bias_ + first_row : nullptr;
  float* target = y.floats(run, 0) + y_column_ + first_row;
  if (tokens <= kernels.code_tokens) {
    kernels.codes[codes].product({
        .panels = panels,
        .panel_stride = panel_bytes_,
        .rows = rows_of(range),
        .columns = stored_columns_,
        .group = format_->group,
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
  const ExpandedLayout layout(*format_, stored_columns_);
  const auto panel_at = [&](size_t p) {
    uint8_t* at = reinterpret_cast<uint8_t*>(scratch.data()) + p * layout.bytes;
    auto* scales = reinterpret_cast<float*>(at + layout.values);
    auto* zeros = reinterpret_cast<float*>(at + layout.values + layout.scales);
    return ExpandedPanel{at, scales, format_->zero_points ? zeros : nullptr};
  };
  for (size_t p = 0; p < range.count; ++p)
    kernels.codes[codes].expand(panels + p * panel_bytes_, stored_columns_, format_->group, table_.data(),
                                panel_at(p));
  const ExpandedPanel first = panel_at(0);
  kernels.product_expanded({
      .values = first.values,
      .values_stride = layout.bytes,
      .scales = first.scales,
      .zeros = first.zeros,
      .scales_stride = layout.bytes / sizeof(float),
      .rows = rows_of(range),
      .columns = stored_columns_,
      .group = format_->group,
      .x = x.bytes(0),
      .x_stride = x.stride,
      .x_columns = x.columns,
      .tokens = tokens,
      .bias = bias,
      .y = target,
      .y_stride = stride_of(y),
  });
}

void MatrixPart::multiply_floats(const RunState& run, const View& x, const View& y, PanelRange range) const {
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
  if (scheme_ == Scheme::f32) {
    kernels_.floats.product_f32(job);
  } else {
    (scheme_ == Scheme::f16 ? kernels_.floats.product_f16 : kernels_.floats.product_bf16)(job);
  }
}

}  // namespace tessera::cpu
