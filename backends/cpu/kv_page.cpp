#include "backends/cpu/kv_page.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "backends/cpu/kernels/attention_kernels.h"
#include "gguf-like-format/float_types.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera::cpu {

namespace {

constexpr size_t kHalfRow = 2 * tile::kPanelRows;  // bytes of 16 f16 values

// Attention over a cache of huge pages is up to a fifth faster, but every layer and head then takes 2 MiB at
// its first token: only where that cannot be much, and not before attention costs something.
constexpr size_t kMostHugeBytes = size_t{256} << 20;
constexpr size_t kHugeFromTokens = 1024;

constexpr int kCollapse = 25;  // MADV_COLLAPSE of Linux 6.1, which the headers of Debian 12 do not name

// Lanes of sums and maxima, which the compiler may then vectorize in the order they are written.
constexpr size_t kLanes = 8;

constexpr uint16_t kHalfExponent = 0x7c00;  // all ones: infinite, or not a number
constexpr uint16_t kHalfNan = 0x7e00;
constexpr float kHalfOverflow = 65520.0f;  // the least number that f16 rounds to infinity

bool finite_half(uint16_t bits) { return (bits & kHalfExponent) != kHalfExponent; }

void write_half(uint8_t* at, uint16_t bits) { std::memcpy(at, &bits, sizeof bits); }

// Half to even for |x| < 2^22, without a library call: adding 1.5 * 2^23 leaves the integer in the low bits.
int32_t whole(float x) {
  return std::bit_cast<int32_t>(x + 12582912.0f) - std::bit_cast<int32_t>(12582912.0f);
}

struct Range {
  float low;
  float high;
};

Range range_of(const float* x, size_t n) {  // n is a multiple of 8
  std::array<float, kLanes> low;
  std::array<float, kLanes> high;
  std::copy_n(x, kLanes, low.begin());
  std::copy_n(x, kLanes, high.begin());
  for (size_t i = kLanes; i < n; i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) {
      low[j] = x[i + j] < low[j] ? x[i + j] : low[j];
      high[j] = x[i + j] > high[j] ? x[i + j] : high[j];
    }
  }
  return {*std::min_element(low.begin(), low.end()), *std::max_element(high.begin(), high.end())};
}

// Whether all magnitudes are below the limit; NaN is not.
bool all_below(float limit, const float* x, size_t n) {  // n is a multiple of 8
  std::array<uint32_t, kLanes> over{};
  for (size_t i = 0; i < n; i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) over[j] |= std::fabs(x[i + j]) < limit ? 0u : 1u;
  }
  return std::all_of(over.begin(), over.end(), [](uint32_t lane) { return lane == 0; });
}

// Codes of one row, rounded with the scale that is stored.
struct Codes {
  std::array<uint8_t, kLongestHead> at;
  uint16_t scale_bits = 0;
  uint16_t minimum_bits = 0;

  // Whether the row, x and its stored scale, is finite.
  bool fit(const float* x, size_t n) const {
    return finite_half(scale_bits) && finite_half(minimum_bits) &&
           all_below(std::numeric_limits<float>::infinity(), x, n);
  }
};

float clamped(float x, float low, float high) {
  const float above = x < low ? low : x;
  return above > high ? high : above;
}

// 8 bits: code + offset as a byte, |code| <= 127.
void symmetric_codes(const float* x, size_t n, int32_t offset, Codes& out) {
  const Range range = range_of(x, n);
  out.scale_bits = f32_to_f16(std::fmax(-range.low, range.high) / 127.0f);
  const float scale = f16_to_f32(out.scale_bits);
  if (!(scale > 0)) {
    std::fill_n(out.at.begin(), n, static_cast<uint8_t>(offset));
    return;
  }
  for (size_t i = 0; i < n; ++i)
    out.at[i] = static_cast<uint8_t>(whole(clamped(x[i] / scale, -127.0f, 127.0f)) + offset);
}

// 4 bits: code 0 … 15.
void range_codes(const float* x, size_t n, Codes& out) {
  const Range range = range_of(x, n);
  out.scale_bits = f32_to_f16((range.high - range.low) / 15.0f);
  out.minimum_bits = f32_to_f16(range.low);
  const float scale = f16_to_f32(out.scale_bits);
  const float minimum = f16_to_f32(out.minimum_bits);
  if (!(scale > 0)) {
    std::fill_n(out.at.begin(), n, uint8_t{0});
    return;
  }
  for (size_t i = 0; i < n; ++i)
    out.at[i] = static_cast<uint8_t>(whole(clamped((x[i] - minimum) / scale, 0.0f, 15.0f)));
}

void store_key(const KvBlockLayout& layout, uint8_t* block, size_t slot, const float* key, bool value_fits) {
  uint8_t* panel = block + layout.k_panel(slot / tile::kPanelRows);
  const size_t row = slot % tile::kPanelRows;
  uint8_t* scales = panel + layout.k_codes_bytes();
  if (layout.bits == 16) {
    for (size_t i = 0; i < layout.head_dim; ++i)
      write_half(panel + 2 * tile::element_in_panel(row, i), f32_to_f16(key[i]));
    if (!value_fits) write_half(panel + 2 * tile::element_in_panel(row, 0), kHalfNan);
    return;
  }
  Codes codes;
  if (layout.bits == 8) {
    symmetric_codes(key, layout.head_dim, 128, codes);
    for (size_t i = 0; i < layout.head_dim; i += 4)
      std::memcpy(panel + tile::byte_in_panel(row, i), &codes.at[i], 4);
  } else {
    range_codes(key, layout.head_dim, codes);
    write_half(scales + kHalfRow + 2 * row, codes.minimum_bits);
    for (size_t i = 0; i < layout.head_dim; i += 8) {
      uint32_t low = 0;
      uint32_t high = 0;
      std::memcpy(&low, &codes.at[i], 4);
      std::memcpy(&high, &codes.at[i + 4], 4);
      const uint32_t both = low | (high << 4);
      std::memcpy(panel + tile::nibble_in_panel(row, i).byte, &both, 4);
    }
  }
  const bool fits = value_fits && codes.fit(key, layout.head_dim);
  write_half(scales + 2 * row, fits ? codes.scale_bits : kHalfNan);
}

