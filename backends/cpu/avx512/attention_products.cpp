// Integer dot products of attention with vpdpbusd: scores from K panels (codes unsigned, query digits signed)
// and weighted values from V panels (weight digits unsigned, codes signed).
#include <immintrin.h>

#include "backends/cpu/avx512/avx512.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera::cpu::avx512 {

namespace {

constexpr size_t kRows = tile::kPanelRows;
constexpr size_t kLine = tile::kLineBytes;
constexpr size_t kTile = 6;  // queries whose sums stay in registers beside two panels
constexpr size_t kPageTokens = 64;

__m512i broadcast4(const uint8_t* x) {
  int32_t four = 0;
  __builtin_memcpy(&four, x, sizeof four);
  return _mm512_set1_epi32(four);
}

__m512 halves(const void* at) { return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(at))); }

// What is multiplied with what: keys are unsigned codes and signed digits, values signed codes and unsigned
// digits.
enum class Side { keys, values };

template <Side kSide>
[[gnu::always_inline]] inline __m512i dot(__m512i sum, __m512i codes, __m512i digits) {
  sum =
      kSide == Side::keys ? _mm512_dpbusd_epi32(sum, codes, digits) : _mm512_dpbusd_epi32(sum, digits, codes);
  // Ties the sum to one register: GCC 12 otherwise copies every sum to a second one and on to memory each
  // time round.
  __asm__("" : "+v"(sum));
  return sum;
}

// Sums of T rows of digits with P panels; kDigits sums per row and panel, one for each digit.
template <size_t T, size_t P, size_t kDigits>
struct Sums {
  __m512i at[T][P][kDigits];
};

struct Operands {
  const uint8_t* panels;
  size_t panel_stride;
  size_t lines;
  const uint8_t* digits;  // of the first row
  size_t stride;
  size_t low_offset;     // from high digits to low ones
  const uint8_t* ahead;  // beside the panels of the same number; null: nothing to prefetch
};

// Prefetches a line that is read a few pages later. Into the second-level cache: a prefetch into the first
// level would hold one of its few miss buffers for the whole latency of memory.
template <size_t P>
[[gnu::always_inline]] inline void prefetch_line(const Operands& in, size_t line) {
#pragma GCC unroll 2
  for (size_t p = 0; p < P; ++p) _mm_prefetch(in.ahead + p * in.panel_stride + line * kLine, _MM_HINT_T1);
}

// Codes of 8 bits: 4 columns a line. The sums live in plain arrays of this function: the compiler keeps
// those, and nothing more roundabout, in registers.
template <Side kSide, bool kAhead, size_t T, size_t P>
[[gnu::always_inline]] inline void multiply_bytes(const Operands& in, Sums<T, P, 2>& out) {
  const uint8_t* panels = in.panels;
  const uint8_t* digits = in.digits;
  __m512i high[T][P];
  __m512i low[T][P];
#pragma GCC unroll 6
  for (size_t t = 0; t < T; ++t) {
#pragma GCC unroll 2
    for (size_t p = 0; p < P; ++p) high[t][p] = low[t][p] = _mm512_setzero_si512();
  }
#pragma GCC unroll 1
  for (size_t i = 0; i < in.lines; ++i) {
    if constexpr (kAhead) prefetch_line<P>(in, i);
    __m512i codes[P];
#pragma GCC unroll 2
    for (size_t p = 0; p < P; ++p) codes[p] = _mm512_loadu_si512(panels + p * in.panel_stride + i * kLine);
#pragma GCC unroll 6
    for (size_t t = 0; t < T; ++t) {
      const __m512i first = broadcast4(digits + t * in.stride + 4 * i);
#pragma GCC unroll 2
      for (size_t p = 0; p < P; ++p) high[t][p] = dot<kSide>(high[t][p], codes[p], first);
      const __m512i second = broadcast4(digits + t * in.stride + 4 * i + in.low_offset);
#pragma GCC unroll 2
      for (size_t p = 0; p < P; ++p) low[t][p] = dot<kSide>(low[t][p], codes[p], second);
    }
  }
#pragma GCC unroll 6
  for (size_t t = 0; t < T; ++t) {
#pragma GCC unroll 2
    for (size_t p = 0; p < P; ++p) {
      out.at[t][p][0] = high[t][p];
      out.at[t][p][1] = low[t][p];
    }
  }
}

