// Integer products with vpdpbusd: weights are the unsigned operand (16 rows x 4 columns), four activations
// broadcast from memory the signed one, so 16 outputs come without horizontal sums.
#include <immintrin.h>

#include "backends/cpu/avx512/avx512.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera::cpu::avx512 {

namespace {

constexpr size_t kRows = tile::kPanelRows;
constexpr size_t kLine = tile::kLineBytes;
constexpr size_t kCodeTile = 8;   // tokens that keep two sums in registers beside a line of codes
constexpr size_t kWideTile = 16;  // tokens that keep one sum in registers beside a line of expanded codes

__m512i broadcast4(const uint8_t* x) {
  int32_t four = 0;
  __builtin_memcpy(&four, x, sizeof four);
  return _mm512_set1_epi32(four);
}

struct FourBytes {
  uint8_t at[4];
};

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

// A group's s1 and a, ready for packed bytes: each dword of a line belongs to one row, so s1 goes into both
// of its 16-bit halves and a into all four bytes.
struct GroupBytes {
  __m512i s1;
  __m512i a;

  explicit GroupBytes(const uint8_t* group)
      : s1(spread(group + tile::group_scale_byte(0, 0), 0x00010001)),
        a(spread(group + tile::group_offset_byte(0, 0), 0x01010101)) {}

  // u = q * s1 + a. q * s1 <= 240, so two codes multiply inside one 16-bit lane without a carry; adding a <=
  // 128 stays below 256.
  __m512i expand(__m512i codes) const { return _mm512_add_epi8(_mm512_mullo_epi16(codes, s1), a); }

 private:
  static __m512i spread(const uint8_t* rows, int pattern) {
    return _mm512_mullo_epi32(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(rows))),
                              _mm512_set1_epi32(pattern));
  }
};

// Scales one panel's sums of one token and stores the rows that exist.
void store_panel(const IntegerProduct& job, size_t panel, size_t token, __m512i sums) {
  const uint8_t* x = job.x + token * job.x_stride + job.x_scale_offset;
  const size_t n = panel * kRows;
  const size_t left = job.rows - n;
  const auto mask = static_cast<__mmask16>(left >= kRows ? 0xffffu : (1u << left) - 1u);
  const __m512i zero =
      job.row_zero != nullptr
          ? _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(job.row_zero + n)))
          : _mm512_set1_epi32(128);
  sums = _mm512_sub_epi32(sums, _mm512_mullo_epi32(zero, _mm512_set1_epi32(read_i32(x + 4))));
  const __m512 scale = _mm512_mul_ps(_mm512_loadu_ps(job.row_scale + n), _mm512_set1_ps(read_f32(x)));
  __m512 y = _mm512_mul_ps(scale, _mm512_cvtepi32_ps(sums));
  if (job.bias != nullptr) y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(mask, job.bias + n));
  _mm512_mask_storeu_ps(job.y + token * job.y_stride + n, mask, y);
}

// From this many tokens on a line keeps the core busy for so long that the hardware's prefetcher, which stops
// at every 4 KiB, and the out-of-order window no longer hide the latency of memory. With fewer, memory itself
// is the limit, and prefetches in software only fill the core's few miss buffers.
constexpr size_t kPrefetchFrom = 5;
constexpr size_t kPrefetchBytes = 4096;

// Prefetches beyond the end of a matrix are harmless: they never fault.
[[gnu::always_inline]] inline void prefetch_ahead(const uint8_t* at) {
  _mm_prefetch(at + kPrefetchBytes, _MM_HINT_T1);
}

