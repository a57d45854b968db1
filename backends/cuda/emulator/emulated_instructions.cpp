#include "backends/cuda/emulator/emulated_instructions.h"

#include <fmt/format.h>

#include <array>

namespace tessera::cuda {

namespace {

using emulator::collective;
using emulator::kWarpLanes;

struct Shuffle {
  uint32_t value;
  uint32_t how;
};

int32_t byte_of(uint32_t word, unsigned index, bool is_signed) {
  const auto byte = static_cast<uint8_t>(word >> (8 * index));
  return is_signed ? static_cast<int8_t>(byte) : byte;
}

int32_t wrapped(int64_t value) {
  return static_cast<int32_t>(static_cast<uint32_t>(static_cast<uint64_t>(value)));
}

struct MmaOperand {
  uint32_t a[4];
  uint32_t b[2];
  int32_t c[4];
};
struct MmaResult {
  int32_t d[4];
};

// D = A B + C with A [16, 32], B [32, 8] and C [16, 8]. Where the elements of each lie among the lanes and
// registers is the PTX manual's section on fragments of mma.m16n8k32: lane l has group l / 4 and place l % 4;
// element i of A is in row group (+ 8 for i in 4 ... 7 and 12 ... 15) and column 4 place + i % 4 (+ 16 for i
// >= 8), element i of B in row 4 place + i % 4 (+ 16 for i >= 4) and column group, element i of C in row
// group (+ 8 for i >= 2) and column 2 place + i % 2. Sums wrap around.
MmaResult multiply(const MmaOperand& operand, bool signed_a) {
  return collective<MmaResult>(signed_a ? "mma_m16n8k32_s8" : "mma_m16n8k32_u8s8", operand,
                               [signed_a](const std::array<const MmaOperand*, kWarpLanes>& in,
                                          const std::array<MmaResult*, kWarpLanes>& out) {
                                 static std::array<std::array<int32_t, 32>, 16> a;
                                 static std::array<std::array<int32_t, 8>, 32> b;
                                 for (unsigned lane = 0; lane < kWarpLanes; ++lane) {
                                   const unsigned group = lane / 4;
                                   const unsigned place = lane % 4;
                                   for (unsigned i = 0; i < 16; ++i) {
                                     const bool lower = (i >= 4 && i < 8) || i >= 12;
                                     a[group + (lower ? 8 : 0)][4 * place + i % 4 + (i >= 8 ? 16 : 0)] =
                                         byte_of(in[lane]->a[i / 4], i % 4, signed_a);
                                   }
                                   for (unsigned i = 0; i < 8; ++i)
                                     b[4 * place + i % 4 + (i >= 4 ? 16 : 0)][group] =
                                         byte_of(in[lane]->b[i / 4], i % 4, true);
                                 }
                                 for (unsigned lane = 0; lane < kWarpLanes; ++lane) {
                                   for (unsigned i = 0; i < 4; ++i) {
                                     const unsigned row = lane / 4 + (i >= 2 ? 8 : 0);
                                     const unsigned column = 2 * (lane % 4) + i % 2;
                                     int64_t sum = in[lane]->c[i];
                                     for (unsigned k = 0; k < 32; ++k)
                                       sum += int64_t{a[row][k]} * b[k][column];
                                     out[lane]->d[i] = wrapped(sum);
                                   }
                                 }
                               });
}

void multiply_into(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], bool signed_a) {
  MmaOperand operand{};
  std::memcpy(operand.a, a, sizeof a);
  std::memcpy(operand.b, b, sizeof b);
  std::memcpy(operand.c, d, sizeof d);
  const MmaResult result = multiply(operand, signed_a);
  std::memcpy(d, result.d, sizeof d);
}

struct HalfOperand {
  uint32_t a[4];
  uint32_t b[2];
  float c[4];
};
struct HalfResult {
  float d[4];
};

float half_of(const uint32_t* words, unsigned index, float (*value)(uint16_t)) {
  return value(static_cast<uint16_t>(words[index / 2] >> (16 * (index % 2))));
}

// The manual's fragments of mma.m16n8k16 with 16-bit elements: of A [16, 16] element i is in row group (+ 8
// for i = 2, 3, 6, 7) and column 2 place + i % 2 (+ 8 for i >= 4); of B [16, 8] in row 2 place + i % 2 (+ 8
// for i >= 2) and column group; C is as with bytes. The manual leaves the precision of the sums open: here
// they are rounded once.
HalfResult multiply_halves(const char* name, float (*value)(uint16_t), const HalfOperand& operand) {
  return collective<HalfResult>(
      name, operand,
      [value](const std::array<const HalfOperand*, kWarpLanes>& in,
              const std::array<HalfResult*, kWarpLanes>& out) {
        static std::array<std::array<float, 16>, 16> a;
        static std::array<std::array<float, 16>, 8> b;  // by columns
        for (unsigned lane = 0; lane < kWarpLanes; ++lane) {
          const unsigned group = lane / 4;
          const unsigned place = lane % 4;
          for (unsigned i = 0; i < 8; ++i)
            a[group + i / 2 % 2 * 8][2 * place + i % 2 + i / 4 * 8] = half_of(in[lane]->a, i, value);
          for (unsigned i = 0; i < 4; ++i)
            b[group][2 * place + i % 2 + i / 2 * 8] = half_of(in[lane]->b, i, value);
        }
        for (unsigned lane = 0; lane < kWarpLanes; ++lane) {
          for (unsigned i = 0; i < 4; ++i) {
            const unsigned row = lane / 4 + i / 2 * 8;
            const unsigned column = 2 * (lane % 4) + i % 2;
            double sum = in[lane]->c[i];
            for (unsigned k = 0; k < 16; ++k) sum += double{a[row][k]} * double{b[column][k]};
            out[lane]->d[i] = static_cast<float>(sum);
          }
        }
      });
}

void multiply_halves_into(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const char* name,
                          float (*value)(uint16_t)) {
  HalfOperand operand{};
  std::memcpy(operand.a, a, sizeof a);
  std::memcpy(operand.b, b, sizeof b);
  std::memcpy(operand.c, d, sizeof d);
  const HalfResult result = multiply_halves(name, value, operand);
  std::memcpy(d, result.d, sizeof d);
}

float tf32_of(uint32_t word) {
  if ((word & 0x1fffu) != 0)
    throw emulator::Fault(fmt::format("mma_m16n8k8_tf32: operand {:#x} is no tf32", word));
  return bits_float(word);
}

// The manual's fragments of mma.m16n8k8 with tf32: of A [16, 8] register i is in row group (+ 8 for odd i)
// and column place (+ 4 for i >= 2), of B [8, 8] in row place (+ 4 for i = 1) and column group; C is as with
// bytes. Sums are rounded once.
HalfResult multiply_tf32(const HalfOperand& operand) {
  return collective<HalfResult>("mma_m16n8k8_tf32", operand,
                                [](const std::array<const HalfOperand*, kWarpLanes>& in,
                                   const std::array<HalfResult*, kWarpLanes>& out) {
                                  static std::array<std::array<float, 8>, 16> a;
                                  static std::array<std::array<float, 8>, 8> b;  // by columns
                                  for (unsigned lane = 0; lane < kWarpLanes; ++lane) {
                                    const unsigned group = lane / 4;
                                    const unsigned place = lane % 4;
                                    for (unsigned i = 0; i < 4; ++i)
                                      a[group + i % 2 * 8][place + i / 2 * 4] = tf32_of(in[lane]->a[i]);
                                    for (unsigned i = 0; i < 2; ++i)
                                      b[group][place + i * 4] = tf32_of(in[lane]->b[i]);
                                  }
                                  for (unsigned lane = 0; lane < kWarpLanes; ++lane) {
                                    for (unsigned i = 0; i < 4; ++i) {
                                      const unsigned row = lane / 4 + i / 2 * 8;
                                      const unsigned column = 2 * (lane % 4) + i % 2;
                                      double sum = in[lane]->c[i];
                                      for (unsigned k = 0; k < 8; ++k)
                                        sum += double{a[row][k]} * double{b[column][k]};
                                      out[lane]->d[i] = static_cast<float>(sum);
                                    }
                                  }
                                });
}

int32_t dot(uint32_t a, uint32_t b, int32_t sum, bool signed_a) {
  int64_t total = sum;
  for (unsigned i = 0; i < 4; ++i) total += int64_t{byte_of(a, i, signed_a)} * byte_of(b, i, true);
  return wrapped(total);
}

}  // namespace

