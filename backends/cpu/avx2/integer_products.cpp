// Integer products with vpmaddubsw. A 64-byte line is two vectors of 8 rows; four activations are broadcast
// from memory, so a 32-bit lane belongs to one row and no horizontal sums are needed.
#include <immintrin.h>

#include "backends/cpu/avx2/avx2.h"
#include "backends/cpu/avx2/partial_vectors.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera::cpu::avx2 {

namespace {

constexpr size_t kRows = tile::kPanelRows;
constexpr size_t kLine = tile::kLineBytes;
constexpr size_t kHalf = kLine / 2;  // bytes of a line that hold rows 0..7; rows 8..15 follow
constexpr size_t kTokens = 4;        // tokens per tile: 4 x 2 halves of accumulators, 16 registers in all
constexpr size_t kGroupScales = tile::group_scale_byte(0, 0);
constexpr size_t kGroupOffsets = tile::group_offset_byte(0, 0);

// Why no 16-bit lane ever saturates. Activations are at most 127 in magnitude (q8_row.h).
constexpr int kLargestActivation = 127;
constexpr int kLargestInt16 = 32767;
// Codes: vpmaddubsw adds two products, and eight of its results are added before they widen to 32 bits.
constexpr int kLargestCode = 15;
constexpr int kPartialProducts = 8;
static_assert(kPartialProducts * 2 * kLargestCode * kLargestActivation <= kLargestInt16,
              "eight vpmaddubsw results of 4-bit codes fit a 16-bit lane");
// Bytes: w = u - 128 is at most 128 in magnitude for any stored byte, 0 included; |w| is read as unsigned and
// the sign goes to the activation.
constexpr int kLargestMagnitude = 128;
static_assert(2 * kLargestMagnitude * kLargestActivation <= kLargestInt16,
              "one vpmaddubsw result of bytes fits a 16-bit lane, so it widens at once");
// Group totals enter a 16-bit multiply-add.
static_assert(static_cast<int>(tile::kGroupColumns) * kLargestActivation <= kLargestInt16,
              "the sum of a group's activations fits a 16-bit lane");

constexpr size_t kCodeLines = kPartialProducts / 2;  // lines of codes per partial sum: two products a line
constexpr size_t kByteLines = kPartialProducts;      // lines of expanded codes per partial sum
static_assert(tile::kGroupColumns % (8 * kCodeLines) == 0 &&
                  tile::kIntegerColumnPad % (8 * kCodeLines) == 0 &&
                  tile::kIntegerColumnPad % (4 * kByteLines) == 0,
              "partial sums never reach over a group or the stored columns");

__m256i load_bytes(const uint8_t* at) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)); }

// Eight bytes as 32-bit lanes.
__m256i widen8(const uint8_t* at) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(at)));
}

__m256i broadcast4(const uint8_t* x) {
  int32_t four = 0;
  __builtin_memcpy(&four, x, sizeof four);
  return _mm256_set1_epi32(four);
}

int32_t read_i32(const uint8_t* at) {
  int32_t value = 0;
  __builtin_memcpy(&value, at, sizeof value);
  return value;
}

float read_f32(const uint8_t* at) {
  float value = 0;
  __builtin_memcpy(&value, at, sizeof value);
  return value;
}

enum class Sums { unsigned_weights, zero_removed };

// Scales one panel's sums of one token and stores the rows that exist.
template <Sums kKind>
void store_panel(const IntegerProduct& job, size_t panel, size_t token, const __m256i* sums) {
  const uint8_t* x = job.x + token * job.x_stride + job.x_scale_offset;
#pragma GCC unroll 2
  for (size_t h = 0; h < 2; ++h) {
    const size_t n = panel * kRows + 8 * h;
    if (n >= job.rows) return;
    const size_t left = job.rows - n;
    __m256i sum = sums[h];
    if constexpr (kKind == Sums::unsigned_weights) {
      const __m256i zero = job.row_zero != nullptr ? widen8(job.row_zero + n) : _mm256_set1_epi32(128);
      sum = _mm256_sub_epi32(sum, _mm256_mullo_epi32(zero, _mm256_set1_epi32(read_i32(x + 4))));
    }
    const __m256 scale = _mm256_mul_ps(_mm256_loadu_ps(job.row_scale + n), _mm256_set1_ps(read_f32(x)));
    __m256 y = _mm256_mul_ps(scale, _mm256_cvtepi32_ps(sum));
    if (job.bias != nullptr) y = _mm256_add_ps(y, load_floats(job.bias + n, left));
    store_floats(job.y + token * job.y_stride + n, left, y);
  }
}