// Adds the products of `lines` lines of codes with T rows of activations to sums[T]. Few tokens use several
// chains each, because one vpdpbusd chain advances only every fourth cycle.
template <size_t T>
[[gnu::always_inline]] inline void add_code_lines(const uint8_t* codes, size_t lines, const uint8_t* x,
                                                  size_t x_stride, __m512i* sums) {
  constexpr size_t kChains = T == 1 ? 4 : (T <= 4 ? 2 : 1);
  const __m512i nibble = _mm512_set1_epi8(15);
  __m512i chain[kChains][T];
#pragma GCC unroll 4
  for (size_t c = 0; c < kChains; ++c) {
#pragma GCC unroll 8
    for (size_t t = 0; t < T; ++t) chain[c][t] = _mm512_setzero_si512();
  }
#pragma GCC unroll 1
  for (size_t i = 0; i < lines; i += 2) {
#pragma GCC unroll 2
    for (size_t j = 0; j < 2; ++j) {
      if constexpr (T >= kPrefetchFrom) prefetch_ahead(codes + (i + j) * kLine);
      const __m512i both = _mm512_loadu_si512(codes + (i + j) * kLine);
      const __m512i low = _mm512_and_si512(both, nibble);
      const __m512i high = _mm512_and_si512(_mm512_srli_epi16(both, 4), nibble);
#pragma GCC unroll 8
      for (size_t t = 0; t < T; ++t) {
        const uint8_t* xt = x + t * x_stride + (i + j) * 8;
        chain[(2 * j) % kChains][t] = _mm512_dpbusd_epi32(chain[(2 * j) % kChains][t], low, broadcast4(xt));
        chain[(2 * j + 1) % kChains][t] =
            _mm512_dpbusd_epi32(chain[(2 * j + 1) % kChains][t], high, broadcast4(xt + 4));
      }
    }
  }
#pragma GCC unroll 8
  for (size_t t = 0; t < T; ++t) {
#pragma GCC unroll 4
    for (size_t c = 0; c < kChains; ++c) sums[t] = _mm512_add_epi32(sums[t], chain[c][t]);
  }
}

template <size_t T>
void codes_g128(const IntegerProduct& job, size_t token, size_t panel) {
  const uint8_t* x = job.x + token * job.x_stride;
  const uint8_t* group = job.panels + panel * job.panel_stride;
  const size_t groups = job.columns / tile::kGroupColumns;
  __m512i sums[T];
#pragma GCC unroll 8
  for (size_t t = 0; t < T; ++t) sums[t] = _mm512_setzero_si512();
  for (size_t g = 0; g < groups; ++g, group += tile::kGroupBytes) {
    __m512i dot[T];
#pragma GCC unroll 8
    for (size_t t = 0; t < T; ++t) dot[t] = _mm512_setzero_si512();
    add_code_lines<T>(group, 16, x + g * tile::kGroupColumns, job.x_stride, dot);
    const __m512i s1 = _mm512_cvtepu8_epi32(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(group + tile::group_scale_byte(0, 0))));
    const __m512i a = _mm512_cvtepu8_epi32(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(group + tile::group_offset_byte(0, 0))));
#pragma GCC unroll 8
    for (size_t t = 0; t < T; ++t) {
      const int32_t group_sum = read_i32(x + t * job.x_stride + job.x_scale_offset + 8 + 4 * g);
      sums[t] = _mm512_add_epi32(sums[t], _mm512_mullo_epi32(s1, dot[t]));
      sums[t] = _mm512_add_epi32(sums[t], _mm512_mullo_epi32(a, _mm512_set1_epi32(group_sum)));
    }
  }
#pragma GCC unroll 8
  for (size_t t = 0; t < T; ++t) store_panel(job, panel, token + t, sums[t]);
}

template <size_t T>
void codes_w4(const IntegerProduct& job, size_t token, size_t panel) {
  __m512i sums[T];
#pragma GCC unroll 8
  for (size_t t = 0; t < T; ++t) sums[t] = _mm512_setzero_si512();
  add_code_lines<T>(job.panels + panel * job.panel_stride, job.columns / 8, job.x + token * job.x_stride,
                    job.x_stride, sums);
#pragma GCC unroll 8
  for (size_t t = 0; t < T; ++t) store_panel(job, panel, token + t, sums[t]);
}

// sum += bytes . four activations at x, in every row. As one instruction with a memory broadcast: compilers
// split it into two, and copy sums from register to register besides.
[[gnu::always_inline]] inline void add_dot(__m512i& sum, __m512i bytes, const uint8_t* x) {
  __asm__("vpdpbusd %2%{1to16%}, %1, %0"
          : "+v"(sum)
          : "v"(bytes), "m"(*reinterpret_cast<const FourBytes*>(x)));
}

