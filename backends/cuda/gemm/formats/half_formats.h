// How f16 and bf16 weights are multiplied with float32 activations on the tensor cores. All kernels use this,
// so that a token's result depends neither on its batch nor on the kernel.
//
// Weights are exact operands. An activation is split into two operands, a high part and the rest, taken from
// its bits so that neither overflows. The tensor cores sum 256 columns, starting at zero; these sums are
// added in order in float32. The functions below work on 32 columns, staged in shared memory: 64 bytes for a
// row of weights, 128 for a row of activations, at offsets for which the reads of a warp have no bank
// conflicts.
#pragma once

#include "backends/cuda/gemm/float_linear.h"

namespace tessera::cuda::halves {

inline constexpr uint32_t kBlockColumns = 32;
inline constexpr uint32_t kChunkColumns = 256;  // summed in the tensor cores
inline constexpr uint32_t kWeightRowBytes = 2 * kBlockColumns;
inline constexpr uint32_t kInputRowBytes = 4 * kBlockColumns;
inline constexpr uint32_t kWeightPieces = kWeightRowBytes / 16;
inline constexpr uint32_t kInputPieces = kInputRowBytes / 16;

// Byte offset of 16 bytes of a staged row. The eight rows that ldmatrix reads at once are in different banks,
// and so are the 32 bytes of each of the four tokens that half a warp reads.
constexpr uint32_t weight_byte(uint32_t row, uint32_t piece) {
  return row * kWeightRowBytes + (piece ^ row / 2 % kWeightPieces) * 16;
}
constexpr uint32_t input_byte(uint32_t token, uint32_t piece) {
  return token * kInputRowBytes + ((piece / 2 ^ token % 4) * 2 + piece % 2) * 16;
}

// mma.m16n8k16 with bfloat16. An activation is split into its upper 16 bits and the rest, rounded to
// bfloat16; their sum has a relative error of at most 2^-15. Infinite activations give NaN.
struct Bf16 {
  struct Weights {
    uint32_t a[4];
  };
  struct Inputs {
    uint32_t high[2];
    uint32_t low[2];
  };

  TESSERA_DEVICE static Weights weights(const uint32_t (&words)[4]) {
    return {{words[0], words[1], words[2], words[3]}};
  }
  TESSERA_DEVICE static Inputs inputs(const Words2 (&x)[2]) {
    Inputs made;
    TESSERA_UNROLL for (uint32_t i = 0; i < 2; ++i) {
      made.high[i] = prmt(x[i].x, x[i].y, 0x7632);
      made.low[i] = floats_to_bf16s(rest(x[i].x), rest(x[i].y));
    }
    return made;
  }
  TESSERA_DEVICE static void multiply(float (&d)[4], const Weights& w, const Inputs& x) {
    mma_m16n8k16_bf16(d, w.a, x.high);
    mma_m16n8k16_bf16(d, w.a, x.low);
  }

 private:
  TESSERA_DEVICE static float rest(uint32_t x) { return add_rn(bits_float(x), -bits_float(x & 0xffff0000u)); }
};

// mma.m16n8k8 with tf32, which holds every f16 exactly. An activation is split into its upper 19 bits and the
// upper 19 bits of the rest; their sum has a relative error of at most 2^-20. A lane's words of weights are
// columns 2 p and 2 p + 1; they are used as columns p and p + 4 of a step, for weights and activations alike.
struct F16 {
  struct Weights {
    uint32_t a[2][4];
  };
  struct Inputs {
    uint32_t high[2][2];
    uint32_t low[2][2];
  };

  TESSERA_DEVICE static Weights weights(const uint32_t (&words)[4]) {
    Weights made;
    TESSERA_UNROLL for (uint32_t i = 0; i < 4; ++i) {
      made.a[i / 2][i % 2] = float_bits(half_to_float(static_cast<uint16_t>(words[i])));
      made.a[i / 2][i % 2 + 2] = float_bits(half_to_float(static_cast<uint16_t>(words[i] >> 16)));
    }
    return made;
  }
  TESSERA_DEVICE static Inputs inputs(const Words2 (&x)[2]) {
    Inputs made;
    TESSERA_UNROLL for (uint32_t i = 0; i < 2; ++i) {
      split(x[i].x, made.high[i][0], made.low[i][0]);
      split(x[i].y, made.high[i][1], made.low[i][1]);
    }
    return made;
  }
  TESSERA_DEVICE static void multiply(float (&d)[4], const Weights& w, const Inputs& x) {
    TESSERA_UNROLL for (uint32_t i = 0; i < 2; ++i) {
      mma_m16n8k8_tf32(d, w.a[i], x.high[i]);
      mma_m16n8k8_tf32(d, w.a[i], x.low[i]);
    }
  }