// False when the value is not finite after rounding; zeros are stored then.
bool store_value(const KvBlockLayout& layout, uint8_t* block, size_t slot, const float* value) {
  if (layout.bits == 16) {
    const bool fits = all_below(kHalfOverflow, value, layout.head_dim);
    for (size_t i = 0; i < layout.head_dim; ++i) {
      uint8_t* panel = block + layout.v_panel(i / tile::kPanelRows);
      write_half(panel + 2 * tile::element_in_panel(i % tile::kPanelRows, slot),
                 fits ? f32_to_f16(value[i]) : uint16_t{0});
    }
    return fits;
  }
  Codes codes;
  if (layout.bits == 8) {
    symmetric_codes(value, layout.head_dim, 0, codes);
  } else {
    range_codes(value, layout.head_dim, codes);
  }
  const bool fits = codes.fit(value, layout.head_dim);
  if (!fits) codes = {};
  if (layout.bits == 8) {
    for (size_t i = 0; i < layout.head_dim; ++i)
      block[layout.v_panel(i / tile::kPanelRows) + tile::byte_in_panel(i % tile::kPanelRows, slot)] =
          codes.at[i];
  } else {
    write_half(block + layout.v_minima() + 2 * slot, codes.minimum_bits);
    const tile::Nibble column = tile::nibble_in_panel(0, slot);
    const unsigned keep = column.high ? 0x0fu : 0xf0u;
    const unsigned shift = column.high ? 4 : 0;
    for (size_t i = 0; i < layout.head_dim; ++i) {
      const size_t row = i % tile::kPanelRows;
      uint8_t& byte = block[layout.v_panel(i / tile::kPanelRows) + tile::nibble_in_panel(row, slot).byte];
      byte = static_cast<uint8_t>((byte & keep) | (unsigned{codes.at[i]} << shift));
    }
  }
  write_half(block + layout.v_scales() + 2 * slot, codes.scale_bits);
  return fits;
}

}  // namespace

size_t KvBlockLayout::k_codes_bytes() const { return head_dim * tile::kPanelRows * bits / 8; }

size_t KvBlockLayout::k_panel_bytes() const {
  const size_t tail = bits == 16 ? 0 : (bits == 8 ? kHalfRow : 2 * kHalfRow);
  return tile::round_up(k_codes_bytes() + tail, tile::kLineBytes);
}

size_t KvBlockLayout::v_panel_bytes() const { return kKvPageTokens * tile::kPanelRows * bits / 8; }

size_t KvBlockLayout::v_bytes() const {
  return bits == 16 ? v_scales() : (bits == 8 ? v_minima() : v_minima() + 2 * kKvPageTokens);
}

void store_token(const KvBlockLayout& layout, uint8_t* key_block, uint8_t* value_block, size_t slot,
                 const float* key, const float* value) {
  const bool fits = store_value(layout, value_block, slot, value);
  store_key(layout, key_block, slot, key, fits);
}

KvPageBytes PagedKv::page_bytes(const KvGeometry& geometry) {
  KvPageBytes bytes;
  for (size_t layer = 0; layer < geometry.layers; ++layer) {
    const KvBlockLayout blocks{geometry.layer_bits(layer), geometry.head_dim};
    (geometry.layer_slides(layer) ? bytes.window : bytes.full) +=
        geometry.kv_heads * (blocks.k_bytes() + blocks.v_bytes());
  }
  return bytes;
}

PagedKv::PagedKv(const KvGeometry& geometry, size_t pages) : KvStorage(geometry, pages) {
  for (size_t layer = 0; layer < geometry.layers; ++layer) {
    layer_offset_.push_back(bytes_);
    bytes_ += geometry.layer_pages(layer, pages) * geometry.kv_heads *
              (layout(layer).k_bytes() + layout(layer).v_bytes());
  }
}

Result<std::unique_ptr<KvStorage>> PagedKv::create(const KvGeometry& geometry, size_t pages) {
  using Made = Result<std::unique_ptr<KvStorage>>;
  if (geometry.bits != 16 && geometry.head_dim > kLongestHead) {
    return Made::failure(
        fmt::format("heads of {} elements: a KV cache of {} bits is limited to {}, --kv 16 is not",
                    geometry.head_dim, geometry.bits, kLongestHead));
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

void PagedKv::expect_tokens(size_t tokens) {
  if (huge_ || tokens < kHugeFromTokens || bytes_ > kMostHugeBytes) return;
  huge_ = true;
  // Only speed depends on the answers. Where pages cannot be collapsed at once, the kernel does it in time.
  (void)madvise(base_, bytes_, MADV_HUGEPAGE);
  (void)madvise(base_, bytes_, kCollapse);
}

PagedKv::~PagedKv() {
  if (base_ != nullptr) munmap(base_, bytes_);
}

}  // namespace tessera::cpu