uint32_t shuffle_xor(uint32_t value, uint32_t mask) {
  return collective<uint32_t>("shuffle_xor", Shuffle{value, mask}, [](const auto& in, const auto& out) {
    for (uint32_t lane = 0; lane < kWarpLanes; ++lane) {
      if (in[lane]->how != in[0]->how || in[lane]->how >= kWarpLanes)
        throw emulator::Fault(
            fmt::format("shuffle_xor: lane {} has mask {}, lane 0 has {}", lane, in[lane]->how, in[0]->how));
      *out[lane] = in[lane ^ in[lane]->how]->value;
    }
  });
}

uint32_t shuffle_from(uint32_t value, uint32_t lane) {
  return collective<uint32_t>("shuffle_from", Shuffle{value, lane}, [](const auto& in, const auto& out) {
    for (uint32_t i = 0; i < kWarpLanes; ++i) {
      if (in[i]->how >= kWarpLanes)
        throw emulator::Fault(fmt::format("shuffle_from: lane {} asks for lane {}", i, in[i]->how));
      *out[i] = in[in[i]->how]->value;
    }
  });
}

void mma_m16n8k32_s8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  multiply_into(d, a, b, true);
}

void mma_m16n8k32_u8s8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  multiply_into(d, a, b, false);
}

void mma_m16n8k16_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  multiply_halves_into(d, a, b, "mma_m16n8k16_f16", &f16_to_f32);
}

