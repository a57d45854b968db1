// Integer dot products of attention with 256-bit vectors. 8-bit codes widen to words and meet 16-bit queries
// or 15-bit weights in vpmaddwd; 4-bit codes stay bytes for vpmaddubsw, several partial sums to a word.
#include <immintrin.h>

#include "backends/cpu/avx2/avx2.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera::cpu::avx2 {

namespace {

constexpr size_t kRows = tile::kPanelRows;
constexpr size_t kLine = tile::kLineBytes;
constexpr size_t kWideTile = 2;    // queries a tile: 4 sums each beside 4 vectors of words
constexpr size_t kNibbleTile = 4;  // queries a tile: 2 sums and 2 partial sums each in halves

// Lines of 4-bit codes whose vpmaddubsw results fit a word: each result adds two products, a line gives two
// results.
constexpr size_t kKeyLines = 4;
constexpr size_t kValueLines = 4;
static_assert(2 * kKeyLines * 2 * 15 * kLargestQuery8 <= 32767, "partial sums of scores fit a word");
static_assert(2 * kValueLines * 2 * 8 * kLargestWeight8 <= 32767,
              "partial sums of weighted values fit a word");

__m256i load_bytes(const uint8_t* at) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)); }

__m256i broadcast4(const uint8_t* x) {
  int32_t four = 0;
  __builtin_memcpy(&four, x, sizeof four);
  return _mm256_set1_epi32(four);
}

__m256i broadcast8(const uint8_t* x) {
  int64_t eight = 0;
  __builtin_memcpy(&eight, x, sizeof eight);
  return _mm256_set1_epi64x(eight);
}

__m256 halves(const uint8_t* at) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
}

enum class Side { keys, values };

// Dot products of one panel of 8-bit codes with T rows of 16-bit words: rows 0..7 and 8..15.
template <Side kSide, size_t T>
[[gnu::always_inline]] inline void multiply_bytes(const uint8_t* panel, size_t lines, const uint8_t* words,
                                                  size_t stride, __m256i (&out)[T][2]) {
  __m256i sums[T][4];  // each vector: four rows of two partial sums
#pragma GCC unroll 2
  for (size_t t = 0; t < T; ++t) {
#pragma GCC unroll 4
    for (size_t j = 0; j < 4; ++j) sums[t][j] = _mm256_setzero_si256();
  }
#pragma GCC unroll 1
  for (size_t i = 0; i < lines; ++i) {
    __m256i codes[4];
#pragma GCC unroll 4
    for (size_t j = 0; j < 4; ++j) {
      const __m128i four_rows = _mm_loadu_si128(reinterpret_cast<const __m128i*>(panel + i * kLine + 16 * j));
      codes[j] = kSide == Side::keys ? _mm256_cvtepu8_epi16(four_rows) : _mm256_cvtepi8_epi16(four_rows);
    }
#pragma GCC unroll 2
    for (size_t t = 0; t < T; ++t) {
      const __m256i x = broadcast8(words + t * stride + 8 * i);
#pragma GCC unroll 4
      for (size_t j = 0; j < 4; ++j)
        sums[t][j] = _mm256_add_epi32(sums[t][j], _mm256_madd_epi16(codes[j], x));
    }
  }
#pragma GCC unroll 2
  for (size_t t = 0; t < T; ++t) {
#pragma GCC unroll 2
    for (size_t h = 0; h < 2; ++h) {
      // hadd gives rows 0 1 4 5 | 2 3 6 7 of its eight.
      const __m256i pairs = _mm256_hadd_epi32(sums[t][2 * h], sums[t][2 * h + 1]);
      out[t][h] = _mm256_permute4x64_epi64(pairs, 0xd8);
    }
  }
}

template <Side kSide>
[[gnu::always_inline]] inline __m256i pair_products(__m256i codes, __m256i digits) {
  return kSide == Side::keys ? _mm256_maddubs_epi16(codes, digits) : _mm256_maddubs_epi16(digits, codes);
}

// The same with 4-bit codes and bytes of digits.
template <Side kSide, size_t T>
[[gnu::always_inline]] inline void multiply_nibbles(const uint8_t* panel, size_t lines, const uint8_t* digits,
                                                    size_t stride, __m256i (&sums)[T][2]) {
  constexpr size_t kLines = kSide == Side::keys ? kKeyLines : kValueLines;
  const __m256i nibble = _mm256_set1_epi8(15);
  const __m256i middle = _mm256_set1_epi8(8);
  const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 4
  for (size_t t = 0; t < T; ++t) sums[t][0] = sums[t][1] = _mm256_setzero_si256();
#pragma GCC unroll 1
  for (size_t first = 0; first < lines; first += kLines) {
    const size_t last = lines - first < kLines ? lines : first + kLines;
#pragma GCC unroll 2
    for (size_t h = 0; h < 2; ++h) {
      __m256i partial[T];
#pragma GCC unroll 4
      for (size_t t = 0; t < T; ++t) partial[t] = _mm256_setzero_si256();
#pragma GCC unroll 1
      for (size_t i = first; i < last; ++i) {
        const __m256i both = load_bytes(panel + i * kLine + 32 * h);
        __m256i low = _mm256_and_si256(both, nibble);
        __m256i high = _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble);
        if constexpr (kSide ==
                      Side::values) {  // signed, around the middle; keys are unsigned and corrected once
          low = _mm256_sub_epi8(low, middle);
          high = _mm256_sub_epi8(high, middle);
        }
#pragma GCC unroll 4
        for (size_t t = 0; t < T; ++t) {
          const uint8_t* x = digits + t * stride + 8 * i;
          partial[t] = _mm256_add_epi16(partial[t], pair_products<kSide>(low, broadcast4(x)));
          partial[t] = _mm256_add_epi16(partial[t], pair_products<kSide>(high, broadcast4(x + 4)));
        }
      }
#pragma GCC unroll 4
      for (size_t t = 0; t < T; ++t)
        sums[t][h] = _mm256_add_epi32(sums[t][h], _mm256_madd_epi16(partial[t], ones));
    }
  }
}

