// Float products in plain loops over 16-row panels of f32, f16 or bf16.
#include "backends/cpu/portable/portable.h"
#include "gguf-like-format/float_types.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera::cpu::portable {

namespace {

constexpr size_t kRows = tile::kPanelRows;

template <class ColumnLoader>
void product(const FloatProduct& job, ColumnLoader load_column) {
  const size_t panels = (job.rows + kRows - 1) / kRows;
  for (size_t p = 0; p < panels; ++p) {
    const char* panel = static_cast<const char*>(job.panels) + p * job.panel_stride;
    const size_t used = job.rows - p * kRows < kRows ? job.rows - p * kRows : kRows;
    for (size_t t = 0; t < job.tokens; ++t) {
      const float* x = job.x + t * job.x_stride;
      float sums[kRows] = {};
      for (size_t k = 0; k < job.columns; ++k) {
        float column[kRows];
        load_column(panel, k, column);
        for (size_t r = 0; r < kRows; ++r) sums[r] += column[r] * x[k];
      }
      float* y = job.y + t * job.y_stride + p * kRows;
      for (size_t r = 0; r < used; ++r) {
        if (job.bias != nullptr) sums[r] += job.bias[p * kRows + r];
        y[r] = job.accumulate ? y[r] + sums[r] : sums[r];
      }
    }
  }
}

void product_f32(const FloatProduct& job) {
  product(job, [](const char* panel, size_t k, float* out) {
    const float* column = reinterpret_cast<const float*>(panel) + tile::element_in_panel(0, k);
    for (size_t r = 0; r < kRows; ++r) out[r] = column[r];
  });
}

void product_f16(const FloatProduct& job) {
  product(job, [](const char* panel, size_t k, float* out) {
    const uint16_t* column = reinterpret_cast<const uint16_t*>(panel) + tile::element_in_panel(0, k);
    for (size_t r = 0; r < kRows; ++r) out[r] = f16_to_f32(column[r]);
  });
}

void product_bf16(const FloatProduct& job) {
  product(job, [](const char* panel, size_t k, float* out) {
    const auto* codes = reinterpret_cast<const uint16_t*>(panel);
    for (size_t r = 0; r < kRows; ++r) out[r] = bf16_to_f32(codes[tile::bf16_in_panel(r, k)]);
  });
}

}  // namespace

constinit const FloatKernels kFloatKernels{
    .product_f32 = product_f32,
    .product_f16 = product_f16,
    .product_bf16 = product_bf16,
    .bf16_pairs = {},
};

}  // namespace tessera::cpu::portable