 private:
  TESSERA_DEVICE static void split(uint32_t x, uint32_t& high, uint32_t& low) {
    constexpr uint32_t kTf32 = 0xffffe000u;
    high = x & kTf32;
    low = float_bits(add_rn(bits_float(x), -bits_float(high))) & kTf32;
  }
};

// The weight matrix of a job.
class Matrix {
 public:
  TESSERA_DEVICE explicit Matrix(const LinearJob& job)
      : rows_(job.weights.rows),
        columns_(job.weights.columns),
        first_column_(job.first_column),
        row_bytes_(2 * layout::float_row_elements(job.weights.columns)),
        codes_(job.weights.codes),
        bias_(job.bias) {}

  TESSERA_DEVICE uint32_t panels() const { return (rows_ + 15) / 16; }
  TESSERA_DEVICE uint32_t columns() const { return columns_; }
  TESSERA_DEVICE size_t row_bytes() const { return row_bytes_; }
  // Rows are padded to whole panels of 16.
  TESSERA_DEVICE Global<const std::byte> row(uint32_t row) const { return codes_ + row * row_bytes_; }
  TESSERA_DEVICE void store(const LinearJob& job, uint32_t token, uint32_t row, float sum) const {
    if (row >= rows_ || token >= job.tokens) return;
    if (!bias_.null()) sum = add_rn(sum, bias_[row]);
    job.y.floats(token).store(first_column_ + row, sum);
  }

 private:
  uint32_t rows_;
  uint32_t columns_;
  uint32_t first_column_;
  size_t row_bytes_;
  Global<const std::byte> codes_;
  Global<const float> bias_;
};

// A thread's share of the copies of activations: 16 bytes of every kStep-th token, kCount of them. Tokens and
// columns beyond the last are filled with zeros.
template <uint32_t kStep, uint32_t kCount>
class InputCopies {
 public:
  static_assert(kStep == 2 || kStep % 4 == 0,
                "so that the swizzle of tokens is that of the first, or flipped");

  // token: the thread's first one. column: its first one in a stage that begins at column 0. place: byte
  // offset in the stage of the first token's 16 bytes.
  TESSERA_DEVICE InputCopies(const LinearJob& job, uint32_t columns, uint32_t token, uint32_t column,
                             uint32_t place)
      : tokens_(token < job.tokens ? job.tokens - token : 0),
        columns_(column < columns ? columns - column : 0),
        place_(place),
        step_(kStep * job.x.stride),
        x_(job.x.bytes(token) + size_t{4} * column) {}

  TESSERA_DEVICE void start(uint32_t first_column, Shared<std::byte> stage) const {
    const uint32_t left = first_column < columns_ ? columns_ - first_column : 0;
    const uint32_t bytes = left < 4 ? 4 * left : 16;
    Global<std::byte> from = x_ + size_t{4} * first_column;
    TESSERA_UNROLL for (uint32_t i = 0; i < kCount; ++i) {
      const uint32_t to = (place_ ^ i * kStep % 4 * 32) + i * kStep * kInputRowBytes;
      cp_async_16_part(stage.as<std::byte>(to).address(), from.address(), i * kStep < tokens_ ? bytes : 0);
      from = from + step_;
    }
  }

 private:
  uint32_t tokens_;   // left from the thread's first one on
  uint32_t columns_;  // left from the thread's first one on
  uint32_t place_;
  size_t step_;  // bytes
  Global<std::byte> x_;
};

// Adds the products of 32 staged columns of 16 kPanels rows and 8 kEights tokens. The four sums of a fragment
// are rows lane / 4 and lane / 4 + 8 by tokens 2 (lane % 4) and 2 (lane % 4) + 1.
template <class Format, uint32_t kPanels, uint32_t kEights>
TESSERA_DEVICE void add_block(float (&sums)[kPanels][kEights][4], Shared<std::byte> weights,
                              Shared<std::byte> inputs) {
  const uint32_t lane = lane_index();
  TESSERA_UNROLL for (uint32_t step = 0; step < kBlockColumns / 16; ++step) {
    typename Format::Inputs x[kEights];
    TESSERA_UNROLL for (uint32_t e = 0; e < kEights; ++e) {
      const Shared<Words2> row = inputs.as<Words2>(e * 8 * kInputRowBytes + 8 * (lane % 4));
      const Words2 pairs[2] = {row.as<Words2>(input_byte(lane / 4, 4 * step))[0],
                               row.as<Words2>(input_byte(lane / 4, 4 * step + 2))[0]};
      x[e] = Format::inputs(pairs);
    }
    TESSERA_UNROLL for (uint32_t p = 0; p < kPanels; ++p) {
      uint32_t words[4];
      const uint32_t byte = weight_byte(lane % 16, 2 * step + lane / 16);
      ldmatrix_x4(words, weights.as<std::byte>(p * 16 * kWeightRowBytes + byte).address());
      const auto w = Format::weights(words);
      TESSERA_UNROLL for (uint32_t e = 0; e < kEights; ++e) Format::multiply(sums[p][e], w, x[e]);
    }
  }
}

}  // namespace tessera::cuda::halves