// Makes a sum opaque to the optimizer, which otherwise regroups chains of additions and, short of registers,
// keeps the pieces in memory (GCC 12).
__m256i settled(__m256i sum) {
  __asm__("" : "+x"(sum));
  return sum;
}

// Adds the products of one column quartet, rows 0..7 and 8..15, with T tokens to 16-bit partial sums.
template <size_t T>
[[gnu::always_inline]] inline void add_products(__m256i top, __m256i bottom, const uint8_t* x,
                                                size_t x_stride, __m256i (*partial)[2]) {
#pragma GCC unroll 4
  for (size_t t = 0; t < T; ++t) {
    const __m256i four = broadcast4(x + t * x_stride);
    partial[t][0] = settled(_mm256_add_epi16(partial[t][0], _mm256_maddubs_epi16(top, four)));
    partial[t][1] = settled(_mm256_add_epi16(partial[t][1], _mm256_maddubs_epi16(bottom, four)));
  }
}

// Adds factor * (codes . x) of `lines` lines of codes to sums[T][2]; factors holds one 16-bit word twice per
// row. The widening multiply-add that ends a partial sum also multiplies by the group's scale.
template <size_t T>
[[gnu::always_inline]] inline void add_code_lines(const uint8_t* codes, size_t lines, const uint8_t* x,
                                                  size_t x_stride, const __m256i* factors,
                                                  __m256i (*sums)[2]) {
  const __m256i nibble = _mm256_set1_epi8(15);
#pragma GCC unroll 1
  for (size_t i = 0; i < lines; i += kCodeLines) {
    __m256i partial[T][2];
#pragma GCC unroll 4
    for (size_t t = 0; t < T; ++t) partial[t][0] = partial[t][1] = _mm256_setzero_si256();
#pragma GCC unroll 1
    for (size_t j = 0; j < kCodeLines; ++j) {
      const uint8_t* line = codes + (i + j) * kLine;
      const uint8_t* xj = x + (i + j) * 8;
      const __m256i both[2] = {load_bytes(line), load_bytes(line + kHalf)};
      add_products<T>(_mm256_and_si256(both[0], nibble), _mm256_and_si256(both[1], nibble), xj, x_stride,
                      partial);
      add_products<T>(_mm256_and_si256(_mm256_srli_epi16(both[0], 4), nibble),
                      _mm256_and_si256(_mm256_srli_epi16(both[1], 4), nibble), xj + 4, x_stride, partial);
    }
#pragma GCC unroll 4
    for (size_t t = 0; t < T; ++t) {
      sums[t][0] = _mm256_add_epi32(sums[t][0], _mm256_madd_epi16(partial[t][0], factors[0]));
      sums[t][1] = _mm256_add_epi32(sums[t][1], _mm256_madd_epi16(partial[t][1], factors[1]));
    }
  }
}

template <size_t T>
void codes_g128(const IntegerProduct& job, size_t token, size_t panel) {
  const size_t groups = job.columns / tile::kGroupColumns;
  const uint8_t* x = job.x + token * job.x_stride;
  const uint8_t* group = job.panels + panel * job.panel_stride;
  __m256i sums[T][2];
#pragma GCC unroll 4
  for (size_t t = 0; t < T; ++t) sums[t][0] = sums[t][1] = _mm256_setzero_si256();
#pragma GCC unroll 1
  for (size_t g = 0; g < groups; ++g, group += tile::kGroupBytes) {
    const __m256i s1[2] = {widen8(group + kGroupScales), widen8(group + kGroupScales + 8)};
    const __m256i factors[2] = {_mm256_or_si256(s1[0], _mm256_slli_epi32(s1[0], 16)),
                                _mm256_or_si256(s1[1], _mm256_slli_epi32(s1[1], 16))};
    add_code_lines<T>(group, tile::kGroupColumns / 8, x + g * tile::kGroupColumns, job.x_stride, factors,
                      sums);
    const __m256i a[2] = {widen8(group + kGroupOffsets), widen8(group + kGroupOffsets + 8)};
#pragma GCC unroll 4
    for (size_t t = 0; t < T; ++t) {
      // The upper word of a is zero, so the multiply-add is a * (lower word of the total), which holds all of
      // it.
      const __m256i total = broadcast4(x + t * job.x_stride + job.x_scale_offset + 8 + 4 * g);
      sums[t][0] = _mm256_add_epi32(sums[t][0], _mm256_madd_epi16(a[0], total));
      sums[t][1] = _mm256_add_epi32(sums[t][1], _mm256_madd_epi16(a[1], total));
    }
  }
#pragma GCC unroll 4
  for (size_t t = 0; t < T; ++t) store_panel<Sums::unsigned_weights>(job, panel, token + t, sums[t]);
}