// sums[T] += bytes . four activations of T rows.
template <size_t T>
[[gnu::always_inline]] inline void add_quartet(__m512i bytes, const uint8_t* x, size_t x_stride,
                                               __m512i* sums) {
#pragma GCC unroll 16
  for (size_t t = 0; t < T; ++t) {
    add_dot(sums[t], bytes, x + t * x_stride);
  }
}

// For more tokens than kCodeTile codes become bytes u = q * s1 + a on the way, so that nothing is left to do
// per group and token.
template <size_t T>
void expanded_g128(const IntegerProduct& job, size_t token, size_t panel) {
  const uint8_t* x = job.x + token * job.x_stride;
  const uint8_t* group = job.panels + panel * job.panel_stride;
  const __m512i nibble = _mm512_set1_epi8(15);
  __m512i sums[T];
#pragma GCC unroll 16
  for (size_t t = 0; t < T; ++t) sums[t] = _mm512_setzero_si512();
  const size_t groups = job.columns / tile::kGroupColumns;
  for (size_t g = 0; g < groups; ++g, group += tile::kGroupBytes) {
    const GroupBytes terms(group);
#pragma GCC unroll 1
    for (size_t i = 0; i < 16; ++i, x += 8) {
      prefetch_ahead(group + i * kLine);
      const __m512i both = _mm512_loadu_si512(group + i * kLine);
      add_quartet<T>(terms.expand(_mm512_and_si512(both, nibble)), x, job.x_stride, sums);
      add_quartet<T>(terms.expand(_mm512_and_si512(_mm512_srli_epi16(both, 4), nibble)), x + 4, job.x_stride,
                     sums);
    }
  }
#pragma GCC unroll 16
  for (size_t t = 0; t < T; ++t) store_panel(job, panel, token + t, sums[t]);
}

template <size_t T>
void wide_w4(const IntegerProduct& job, size_t token, size_t panel) {
  const uint8_t* x = job.x + token * job.x_stride;
  const uint8_t* codes = job.panels + panel * job.panel_stride;
  const __m512i nibble = _mm512_set1_epi8(15);
  __m512i sums[T];
#pragma GCC unroll 16
  for (size_t t = 0; t < T; ++t) sums[t] = _mm512_setzero_si512();
#pragma GCC unroll 1
  for (size_t i = 0; i < job.columns / 8; ++i, x += 8) {
    prefetch_ahead(codes + i * kLine);
    const __m512i both = _mm512_loadu_si512(codes + i * kLine);
    add_quartet<T>(_mm512_and_si512(both, nibble), x, job.x_stride, sums);
    add_quartet<T>(_mm512_and_si512(_mm512_srli_epi16(both, 4), nibble), x + 4, job.x_stride, sums);
  }
#pragma GCC unroll 16
  for (size_t t = 0; t < T; ++t) store_panel(job, panel, token + t, sums[t]);
}

// Byte panels for few tokens: one panel at a time, strictly forward, because it comes from memory.
template <size_t T>
void wide_bytes(const IntegerProduct& job, size_t token, size_t panel) {
  constexpr size_t kChains = T >= 4 ? 1 : 4 / T;  // a vpdpbusd chain advances only every fourth cycle
  const uint8_t* x = job.x + token * job.x_stride;
  const uint8_t* bytes = job.panels + panel * job.panel_stride;
  __m512i sums[kChains][T];
#pragma GCC unroll 4
  for (size_t c = 0; c < kChains; ++c) {
#pragma GCC unroll 16
    for (size_t t = 0; t < T; ++t) sums[c][t] = _mm512_setzero_si512();
  }
#pragma GCC unroll 1
  for (size_t i = 0; i < job.columns / 4; i += 4, x += 16) {
#pragma GCC unroll 4
    for (size_t j = 0; j < 4; ++j) {
      if constexpr (T >= kPrefetchFrom) prefetch_ahead(bytes + (i + j) * kLine);
      add_quartet<T>(_mm512_loadu_si512(bytes + (i + j) * kLine), x + 4 * j, job.x_stride, sums[j % kChains]);
    }
  }
#pragma GCC unroll 16
  for (size_t t = 0; t < T; ++t) {
    __m512i sum = sums[0][t];
#pragma GCC unroll 4
    for (size_t c = 1; c < kChains; ++c) sum = _mm512_add_epi32(sum, sums[c][t]);
    store_panel(job, panel, token + t, sum);
  }
}