// Codes of 4 bits, 0 … 15 on either side: 8 columns a line. What their middle takes away is a constant of the
// query: score_keys4 and split_weights4 see to it.
template <Side kSide, bool kAhead, size_t T, size_t P>
[[gnu::always_inline]] inline void multiply_nibbles(const Operands& in, Sums<T, P, 1>& out) {
  const __m512i nibble = _mm512_set1_epi8(15);
  const uint8_t* panels = in.panels;
  const uint8_t* digits = in.digits;
  constexpr size_t kChains = P == 1 ? 2 : 1;  // a vpdpbusd chain advances only every fourth cycle
  __m512i sums[kChains][T][P];
#pragma GCC unroll 2
  for (size_t c = 0; c < kChains; ++c) {
#pragma GCC unroll 6
    for (size_t t = 0; t < T; ++t) {
#pragma GCC unroll 2
      for (size_t p = 0; p < P; ++p) sums[c][t][p] = _mm512_setzero_si512();
    }
  }
#pragma GCC unroll 1
  for (size_t i = 0; i < in.lines; ++i) {
    if constexpr (kAhead) prefetch_line<P>(in, i);
    __m512i codes[P][2];
#pragma GCC unroll 2
    for (size_t p = 0; p < P; ++p) {
      const __m512i both = _mm512_loadu_si512(panels + p * in.panel_stride + i * kLine);
      codes[p][0] = _mm512_and_si512(both, nibble);
      codes[p][1] = _mm512_and_si512(_mm512_srli_epi16(both, 4), nibble);
    }
#pragma GCC unroll 2
    for (size_t half = 0; half < 2; ++half) {
#pragma GCC unroll 6
      for (size_t t = 0; t < T; ++t) {
        const __m512i four = broadcast4(digits + t * in.stride + 8 * i + 4 * half);
#pragma GCC unroll 2
        for (size_t p = 0; p < P; ++p)
          sums[half % kChains][t][p] = dot<kSide>(sums[half % kChains][t][p], codes[p][half], four);
      }
    }
  }
#pragma GCC unroll 6
  for (size_t t = 0; t < T; ++t) {
#pragma GCC unroll 2
    for (size_t p = 0; p < P; ++p) {
      out.at[t][p][0] = sums[0][t][p];
      if constexpr (kChains == 2) out.at[t][p][0] = _mm512_add_epi32(sums[0][t][p], sums[1][t][p]);
    }
  }
}

// Prefetches the scales that follow the codes of a K panel.
template <size_t P>
[[gnu::always_inline]] inline void prefetch_scales(const ScoreProduct& job, size_t panel, size_t lines) {
#pragma GCC unroll 2
  for (size_t p = 0; p < P; ++p)
    _mm_prefetch(job.ahead + (panel + p) * job.panel_stride + lines * kLine, _MM_HINT_T1);
}

template <bool kAhead, size_t T, size_t P>
struct Score8 {
  static void run(const ScoreProduct& job, size_t panel, size_t query) {
    const uint8_t* ahead = kAhead ? job.ahead + panel * job.panel_stride : nullptr;
    Sums<T, P, 2> sums;
    const uint8_t* panels = job.panels + panel * job.panel_stride;
    if constexpr (kAhead) prefetch_scales<P>(job, panel, job.head_dim / 4);
    multiply_bytes<Side::keys, kAhead, T, P>(
        {panels, job.panel_stride, job.head_dim / 4, job.query + query * job.query_stride, job.query_stride,
         job.head_dim, ahead},
        sums);
#pragma GCC unroll 2
    for (size_t p = 0; p < P; ++p) {
      const __m512 scales = halves(panels + p * job.panel_stride + job.head_dim * kRows);
#pragma GCC unroll 6
      for (size_t t = 0; t < T; ++t) {
        const QueryTerms& terms = job.terms[query + t];
        const __m512i high = _mm512_sub_epi32(sums.at[t][p][0], _mm512_set1_epi32(128 * terms.high_sum));
        const __m512i low = _mm512_sub_epi32(sums.at[t][p][1], _mm512_set1_epi32(128 * terms.low_sum));
        const __m512 dot = _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32(high, 8), low));
        _mm512_storeu_ps(job.y + (query + t) * job.y_stride + (panel + p) * kRows,
                         _mm512_mul_ps(_mm512_mul_ps(scales, _mm512_set1_ps(terms.factor)), dot));
      }
    }
  }
};

template <bool kAhead, size_t T, size_t P>
struct Score4 {
  static void run(const ScoreProduct& job, size_t panel, size_t query) {
    const uint8_t* ahead = kAhead ? job.ahead + panel * job.panel_stride : nullptr;
    Sums<T, P, 1> sums;
    const uint8_t* panels = job.panels + panel * job.panel_stride;
    if constexpr (kAhead) prefetch_scales<P>(job, panel, job.head_dim / 8);
    multiply_nibbles<Side::keys, kAhead, T, P>(
        {panels, job.panel_stride, job.head_dim / 8, job.query + query * job.query_stride, job.query_stride,
         0, ahead},
        sums);
#pragma GCC unroll 2
    for (size_t p = 0; p < P; ++p) {
      const uint8_t* tail = panels + p * job.panel_stride + job.head_dim * kRows / 2;
      const __m512 scales = halves(tail);
      const __m512 minima = halves(tail + 2 * kRows);
#pragma GCC unroll 6
      for (size_t t = 0; t < T; ++t) {
        const QueryTerms& terms = job.terms[query + t];
        const __m512 dot = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums.at[t][p][0]), _mm512_set1_ps(terms.factor),
                                           _mm512_set1_ps(terms.middle));
        _mm512_storeu_ps(job.y + (query + t) * job.y_stride + (panel + p) * kRows,
                         _mm512_fmadd_ps(scales, dot, _mm512_mul_ps(minima, _mm512_set1_ps(terms.total))));
      }
    }
  }
};