template <size_t T>
void codes_w4(const IntegerProduct& job, size_t token, size_t panel) {
  const __m256i ones[2] = {_mm256_set1_epi16(1), _mm256_set1_epi16(1)};
  __m256i sums[T][2];
#pragma GCC unroll 4
  for (size_t t = 0; t < T; ++t) sums[t][0] = sums[t][1] = _mm256_setzero_si256();
  add_code_lines<T>(job.panels + panel * job.panel_stride, job.columns / 8, job.x + token * job.x_stride,
                    job.x_stride, ones, sums);
#pragma GCC unroll 4
  for (size_t t = 0; t < T; ++t) store_panel<Sums::unsigned_weights>(job, panel, token + t, sums[t]);
}

// Any bytes: the zero point 128 is taken out of the weights, so that they become signed and small enough.
template <size_t T>
void signed_bytes(const IntegerProduct& job, size_t token, size_t panel) {
  const uint8_t* x = job.x + token * job.x_stride;
  const uint8_t* line = job.panels + panel * job.panel_stride;
  const __m256i flip = _mm256_set1_epi8(-128);
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i sums[T][2];
#pragma GCC unroll 4
  for (size_t t = 0; t < T; ++t) sums[t][0] = sums[t][1] = _mm256_setzero_si256();
  const size_t lines = job.columns / 4;  // a multiple of 16
#pragma GCC unroll 1
  for (size_t i = 0; i < lines; ++i) {
#pragma GCC unroll 2
    for (size_t h = 0; h < 2; ++h) {
      const __m256i w = _mm256_xor_si256(load_bytes(line + i * kLine + h * kHalf), flip);
      const __m256i magnitude = _mm256_abs_epi8(w);
#pragma GCC unroll 4
      for (size_t t = 0; t < T; ++t) {
        const __m256i four = broadcast4(x + t * job.x_stride + i * 4);
        const __m256i pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(four, w));
        sums[t][h] = settled(_mm256_add_epi32(sums[t][h], _mm256_madd_epi16(pairs, ones)));
      }
    }
  }
#pragma GCC unroll 4
  for (size_t t = 0; t < T; ++t) store_panel<Sums::zero_removed>(job, panel, token + t, sums[t]);
}

// Bytes that are expanded 4-bit codes (a zero point per row): 16-bit partial sums as in add_code_lines.
template <size_t T>
void code_bytes(const IntegerProduct& job, size_t token, size_t panel) {
  const uint8_t* x = job.x + token * job.x_stride;
  const uint8_t* line = job.panels + panel * job.panel_stride;
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i sums[T][2];
#pragma GCC unroll 4
  for (size_t t = 0; t < T; ++t) sums[t][0] = sums[t][1] = _mm256_setzero_si256();
  const size_t lines = job.columns / 4;
#pragma GCC unroll 1
  for (size_t i = 0; i < lines; i += kByteLines) {
    __m256i partial[T][2];
#pragma GCC unroll 4
    for (size_t t = 0; t < T; ++t) partial[t][0] = partial[t][1] = _mm256_setzero_si256();
#pragma GCC unroll 1
    for (size_t j = 0; j < kByteLines; ++j) {
      add_products<T>(load_bytes(line + (i + j) * kLine), load_bytes(line + (i + j) * kLine + kHalf),
                      x + (i + j) * 4, job.x_stride, partial);
    }
#pragma GCC unroll 4
    for (size_t t = 0; t < T; ++t) {
      sums[t][0] = _mm256_add_epi32(sums[t][0], _mm256_madd_epi16(partial[t][0], ones));
      sums[t][1] = _mm256_add_epi32(sums[t][1], _mm256_madd_epi16(partial[t][1], ones));
    }
  }
#pragma GCC unroll 4
  for (size_t t = 0; t < T; ++t) store_panel<Sums::unsigned_weights>(job, panel, token + t, sums[t]);
}

