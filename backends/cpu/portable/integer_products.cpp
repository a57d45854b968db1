// Integer products in plain loops: exact int32 sums (wrapping is harmless, the final value fits), one scaling
// each.
#include <cstring>

#include "backends/cpu/portable/portable.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera::cpu::portable {

namespace {

constexpr size_t kRows = tile::kPanelRows;

// Applies scales and stores one panel's 16 sums for one token.
void store_panel(const IntegerProduct& job, size_t panel, size_t token, const uint32_t* sums) {
  const uint8_t* x = job.x + token * job.x_stride;
  float x_scale = 0;
  int32_t total = 0;
  std::memcpy(&x_scale, x + job.x_scale_offset, sizeof x_scale);
  std::memcpy(&total, x + job.x_scale_offset + 4, sizeof total);
  for (size_t r = 0; r < kRows && panel * kRows + r < job.rows; ++r) {
    const size_t n = panel * kRows + r;
    const uint32_t zero = job.row_zero != nullptr ? job.row_zero[n] : 128;
    const auto sum = static_cast<int32_t>(sums[r] - zero * static_cast<uint32_t>(total));
    float y = job.row_scale[n] * x_scale * static_cast<float>(sum);
    if (job.bias != nullptr) y += job.bias[n];
    job.y[token * job.y_stride + n] = y;
  }
}

size_t panels_of(const IntegerProduct& job) { return (job.rows + kRows - 1) / kRows; }

void product_codes_g128(const IntegerProduct& job) {
  for (size_t p = 0; p < panels_of(job); ++p) {
    const uint8_t* panel = job.panels + p * job.panel_stride;
    for (size_t t = 0; t < job.tokens; ++t) {
      const uint8_t* row = job.x + t * job.x_stride;
      const auto* x = reinterpret_cast<const int8_t*>(row);
      uint32_t sums[kRows] = {};
      for (size_t g = 0; g < job.columns / tile::kGroupColumns; ++g) {
        const uint8_t* group = panel + g * tile::kGroupBytes;
        int32_t group_total = 0;
        std::memcpy(&group_total, row + job.x_scale_offset + 8 + 4 * g, sizeof group_total);
        for (size_t r = 0; r < kRows; ++r) {
          int32_t dot = 0;
          for (size_t k = 0; k < tile::kGroupColumns; ++k) {
            const tile::Nibble at = tile::nibble_in_panel(r, k);
            const int32_t code = at.high ? group[at.byte] >> 4 : group[at.byte] & 15;
            dot += code * x[g * tile::kGroupColumns + k];
          }
          const uint32_t s1 = group[tile::group_scale_byte(r, 0)];
          const uint32_t a = group[tile::group_offset_byte(r, 0)];
          sums[r] += s1 * static_cast<uint32_t>(dot) + a * static_cast<uint32_t>(group_total);
        }
      }
      store_panel(job, p, t, sums);
    }
  }
}

void product_codes_w4(const IntegerProduct& job) {
  for (size_t p = 0; p < panels_of(job); ++p) {
    const uint8_t* panel = job.panels + p * job.panel_stride;
    for (size_t t = 0; t < job.tokens; ++t) {
      const auto* x = reinterpret_cast<const int8_t*>(job.x + t * job.x_stride);
      uint32_t sums[kRows] = {};
      for (size_t k = 0; k < job.columns; ++k) {
        for (size_t r = 0; r < kRows; ++r) {
          const tile::Nibble at = tile::nibble_in_panel(r, k);
          const int32_t code = at.high ? panel[at.byte] >> 4 : panel[at.byte] & 15;
          sums[r] += static_cast<uint32_t>(code * x[k]);
        }
      }
      store_panel(job, p, t, sums);
    }
  }
}

void product_bytes(const IntegerProduct& job) {
  for (size_t p = 0; p < panels_of(job); ++p) {
    const uint8_t* panel = job.panels + p * job.panel_stride;
    for (size_t t = 0; t < job.tokens; ++t) {
      const auto* x = reinterpret_cast<const int8_t*>(job.x + t * job.x_stride);
      uint32_t sums[kRows] = {};
      for (size_t k = 0; k < job.columns; k += 4) {
        const uint8_t* line = panel + tile::byte_in_panel(0, k);
        for (size_t r = 0; r < kRows; ++r) {
          int32_t dot = 0;
          for (size_t j = 0; j < 4; ++j) dot += static_cast<int32_t>(line[4 * r + j]) * x[k + j];
          sums[r] += static_cast<uint32_t>(dot);
        }
      }
      store_panel(job, p, t, sums);
    }
  }
}

void expand_g128(const uint8_t* panel, size_t columns, uint8_t* bytes) {
  for (size_t k = 0; k < columns; ++k) {
    const size_t g = k / tile::kGroupColumns;
    for (size_t r = 0; r < kRows; ++r) {
      const tile::Nibble at = tile::nibble_in_grouped_panel(r, k);
      const unsigned code = at.high ? panel[at.byte] >> 4u : panel[at.byte] & 15u;
      const unsigned u = code * panel[tile::group_scale_byte(r, g)] + panel[tile::group_offset_byte(r, g)];
      bytes[tile::byte_in_panel(r, k)] = static_cast<uint8_t>(u);
    }
  }
}

void expand_w4(const uint8_t* panel, size_t columns, uint8_t* bytes) {
  for (size_t k = 0; k < columns; ++k) {
    for (size_t r = 0; r < kRows; ++r) {
      const tile::Nibble at = tile::nibble_in_panel(r, k);
      bytes[tile::byte_in_panel(r, k)] =
          static_cast<uint8_t>(at.high ? panel[at.byte] >> 4 : panel[at.byte] & 15);
    }
  }
}

}  // namespace

// Unpacking a code again for every token costs more than a byte load: hence few code_tokens.
constinit const IntegerKernels kIntegerKernels{
    .code_tokens = 8,
    .row_nibbles = {.product = product_codes_w4, .expand = expand_w4},
    .progressive = {.product = product_codes_g128, .expand = expand_g128},
    .product_bytes = product_bytes,
};

}  // namespace tessera::cpu::portable
