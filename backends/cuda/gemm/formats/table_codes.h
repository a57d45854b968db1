// Turns a lane's stored words into operands of the tensor cores: codes select bytes of a table in registers,
// or pairs of bfloat16 entries in shared memory. Everything that differs between table formats and types of
// activations is here.
#pragma once

#include <type_traits>

#include "backends/cuda/gemm/table_linear.h"
#include "graph/bf16_row.h"
#include "graph/q8_row.h"

namespace tessera::cuda::tables {

// Sizes of groups, blocks and chunks of columns relative to each other, all powers of two.
struct Grouping {
  uint32_t group_shift;  // log2 of the steps of 32 columns in a group: 0 … 3
  uint32_t chunk_shift;  // log2 of the blocks in a chunk, which has whole groups: 1 for groups of 256 columns
  uint32_t chunk_group_shift;  // log2 of the groups in a chunk
  TESSERA_BOTH explicit Grouping(uint32_t group)
      : group_shift(group == 256 ? 3 : group / 64),
        chunk_shift(group_shift == 3 ? 1 : 0),
        chunk_group_shift(group_shift < 2 ? 2 - group_shift : 0) {}
  TESSERA_BOTH uint32_t group_steps() const { return 1u << group_shift; }
  TESSERA_BOTH uint32_t chunk_blocks() const { return 1u << chunk_shift; }
  TESSERA_BOTH uint32_t chunk_groups() const { return 1u << chunk_group_shift; }
  // Index within the chunk of the group that a block's step belongs to.
  TESSERA_BOTH uint32_t slot_of(uint32_t step) const { return step >> group_shift; }
  // Whether a group ends after the first `steps` steps of a row.
  TESSERA_BOTH bool ends(uint32_t steps) const { return (steps & (group_steps() - 1)) == 0; }
};

// Reads a lane's stored words of a block in shared or global memory.
template <uint32_t kBits, template <class> class Memory, class Byte>
TESSERA_DEVICE void load_words(Memory<Byte> block, uint32_t (&stored)[2 * kBits]) {
  using Four = std::conditional_t<std::is_const_v<Byte>, const Words4, Words4>;
  using Two = std::conditional_t<std::is_const_v<Byte>, const Words2, Words2>;
  TESSERA_UNROLL for (uint32_t i = 0; i < kBits / 2; ++i) {
    const Words4 words = block.template as<Four>(512 * i)[lane_index()];
    stored[4 * i] = words.x;
    stored[4 * i + 1] = words.y;
    stored[4 * i + 2] = words.z;
    stored[4 * i + 3] = words.w;
  }
  if constexpr (kBits == 3) {
    const Words2 last = block.template as<Two>(512)[lane_index()];
    stored[4] = last.x;
    stored[5] = last.y;
  }
}

// The codes of nibble word `index` (0..7) from a lane's stored words: a code in each nibble, its other bits
// zero, or with 8 bits two words of bytes.
template <uint32_t kBits>
TESSERA_DEVICE auto row_codes(const uint32_t (&stored)[2 * kBits], uint32_t index) {
  if constexpr (kBits == 8) {
    return Words2{stored[2 * index], stored[2 * index + 1]};
  } else if constexpr (kBits == 4) {
    return stored[index];
  } else if constexpr (kBits == 2) {
    return stored[index / 2] >> 2 * (index % 2) & 0x33333333u;
  } else {
    const uint32_t first = index / 4 * 3;
    if (index % 4 < 3) return stored[first + index % 4] & 0x77777777u;
    return (stored[first] >> 3 & 0x11111111u) | (stored[first + 1] >> 2 & 0x22222222u) |
           (stored[first + 2] >> 1 & 0x44444444u);
  }
}

// Selectors of prmt for four codes, in the low 16 bits. With 16 entries the three low bits of a code select
// an entry in each half of the table, and its fourth bit selects the half.
struct Selectors {
  uint32_t within;
  uint32_t half;
};

// Selectors for the first four and the last four codes of a nibble word.
template <uint32_t kBits>
TESSERA_DEVICE void select(uint32_t codes, Selectors& first, Selectors& second) {
  if constexpr (kBits == 4) {
    first = {codes & 0x77777777u, lop3<0xea>(codes >> 1, 0x44444444u, 0x32103210u)};
  } else {
    first = {codes, 0};
  }
  second = {first.within >> 16, first.half >> 16};
}

// Looks up the bytes of four codes in a table of 2^kBits.
template <uint32_t kBits>
TESSERA_DEVICE uint32_t look_up(const Words4& bytes, const Selectors& codes) {
  if constexpr (kBits == 2) {
    return prmt(bytes.x, bytes.x, codes.within);
  } else if constexpr (kBits == 3) {
    return prmt(bytes.x, bytes.y, codes.within);
  } else {
    return prmt(prmt(bytes.x, bytes.y, codes.within), prmt(bytes.z, bytes.w, codes.within), codes.half);
  }
}

// Common to all classes for 8-bit activations: sums are exact integers, and one mma multiplies a step of 32
// columns.
struct Int8Inputs {
  static constexpr uint32_t kElementBytes = 1;
  static constexpr uint32_t kSharedBytes = 0;
  using Sum = int32_t;
  using Inputs = Words2;  // a lane's eight columns of a step, of one token
  struct Operand {
    uint32_t a[1][4];
  };