void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  multiply_halves_into(d, a, b, "mma_m16n8k16_bf16", &bf16_to_f32);
}

void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  HalfOperand operand{};
  std::memcpy(operand.a, a, sizeof a);
  std::memcpy(operand.b, b, sizeof b);
  std::memcpy(operand.c, d, sizeof d);
  const HalfResult result = multiply_tf32(operand);
  std::memcpy(d, result.d, sizeof d);
}

// Four matrices of 8 rows of 16 bytes; lane l names row l % 8 of matrix l / 8. Of every matrix a lane gets
// the word lane % 4 of row lane / 4.
void ldmatrix_x4(uint32_t (&d)[4], const std::byte* row) {
  struct Words {
    uint32_t at[4];
  };
  const Words words = collective<Words>("ldmatrix_x4", row, [](const auto& in, const auto& out) {
    for (uint32_t lane = 0; lane < kWarpLanes; ++lane)
      emulator::detail::check_shared_for(lane, *in[lane], 16, emulator::Access::read);
    for (uint32_t lane = 0; lane < kWarpLanes; ++lane) {
      for (uint32_t matrix = 0; matrix < 4; ++matrix)
        std::memcpy(&out[lane]->at[matrix], *in[8 * matrix + lane / 4] + 4 * (lane % 4), 4);
    }
  });
  std::memcpy(d, words.at, sizeof d);
}

// Nibble i of the selector is the index of the byte of high:low that becomes byte i; if its top bit is set,
// byte i is eight copies of that byte's sign bit.
uint32_t prmt(uint32_t low, uint32_t high, uint32_t selector) {
  const uint64_t both = uint64_t{high} << 32 | low;
  uint32_t result = 0;
  for (unsigned i = 0; i < 4; ++i) {
    const uint32_t which = selector >> (4 * i) & 15;
    auto byte = static_cast<uint32_t>(both >> (8 * (which & 7)) & 255);
    if ((which & 8) != 0) byte = (byte & 128) != 0 ? 255 : 0;
    result |= byte << (8 * i);
  }
  return result;
}

int32_t dp4a_s8(uint32_t a, uint32_t b, int32_t sum) { return dot(a, b, sum, true); }
int32_t dp4a_u8s8(uint32_t a, uint32_t b, int32_t sum) { return dot(a, b, sum, false); }

}  // namespace tessera::cuda
