#include "backends/cpu/kv_page.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "gguf-like-format/float_types.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera::cpu {

namespace {

constexpr size_t kHalfRow = 2 * tile::kPanelRows;  // bytes of 16 f16 values

void write_half(uint8_t* at, uint16_t bits) { std::memcpy(at, &bits, sizeof bits); }

void write_nibble(uint8_t* panel, size_t row, size_t column, unsigned code) {
  const tile::Nibble at = tile::nibble_in_panel(row, column);
  const unsigned keep = at.high ? panel[at.byte] & 0x0fu : panel[at.byte] & 0xf0u;
  panel[at.byte] = static_cast<uint8_t>(keep | (at.high ? code << 4 : code));
}

struct SymmetricScale {
  uint16_t bits;
  float value;
};

SymmetricScale symmetric_scale(const float* x, size_t n) {
  float largest = 0;
  for (size_t i = 0; i < n; ++i) largest = std::fmax(largest, std::fabs(x[i]));
  const uint16_t bits = f32_to_f16(largest / 127.0f);
  return {bits, f16_to_f32(bits)};
}

int8_t symmetric_code(float x, float scale) {
  if (!(scale > 0)) return 0;
  return static_cast<int8_t>(std::fmin(std::fmax(std::nearbyint(x / scale), -127.0f), 127.0f));
}

struct RangeScale {
  uint16_t scale_bits;
  uint16_t minimum_bits;
  float scale;
  float minimum;
};

RangeScale range_scale(const float* x, size_t n) {
  const auto [low, high] = std::minmax_element(x, x + n);
  RangeScale range{f32_to_f16((*high - *low) / 15.0f), f32_to_f16(*low), 0, 0};
  range.scale = f16_to_f32(range.scale_bits);
  range.minimum = f16_to_f32(range.minimum_bits);
  return range;
}

unsigned range_code(float x, const RangeScale& range) {
  if (!(range.scale > 0)) return 0;
  return static_cast<unsigned>(
      std::fmin(std::fmax(std::nearbyint((x - range.minimum) / range.scale), 0.0f), 15.0f));
}

}  // namespace

size_t KvBlockLayout::k_codes_bytes() const { return head_dim * tile::kPanelRows * bits / 8; }

size_t KvBlockLayout::k_panel_bytes() const {
  const size_t tail = bits == 16 ? 0 : (bits == 8 ? kHalfRow : 2 * kHalfRow);
  return tile::round_up(k_codes_bytes() + tail, tile::kLineBytes);
}

size_t KvBlockLayout::v_panel_bytes() const { return kKvPageTokens * tile::kPanelRows * bits / 8; }

size_t KvBlockLayout::block_bytes() const {
  return bits == 16 ? v_scales() : (bits == 8 ? v_minima() : v_minima() + 2 * kKvPageTokens);
}

void store_key(const KvBlockLayout& layout, uint8_t* block, size_t slot, const float* key) {
  uint8_t* panel = block + layout.k_panel(slot / tile::kPanelRows);
  const size_t row = slot % tile::kPanelRows;
  uint8_t* scales = panel + layout.k_codes_bytes();
  if (layout.bits == 16) {
    for (size_t i = 0; i < layout.head_dim; ++i) {
      write_half(panel + 2 * tile::element_in_panel(row, i), f32_to_f16(key[i]));
    }
  } else if (layout.bits == 8) {
    const SymmetricScale scale = symmetric_scale(key, layout.head_dim);
    write_half(scales + 2 * row, scale.bits);
    for (size_t i = 0; i < layout.head_dim; ++i) {
      panel[tile::byte_in_panel(row, i)] = static_cast<uint8_t>(symmetric_code(key[i], scale.value));
    }
  } else {
    const RangeScale range = range_scale(key, layout.head_dim);
    write_half(scales + 2 * row, range.scale_bits);
    write_half(scales + kHalfRow + 2 * row, range.minimum_bits);
    for (size_t i = 0; i < layout.head_dim; ++i) write_nibble(panel, row, i, range_code(key[i], range));
  }
}

void store_value(const KvBlockLayout& layout, uint8_t* block, size_t slot, const float* value) {
  SymmetricScale scale{};
  RangeScale range{};
  if (layout.bits == 8) {
    scale = symmetric_scale(value, layout.head_dim);
    write_half(block + layout.v_scales() + 2 * slot, scale.bits);
  } else if (layout.bits == 4) {
    range = range_scale(value, layout.head_dim);
    write_half(block + layout.v_scales() + 2 * slot, range.scale_bits);
    write_half(block + layout.v_minima() + 2 * slot, range.minimum_bits);
  }
  for (size_t i = 0; i < layout.head_dim; ++i) {
    uint8_t* panel = block + layout.v_panel(i / tile::kPanelRows);
    const size_t row = i % tile::kPanelRows;
    if (layout.bits == 16) {
      write_half(panel + 2 * tile::element_in_panel(row, slot), f32_to_f16(value[i]));
    } else if (layout.bits == 8) {
      panel[tile::byte_in_panel(row, slot)] = static_cast<uint8_t>(symmetric_code(value[i], scale.value));
    } else {
      write_nibble(panel, row, slot, range_code(value[i], range));
    }
  }
}

size_t PagedKv::page_bytes(const KvGeometry& geometry) {
  size_t bytes = 0;
  for (size_t layer = 0; layer < geometry.layers; ++layer) {
    bytes += geometry.kv_heads * KvBlockLayout{geometry.layer_bits(layer), geometry.head_dim}.block_bytes();
  }
  return bytes;
}

PagedKv::PagedKv(const KvGeometry& geometry, size_t pages) : geometry_(geometry), pages_(pages) {
  for (size_t layer = 0; layer < geometry.layers; ++layer) {
    layer_offset_.push_back(bytes_);
    bytes_ += pages * geometry.kv_heads * layout(layer).block_bytes();
  }
}

Result<std::unique_ptr<KvStorage>> PagedKv::create(const KvGeometry& geometry, size_t pages) {
  using Made = Result<std::unique_ptr<KvStorage>>;
  if (geometry.head_dim % 8 != 0 || geometry.head_dim == 0) {
    return Made::failure(fmt::format("head size {}: expected a multiple of 8", geometry.head_dim));
  }
  std::unique_ptr<PagedKv> kv(new PagedKv(geometry, pages));
  if (kv->bytes_ > 0) {
    void* base =
        mmap(nullptr, kv->bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) {
      return Made::failure(fmt::format("KV cache: {} bytes could not be reserved", kv->bytes_));
    }
    kv->base_ = static_cast<uint8_t*>(base);
  }
  return Made(std::move(kv));
}

PagedKv::~PagedKv() {
  if (base_ != nullptr) munmap(base_, bytes_);
}

}  // namespace tessera::cpu