using Tile = void (*)(const IntegerProduct&, size_t token, size_t panel);

// Every panel meets all tokens while it is in cache. Tokens are split into tiles of nearly equal size: 5
// become 3 + 2 rather than 4 + 1, since unpacking is shared by the tokens of a tile.
void for_each_tile(const IntegerProduct& job, const Tile (&by_tokens)[kTokens]) {
  const size_t panels = (job.rows + kRows - 1) / kRows;
  for (size_t p = 0; p < panels; ++p) {
    for (size_t t = 0; t < job.tokens;) {
      const size_t left = job.tokens - t;
      const size_t tiles = (left + kTokens - 1) / kTokens;
      const size_t rows = (left + tiles - 1) / tiles;
      by_tokens[rows - 1](job, t, p);
      t += rows;
    }
  }
}

// The three products take any number of tokens.
void product_codes_g128(const IntegerProduct& job) {
  static constexpr Tile kByTokens[] = {codes_g128<1>, codes_g128<2>, codes_g128<3>, codes_g128<4>};
  for_each_tile(job, kByTokens);
}

void product_codes_w4(const IntegerProduct& job) {
  static constexpr Tile kByTokens[] = {codes_w4<1>, codes_w4<2>, codes_w4<3>, codes_w4<4>};
  for_each_tile(job, kByTokens);
}

void product_bytes(const IntegerProduct& job) {
  static constexpr Tile kSigned[] = {signed_bytes<1>, signed_bytes<2>, signed_bytes<3>, signed_bytes<4>};
  static constexpr Tile kCodes[] = {code_bytes<1>, code_bytes<2>, code_bytes<3>, code_bytes<4>};
  if (job.row_zero == nullptr) {
    for_each_tile(job, kSigned);
  } else {
    for_each_tile(job, kCodes);
  }
}

void expand_g128(const uint8_t* panel, size_t columns, uint8_t* bytes) {
  const __m256i nibble = _mm256_set1_epi8(15);
  // Each dword of a line belongs to one row: s1 goes into both of its 16-bit halves, a into all four bytes.
  const __m256i to_words = _mm256_set1_epi32(0x00010001);
  const __m256i to_bytes = _mm256_set1_epi32(0x01010101);
  for (size_t g = 0; g < columns / tile::kGroupColumns; ++g, panel += tile::kGroupBytes) {
    for (size_t h = 0; h < 2; ++h) {
      const __m256i s1 = _mm256_mullo_epi32(widen8(panel + kGroupScales + 8 * h), to_words);
      const __m256i a = _mm256_mullo_epi32(widen8(panel + kGroupOffsets + 8 * h), to_bytes);
      uint8_t* out = bytes + h * kHalf;
      for (size_t i = 0; i < tile::kGroupColumns / 8; ++i, out += 2 * kLine) {
        const __m256i both = load_bytes(panel + i * kLine + h * kHalf);
        const __m256i low = _mm256_and_si256(both, nibble);
        const __m256i high = _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble);
        // q * s1 <= 240, so two codes multiply inside one 16-bit lane without a carry; adding a <= 128 and
        // u = w + 128 <= 255 keep each byte to itself.
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_add_epi8(_mm256_mullo_epi16(low, s1), a));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + kLine),
                            _mm256_add_epi8(_mm256_mullo_epi16(high, s1), a));
      }
    }
    bytes += tile::kGroupColumns * kRows;
  }
}

void expand_w4(const uint8_t* panel, size_t columns, uint8_t* bytes) {
  const __m256i nibble = _mm256_set1_epi8(15);
  for (size_t i = 0; i < columns / 8; ++i, bytes += 2 * kLine) {
    for (size_t h = 0; h < kLine; h += kHalf) {
      const __m256i both = load_bytes(panel + i * kLine + h);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(bytes + h), _mm256_and_si256(both, nibble));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(bytes + kLine + h),
                          _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble));
    }
  }
}

}  // namespace

// 8 products of codes fit 16-bit sums, bytes need a sign trick: codes win for any number of tokens.
constinit const IntegerKernels kIntegerKernels{
    .code_tokens = SIZE_MAX,
    .row_nibbles = {.product = product_codes_w4, .expand = expand_w4},
    .progressive = {.product = product_codes_g128, .expand = expand_g128},
    .product_bytes = product_bytes,
};

}  // namespace tessera::cpu::avx2