  TESSERA_DEVICE static void multiply(Sum (&d)[4], const Operand& operand, const Inputs& x) {
    const uint32_t b[2] = {x.x, x.y};
    mma_m16n8k32_s8(d, operand.a[0], b);
  }

  // For wgmma, which reads B from shared memory: 16 bytes of a row of activations are the columns of two
  // lanes; their first and second halves go to the first and second half of the columns of an operand, 16
  // bytes apart.
  using InputPiece = Words2;
  TESSERA_DEVICE static InputPiece input_piece(const Words4& x, uint32_t number) {
    return number == 0 ? InputPiece{x.x, x.z} : InputPiece{x.y, x.w};
  }
  template <uint32_t kValues>
  TESSERA_DEVICE static void multiply_tile(Sum (&d)[kValues], const uint32_t (&a)[4], uint64_t b,
                                           bool accumulate) {
    wgmma_k32_s8(d, a, b, accumulate);
  }
  // Converts a group's sum to float. It has at most 256 terms of magnitude up to 128 * 127, so it is below
  // 2^22 and fits in the low bits of 1.5 * 2^23. This takes two instructions of the main pipeline, where a
  // conversion would use a slower unit.
  TESSERA_DEVICE static float float_of(Sum sum) {
    static_assert(256 * 128 * 127 < 1 << 22);
    return add_rn(bits_float(0x4b400000u + static_cast<uint32_t>(sum)), -12582912.0f);
  }

  // The row's stored sums of activations, one for each step.
  TESSERA_DEVICE static Global<Sum> sums_of(Global<std::byte> row, uint32_t columns) {
    return row.as<Sum>(q8::fine_sums_offset(columns));
  }
  // The sum of a row of activations over `count` steps from `first` on.
  TESSERA_DEVICE static float sum_of(Global<std::byte> row, uint32_t columns, uint32_t first,
                                     uint32_t count) {
    const Global<Sum> sums = sums_of(row, columns);
    Sum sum = 0;
    for (uint32_t i = 0; i < count; ++i) sum += sums[first + i];
    return static_cast<float>(sum);
  }
  // The factor of the sum over all groups: bytes of a table are 127 times its values.
  TESSERA_DEVICE static float factor(Global<std::byte> row, uint32_t columns, bool table) {
    const float scale = row.as<float>(q8::scale_offset(columns))[0];
    return table ? divide_rn(scale, 127.0f) : scale;
  }
};

// Weights of 2 to 4 bits. kNested_: with the levels of int4k.
template <uint32_t kCodeBits, bool kNested_ = false>
class Int8Table : public Int8Inputs {
 public:
  static constexpr uint32_t kBits = kCodeBits;
  static constexpr bool kNested = kNested_;