using TileJob = void (*)(const IntegerProduct&, size_t token, size_t panel);

// Panels outside, so that each is read from memory once; tokens in nearly equal tiles of at most `most`.
void by_tiles(const IntegerProduct& job, size_t most, const TileJob* by_tokens) {
  const size_t panels = (job.rows + kRows - 1) / kRows;
  const size_t tiles = (job.tokens + most - 1) / most;
  for (size_t p = 0; p < panels; ++p) {
    size_t token = 0;
    for (size_t i = 0; i < tiles; ++i) {
      const size_t next = job.tokens * (i + 1) / tiles;
      by_tokens[next - token - 1](job, token, p);
      token = next;
    }
  }
}

// T rows of activations times P byte panels, whole K in registers; S chains per sum when T * P is small.
template <size_t T, size_t P>
void bytes_tile(const IntegerProduct& job, size_t token, size_t panel) {
  constexpr size_t kChains = T * P >= 4 ? 1 : 4;
  const uint8_t* x = job.x + token * job.x_stride;
  const uint8_t* w = job.panels + panel * job.panel_stride;
  __m512i sums[kChains][T][P];
#pragma GCC unroll 4
  for (size_t c = 0; c < kChains; ++c) {
#pragma GCC unroll 8
    for (size_t t = 0; t < T; ++t) {
#pragma GCC unroll 2
      for (size_t p = 0; p < P; ++p) sums[c][t][p] = _mm512_setzero_si512();
    }
  }
  const size_t lines = job.columns / 4;  // a multiple of 16
#pragma GCC unroll 1
  for (size_t i = 0; i < lines; i += 4) {
#pragma GCC unroll 4
    for (size_t j = 0; j < 4; ++j) {
      __m512i weights[P];
#pragma GCC unroll 2
      for (size_t p = 0; p < P; ++p)
        weights[p] = _mm512_loadu_si512(w + p * job.panel_stride + (i + j) * kLine);
#pragma GCC unroll 8
      for (size_t t = 0; t < T; ++t) {
        const __m512i four = broadcast4(x + t * job.x_stride + (i + j) * 4);
#pragma GCC unroll 2
        for (size_t p = 0; p < P; ++p) {
          sums[j % kChains][t][p] = _mm512_dpbusd_epi32(sums[j % kChains][t][p], weights[p], four);
        }
      }
    }
  }
#pragma GCC unroll 8
  for (size_t t = 0; t < T; ++t) {
#pragma GCC unroll 2
    for (size_t p = 0; p < P; ++p) {
      __m512i sum = sums[0][t][p];
#pragma GCC unroll 4
      for (size_t c = 1; c < kChains; ++c) sum = _mm512_add_epi32(sum, sums[c][t][p]);
      store_panel(job, panel + p, token + t, sum);
    }
  }
}

template <size_t T>
void bytes_rows(const IntegerProduct& job, size_t token) {
  const size_t panels = (job.rows + kRows - 1) / kRows;
  size_t p = 0;
  for (; p + 2 <= panels; p += 2) bytes_tile<T, 2>(job, token, p);
  if (p < panels) bytes_tile<T, 1>(job, token, p);
}

void product_codes_g128(const IntegerProduct& job) {
  static constexpr TileJob kByTokens[kCodeTile] = {codes_g128<1>, codes_g128<2>, codes_g128<3>,
                                                   codes_g128<4>, codes_g128<5>, codes_g128<6>,
                                                   codes_g128<7>, codes_g128<8>};
  static constexpr TileJob kExpanded[kWideTile] = {
      expanded_g128<1>,  expanded_g128<2>,  expanded_g128<3>,  expanded_g128<4>,
      expanded_g128<5>,  expanded_g128<6>,  expanded_g128<7>,  expanded_g128<8>,
      expanded_g128<9>,  expanded_g128<10>, expanded_g128<11>, expanded_g128<12>,
      expanded_g128<13>, expanded_g128<14>, expanded_g128<15>, expanded_g128<16>};
  if (job.tokens <= kCodeTile) {
    by_tiles(job, kCodeTile, kByTokens);
  } else {
    by_tiles(job, kWideTile, kExpanded);
  }
}