template <size_t T>
void score_tile8(const ScoreProduct& job, size_t panel, size_t query) {
  const uint8_t* codes = job.panels + panel * job.panel_stride;
  __m256i sums[T][2];
  multiply_bytes<Side::keys, T>(codes, job.head_dim / 4, job.query + query * job.query_stride,
                                job.query_stride, sums);
  for (size_t h = 0; h < 2; ++h) {
    const __m256 scales = halves(codes + job.head_dim * kRows + 16 * h);
    for (size_t t = 0; t < T; ++t) {
      const QueryTerms& terms = job.terms[query + t];
      const __m256i zero = _mm256_set1_epi32(128 * (256 * terms.high_sum + terms.low_sum));
      const __m256 dot = _mm256_cvtepi32_ps(_mm256_sub_epi32(sums[t][h], zero));
      _mm256_storeu_ps(job.y + (query + t) * job.y_stride + panel * kRows + 8 * h,
                       _mm256_mul_ps(_mm256_mul_ps(scales, _mm256_set1_ps(terms.factor)), dot));
    }
  }
}

template <size_t T>
void score_tile4(const ScoreProduct& job, size_t panel, size_t query) {
  const uint8_t* codes = job.panels + panel * job.panel_stride;
  __m256i sums[T][2];
  multiply_nibbles<Side::keys, T>(codes, job.head_dim / 8, job.query + query * job.query_stride,
                                  job.query_stride, sums);
  const uint8_t* tail = codes + job.head_dim * kRows / 2;
  for (size_t h = 0; h < 2; ++h) {
    const __m256 scales = halves(tail + 16 * h);
    const __m256 minima = halves(tail + 2 * kRows + 16 * h);
    for (size_t t = 0; t < T; ++t) {
      const QueryTerms& terms = job.terms[query + t];
      const __m256 dot = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[t][h]), _mm256_set1_ps(terms.factor),
                                         _mm256_set1_ps(terms.middle));
      _mm256_storeu_ps(job.y + (query + t) * job.y_stride + panel * kRows + 8 * h,
                       _mm256_fmadd_ps(scales, dot, _mm256_mul_ps(minima, _mm256_set1_ps(terms.total))));
    }
  }
}

template <size_t T>
void store_values(const ValueProduct& job, size_t panel, size_t query, const __m256i (&sums)[T][2]) {
  for (size_t t = 0; t < T; ++t) {
    for (size_t h = 0; h < 2; ++h) {
      float* y = job.y + (query + t) * job.y_stride + panel * kRows + 8 * h;
      _mm256_storeu_ps(y, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[t][h]),
                                          _mm256_set1_ps(job.steps[query + t]), _mm256_loadu_ps(y)));
    }
  }
}

template <size_t T>
void value_tile8(const ValueProduct& job, size_t panel, size_t query) {
  __m256i sums[T][2];
  multiply_bytes<Side::values, T>(job.panels + panel * job.panel_stride, (job.keys + 3) / 4,
                                  job.digits + query * kWeightBytes, kWeightBytes, sums);
  store_values<T>(job, panel, query, sums);
}

template <size_t T>
void value_tile4(const ValueProduct& job, size_t panel, size_t query) {
  __m256i sums[T][2];
  multiply_nibbles<Side::values, T>(job.panels + panel * job.panel_stride, (job.keys + 7) / 8,
                                    job.digits + query * kWeightBytes, kWeightBytes, sums);
  store_values<T>(job, panel, query, sums);
}

template <class Job>
using TileJob = void (*)(const Job&, size_t panel, size_t query);

template <class Job>
void by_tiles(const Job& job, size_t rows, const TileJob<Job>* tiles, size_t most) {
  const size_t count = (job.queries + most - 1) / most;
  for (size_t panel = 0; panel < (rows + kRows - 1) / kRows; ++panel) {
    size_t query = 0;
    for (size_t i = 0; i < count; ++i) {
      const size_t next = job.queries * (i + 1) / count;
      tiles[next - query - 1](job, panel, query);
      query = next;
    }
  }
}

void score_keys8(const ScoreProduct& job) {
  static constexpr TileJob<ScoreProduct> kTiles[kWideTile] = {score_tile8<1>, score_tile8<2>};
  by_tiles(job, job.keys, kTiles, kWideTile);
}

void score_keys4(const ScoreProduct& job) {
  static constexpr TileJob<ScoreProduct> kTiles[kNibbleTile] = {score_tile4<1>, score_tile4<2>,
                                                                score_tile4<3>, score_tile4<4>};
  by_tiles(job, job.keys, kTiles, kNibbleTile);
}

void add_values8(const ValueProduct& job) {
  static constexpr TileJob<ValueProduct> kTiles[kWideTile] = {value_tile8<1>, value_tile8<2>};
  by_tiles(job, job.head_dim, kTiles, kWideTile);
}

void add_values4(const ValueProduct& job) {
  static constexpr TileJob<ValueProduct> kTiles[kNibbleTile] = {value_tile4<1>, value_tile4<2>,
                                                                value_tile4<3>, value_tile4<4>};
  by_tiles(job, job.head_dim, kTiles, kNibbleTile);
}

}  // namespace

constinit const AttentionProductKernels kAttentionProducts{
    .score_keys8 = score_keys8,
    .score_keys4 = score_keys4,
    .add_values8 = add_values8,
    .add_values4 = add_values4,
};

}  // namespace tessera::cpu::avx2