  TESSERA_DEVICE Int8Table(Global<const std::byte> entries, Shared<std::byte>)
      : bytes_(entries.as<const Words4>(offsetof(table_layout::Entries, int8))[0]) {}

  // The operand for one step from the nibble words of rows g (upper) and g + 8 (lower).
  TESSERA_DEVICE Operand operand(uint32_t upper, uint32_t lower) const {
    Selectors codes[4];
    select<kBits>(upper, codes[0], codes[2]);
    select<kBits>(lower, codes[1], codes[3]);
    return {{{look_up<kBits>(bytes_, codes[0]), look_up<kBits>(bytes_, codes[1]),
              look_up<kBits>(bytes_, codes[2]), look_up<kBits>(bytes_, codes[3])}}};
  }

 private:
  Words4 bytes_;
};

// Weights of 8 bits are operands as they are stored.
class Int8Bytes : public Int8Inputs {
 public:
  static constexpr uint32_t kBits = 8;
  static constexpr bool kNested = false;

  TESSERA_DEVICE Int8Bytes(Global<const std::byte>, Shared<std::byte>) {}

  TESSERA_DEVICE static Operand operand(const Words2& upper, const Words2& lower) {
    return {{{upper.x, lower.x, upper.y, lower.y}}};
  }
};

// Common to all classes for bfloat16 activations, where a step takes two mma, the first for the low halves
// of nibble words.
struct Bf16Inputs {
  static constexpr uint32_t kElementBytes = 2;
  using Sum = float;
  using Inputs = Words4;
  struct Operand {
    uint32_t a[2][4];
  };

  // 16 bytes of a row of activations are one lane's, for both halves of two products.
  using InputPiece = uint32_t;
  template <uint32_t kValues>
  TESSERA_DEVICE static void multiply_tile(Sum (&d)[kValues], const uint32_t (&a)[4], uint64_t b,
                                           bool accumulate) {
    wgmma_k16_bf16(d, a, b, accumulate);
  }
  TESSERA_DEVICE static float float_of(Sum sum) { return sum; }

  TESSERA_DEVICE static Global<Sum> sums_of(Global<std::byte> row, uint32_t columns) {
    return row.as<Sum>(bf16_row::sums_offset(columns));
  }
  TESSERA_DEVICE static float sum_of(Global<std::byte> row, uint32_t columns, uint32_t first,
                                     uint32_t count) {
    const Global<Sum> sums = sums_of(row, columns);
    Sum sum = 0;
    for (uint32_t i = 0; i < count; ++i) sum = add_rn(sum, sums[first + i]);
    return sum;
  }
  TESSERA_DEVICE static float factor(Global<std::byte>, uint32_t, bool) { return 1.0f; }

 protected:
  // With operands of columns 0 and 2, and 1 and 3, of each four: the order in a bf16 row.
  TESSERA_DEVICE static void multiply_in_row_order(Sum (&d)[4], const Operand& operand, const Inputs& x) {
    const uint32_t first[2] = {x.x, x.y};
    const uint32_t second[2] = {x.z, x.w};
    mma_m16n8k16_bf16(d, operand.a[0], first);
    mma_m16n8k16_bf16(d, operand.a[1], second);
  }
  TESSERA_DEVICE static InputPiece piece_in_row_order(const Words4& x, uint32_t number) {
    return number < 2 ? (number == 0 ? x.x : x.y) : (number == 2 ? x.z : x.w);
  }
};

// Weights of 2 or 3 bits: both bytes of an entry are looked up in registers.
template <uint32_t kCodeBits>
class Bf16Table : public Bf16Inputs {
 public:
  static constexpr uint32_t kBits = kCodeBits;
  static constexpr bool kNested = false;
  static constexpr uint32_t kSharedBytes = 0;

  TESSERA_DEVICE Bf16Table(Global<const std::byte> entries, Shared<std::byte>)
      : low_(entries.as<const Words4>(offsetof(table_layout::Entries, bf16_low))[0]),
        high_(entries.as<const Words4>(offsetof(table_layout::Entries, bf16_high))[0]) {}