template <bool kAhead, size_t T, size_t P>
struct Value8 {
  static void run(const ValueProduct& job, size_t panel, size_t query) {
    const uint8_t* ahead = kAhead ? job.ahead + panel * job.panel_stride : nullptr;
    Sums<T, P, 2> sums;
    multiply_bytes<Side::values, kAhead, T, P>(
        {job.panels + panel * job.panel_stride, job.panel_stride, (job.keys + 3) / 4,
         job.digits + query * kWeightBytes, kWeightBytes, kPageTokens, ahead},
        sums);
#pragma GCC unroll 2
    for (size_t p = 0; p < P; ++p) {
#pragma GCC unroll 6
      for (size_t t = 0; t < T; ++t) {
        const __m512i all = _mm512_add_epi32(_mm512_slli_epi32(sums.at[t][p][0], 8), sums.at[t][p][1]);
        float* y = job.y + (query + t) * job.y_stride + (panel + p) * kRows;
        _mm512_storeu_ps(y, _mm512_fmadd_ps(_mm512_cvtepi32_ps(all), _mm512_set1_ps(job.steps[query + t]),
                                            _mm512_loadu_ps(y)));
      }
    }
  }
};

template <bool kAhead, size_t T, size_t P>
struct Value4 {
  static void run(const ValueProduct& job, size_t panel, size_t query) {
    const uint8_t* ahead = kAhead ? job.ahead + panel * job.panel_stride : nullptr;
    Sums<T, P, 1> sums;
    multiply_nibbles<Side::values, kAhead, T, P>(
        {job.panels + panel * job.panel_stride, job.panel_stride, (job.keys + 7) / 8,
         job.digits + query * kWeightBytes, kWeightBytes, 0, ahead},
        sums);
#pragma GCC unroll 2
    for (size_t p = 0; p < P; ++p) {
#pragma GCC unroll 6
      for (size_t t = 0; t < T; ++t) {
        float* y = job.y + (query + t) * job.y_stride + (panel + p) * kRows;
        _mm512_storeu_ps(y, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums.at[t][p][0]),
                                            _mm512_set1_ps(job.steps[query + t]), _mm512_loadu_ps(y)));
      }
    }
  }
};

template <class Job>
using TileJob = void (*)(const Job&, size_t panel, size_t query);

// Pairs of panels outside, nearly equal tiles of queries inside; the first tile prefetches what is read
// later.
template <template <bool, size_t, size_t> class Tile, class Job>
void by_tiles(const Job& job, size_t rows) {
  static constexpr TileJob<Job> kTiles[2][kTile][2] = {{{Tile<false, 1, 1>::run, Tile<false, 1, 2>::run},
                                                        {Tile<false, 2, 1>::run, Tile<false, 2, 2>::run},
                                                        {Tile<false, 3, 1>::run, Tile<false, 3, 2>::run},
                                                        {Tile<false, 4, 1>::run, Tile<false, 4, 2>::run},
                                                        {Tile<false, 5, 1>::run, Tile<false, 5, 2>::run},
                                                        {Tile<false, 6, 1>::run, Tile<false, 6, 2>::run}},
                                                       {{Tile<true, 1, 1>::run, Tile<true, 1, 2>::run},
                                                        {Tile<true, 2, 1>::run, Tile<true, 2, 2>::run},
                                                        {Tile<true, 3, 1>::run, Tile<true, 3, 2>::run},
                                                        {Tile<true, 4, 1>::run, Tile<true, 4, 2>::run},
                                                        {Tile<true, 5, 1>::run, Tile<true, 5, 2>::run},
                                                        {Tile<true, 6, 1>::run, Tile<true, 6, 2>::run}}};
  const size_t panels = (rows + kRows - 1) / kRows;
  const size_t count = (job.queries + kTile - 1) / kTile;
  for (size_t panel = 0; panel < panels; panel += 2) {
    const size_t pair = panels - panel < 2 ? 0 : 1;
    size_t query = 0;
    for (size_t i = 0; i < count; ++i) {
      const size_t next = job.queries * (i + 1) / count;
      const size_t ahead = i == 0 && job.ahead != nullptr ? 1 : 0;
      kTiles[ahead][next - query - 1][pair](job, panel, query);
      query = next;
    }
  }
}

void score_keys8(const ScoreProduct& job) { by_tiles<Score8>(job, job.keys); }
void score_keys4(const ScoreProduct& job) { by_tiles<Score4>(job, job.keys); }
void add_values8(const ValueProduct& job) { by_tiles<Value8>(job, job.head_dim); }
void add_values4(const ValueProduct& job) { by_tiles<Value4>(job, job.head_dim); }

}  // namespace

constinit const AttentionProductKernels kAttentionProducts{
    .score_keys8 = score_keys8,
    .score_keys4 = score_keys4,
    .add_values8 = add_values8,
    .add_values4 = add_values4,
};

}  // namespace tessera::cpu::avx512