void product_codes_w4(const IntegerProduct& job) {
  static constexpr TileJob kByTokens[kCodeTile] = {codes_w4<1>, codes_w4<2>, codes_w4<3>, codes_w4<4>,
                                                   codes_w4<5>, codes_w4<6>, codes_w4<7>, codes_w4<8>};
  static constexpr TileJob kWide[kWideTile] = {
      wide_w4<1>, wide_w4<2>,  wide_w4<3>,  wide_w4<4>,  wide_w4<5>,  wide_w4<6>,  wide_w4<7>,  wide_w4<8>,
      wide_w4<9>, wide_w4<10>, wide_w4<11>, wide_w4<12>, wide_w4<13>, wide_w4<14>, wide_w4<15>, wide_w4<16>};
  if (job.tokens <= kCodeTile) {
    by_tiles(job, kCodeTile, kByTokens);
  } else {
    by_tiles(job, kWideTile, kWide);
  }
}

void product_bytes(const IntegerProduct& job) {
  static constexpr TileJob kWide[kWideTile] = {
      wide_bytes<1>,  wide_bytes<2>,  wide_bytes<3>,  wide_bytes<4>,  wide_bytes<5>,  wide_bytes<6>,
      wide_bytes<7>,  wide_bytes<8>,  wide_bytes<9>,  wide_bytes<10>, wide_bytes<11>, wide_bytes<12>,
      wide_bytes<13>, wide_bytes<14>, wide_bytes<15>, wide_bytes<16>};
  static constexpr void (*kByTokens[])(const IntegerProduct&, size_t) = {
      bytes_rows<1>, bytes_rows<2>, bytes_rows<3>, bytes_rows<4>, bytes_rows<5>, bytes_rows<6>};
  constexpr size_t kTile = 6;       // 6 x 2 is the fastest tile measured on Zen 4, for panels in cache
  constexpr size_t kStreamed = 32;  // up to this many tokens reading the panels from memory is the limit
  if (job.tokens <= kStreamed) {
    by_tiles(job, kWideTile, kWide);
    return;
  }
  for (size_t t = 0; t < job.tokens; t += kTile) {
    const size_t rows = job.tokens - t < kTile ? job.tokens - t : kTile;
    kByTokens[rows - 1](job, t);
  }
}

void expand_g128(const uint8_t* panel, size_t columns, uint8_t* bytes) {
  const __m512i nibble = _mm512_set1_epi8(15);
  for (size_t g = 0; g < columns / tile::kGroupColumns; ++g, panel += tile::kGroupBytes) {
    const GroupBytes terms(panel);
    for (size_t i = 0; i < 16; ++i, bytes += 2 * kLine) {
      const __m512i both = _mm512_loadu_si512(panel + i * kLine);
      _mm512_storeu_si512(bytes, terms.expand(_mm512_and_si512(both, nibble)));
      _mm512_storeu_si512(bytes + kLine, terms.expand(_mm512_and_si512(_mm512_srli_epi16(both, 4), nibble)));
    }
  }
}

void expand_w4(const uint8_t* panel, size_t columns, uint8_t* bytes) {
  const __m512i nibble = _mm512_set1_epi8(15);
  for (size_t i = 0; i < columns / 8; ++i, bytes += 2 * kLine) {
    const __m512i both = _mm512_loadu_si512(panel + i * kLine);
    _mm512_storeu_si512(bytes, _mm512_and_si512(both, nibble));
    _mm512_storeu_si512(bytes + kLine, _mm512_and_si512(_mm512_srli_epi16(both, 4), nibble));
  }
}

}  // namespace

// Expanding a panel costs as much as multiplying it with about nine tokens.
constinit const IntegerKernels kIntegerKernels{
    .code_tokens = 64,
    .row_nibbles = {.product = product_codes_w4, .expand = expand_w4},
    .progressive = {.product = product_codes_g128, .expand = expand_g128},
    .product_bytes = product_bytes,
};

}  // namespace tessera::cpu::avx512