  TESSERA_DEVICE Operand operand(uint32_t upper, uint32_t lower) const {
    Operand result;
    Selectors codes[4];
    select<kBits>(upper, codes[0], codes[2]);
    select<kBits>(lower, codes[1], codes[3]);
    quad(codes[0], result.a[0][0], result.a[0][2]);
    quad(codes[1], result.a[0][1], result.a[0][3]);
    quad(codes[2], result.a[1][0], result.a[1][2]);
    quad(codes[3], result.a[1][1], result.a[1][3]);
    return result;
  }
  TESSERA_DEVICE static void multiply(Sum (&d)[4], const Operand& operand, const Inputs& x) {
    multiply_in_row_order(d, operand, x);
  }
  TESSERA_DEVICE static InputPiece input_piece(const Words4& x, uint32_t number) {
    return piece_in_row_order(x, number);
  }

 private:
  // The entries of four columns as pairs of columns 0 and 2, and 1 and 3, the order in a bf16 row.
  TESSERA_DEVICE void quad(const Selectors& codes, uint32_t& even, uint32_t& odd) const {
    const uint32_t low = look_up<kBits>(low_, codes);
    const uint32_t high = look_up<kBits>(high_, codes);
    even = prmt(low, high, 0x6240u);
    odd = prmt(low, high, 0x7351u);
  }

  Words4 low_;
  Words4 high_;
};

// Weights of 8 bits: a byte becomes the last of a float32 number whose other bytes make it 2^23 + 128 too
// large. The difference has eight bits at most, so its upper half is the bfloat16 number. This takes 20
// instructions for eight codes.
class Bf16Bytes : public Bf16Inputs {
 public:
  static constexpr uint32_t kBits = 8;
  static constexpr bool kNested = false;
  static constexpr uint32_t kSharedBytes = 0;

  TESSERA_DEVICE Bf16Bytes(Global<const std::byte>, Shared<std::byte>) {}

  TESSERA_DEVICE static Operand operand(const Words2& upper, const Words2& lower) {
    Operand result;
    quad(upper.x, result.a[0][0], result.a[0][2]);
    quad(lower.x, result.a[0][1], result.a[0][3]);
    quad(upper.y, result.a[1][0], result.a[1][2]);
    quad(lower.y, result.a[1][1], result.a[1][3]);
    return result;
  }
  TESSERA_DEVICE static void multiply(Sum (&d)[4], const Operand& operand, const Inputs& x) {
    multiply_in_row_order(d, operand, x);
  }
  TESSERA_DEVICE static InputPiece input_piece(const Words4& x, uint32_t number) {
    return piece_in_row_order(x, number);
  }

 private:
  // Signed bytes of four columns as pairs of columns 0 and 2, and 1 and 3, the order in a bf16 row.
  TESSERA_DEVICE static void quad(uint32_t bytes, uint32_t& even, uint32_t& odd) {
    const uint32_t around = bytes ^ 0x80808080u;  // 128 more, without a sign
    uint32_t whole[4];
    TESSERA_UNROLL for (uint32_t i = 0; i < 4; ++i) whole[i] =
        float_bits(add_rn(bits_float(prmt(around, kMagic, 0x7540u + i)), -8388736.0f));
    even = prmt(whole[0], whole[2], 0x7632u);
    odd = prmt(whole[1], whole[3], 0x7632u);
  }

  static constexpr uint32_t kMagic = 0x4b000000u;  // 2^23
};

// Weights of 4 bits: a byte of a nibble word, two codes, is looked up in a table of pairs in shared memory.
// Every lane has its own copy, so that all lanes read from different banks. This takes 12 instructions for
// eight codes; with tables in registers it would take 21. kNested_: with the levels of int4k.
template <bool kNested_ = false>
class Bf16PairTable : public Bf16Inputs {
 public:
  static constexpr uint32_t kBits = 4;
  static constexpr bool kNested = kNested_;
  static constexpr uint32_t kPairs = 256;
  static constexpr uint32_t kSharedBytes = kPairs * 32 * 4;

  // Called by the whole block, which fills the table; a barrier must follow.
  TESSERA_DEVICE Bf16PairTable(Global<const std::byte> entries, Shared<std::byte> pairs)
      : pairs_(pairs), lane_byte_(4 * lane_index()) {
    const Global<const float> values = entries.as<const float>();
    for (uint32_t pair = thread_index(); pair < kPairs; pair += block_size()) {
      const uint32_t word =
          float_bits(values[pair % 16]) >> 16 | (float_bits(values[pair / 16]) & 0xffff0000u);
      const Shared<Words4> copies = pairs.as<Words4>(128 * pair);
      for (uint32_t i = 0; i < 8; ++i) copies.store((i + lane_index()) % 8, {word, word, word, word});
    }
  }

  TESSERA_DEVICE Operand operand(uint32_t upper, uint32_t lower) const {
    return {{{pair(upper, 0), pair(lower, 0), pair(upper, 1), pair(lower, 1)},
             {pair(upper, 2), pair(lower, 2), pair(upper, 3), pair(lower, 3)}}};
  }
  TESSERA_DEVICE static void multiply(Sum (&d)[4], const Operand& operand, const Inputs& x) {
    const uint32_t first[2] = {input_piece(x, 0), input_piece(x, 1)};
    const uint32_t second[2] = {input_piece(x, 2), input_piece(x, 3)};
    mma_m16n8k16_bf16(d, operand.a[0], first);
    mma_m16n8k16_bf16(d, operand.a[1], second);
  }
  TESSERA_DEVICE static InputPiece input_piece(const Words4& x, uint32_t number) {
    const uint32_t selector = number % 2 == 0 ? kFirstPair : kSecondPair;
    return number < 2 ? prmt(x.x, x.y, selector) : prmt(x.z, x.w, selector);
  }

 private:
  // The table's pairs are columns 0 and 1, and 2 and 3, of four; a bf16 row has pairs of 0 and 2, and 1 and
  // 3.
  static constexpr uint32_t kFirstPair = 0x5410u;
  static constexpr uint32_t kSecondPair = 0x7632u;

  TESSERA_DEVICE uint32_t pair(uint32_t codes, uint32_t byte) const {
    // 128 times the byte, plus the offset of the lane's copy.
    const uint32_t shifted = byte == 0 ? codes << 7 : codes >> (8 * byte - 7);
    return pairs_.as<uint32_t>(lop3<0xea>(shifted, 255u << 7, lane_byte_))[0];
  }

  Shared<std::byte> pairs_;
  uint32_t lane_byte_;
};

// The scale, or offset, of row g, or with `lower` of row g + 8.
TESSERA_DEVICE float row_scale(uint32_t pair, bool lower) {
  return half_to_float(static_cast<uint16_t>(lower ? pair >> 16 : pair & 0xffffu));
}

// Scales and offsets of a group for rows g and g + 8.
struct Levels {
  float scale[2];
  float offset[2];  // zero points or minimums
};
// Nested ones, exactly: the bytes of a group, and d and dmin of its 256 columns.
TESSERA_DEVICE Levels nested_levels(uint32_t bytes, uint32_t d, uint32_t dmin) {
  Levels levels;
  TESSERA_UNROLL for (uint32_t lower = 0; lower < 2; ++lower) {
    const auto scale = static_cast<float>(bytes >> 8 * lower & 255u);
    const auto minimum = static_cast<float>(bytes >> (16 + 8 * lower) & 255u);
    levels.scale[lower] = multiply_rn(row_scale(d, lower != 0), scale);
    levels.offset[lower] = multiply_rn(-row_scale(dmin, lower != 0), minimum);
  }
  return levels;
}

// A row's sum with a group added to it: d is the sum of its products, inputs that of its activations.
TESSERA_DEVICE float add_group(GroupOffset kind, float scale, float offset, float inputs, float d,
                               float sum) {
  if (kind == GroupOffset::zero_point) d = multiply_add(-offset, inputs, d);
  sum = multiply_add(scale, d, sum);
  return kind == GroupOffset::minimum ? multiply_add(offset, inputs, sum) : sum;
}

}  // namespace tessera::cuda::tables
