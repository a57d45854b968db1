#include "gguf-like-format/gguf/blocks.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>

#include "gguf-like-format/gguf/block_fields.h"

namespace tessera {

namespace {

using namespace gguf_blocks;

constexpr size_t kValues = 32;  // of the small quantized formats

void decode_f32(const std::byte* block, float* out) { *out = std::bit_cast<float>(word32_at(block, 0)); }
void decode_f16(const std::byte* block, float* out) { *out = half_at(block, 0); }
void decode_bf16(const std::byte* block, float* out) {
  *out = bf16_to_f32(static_cast<uint16_t>(word16_at(block, 0)));
}

// Code i of 32 in 16 bytes: the low halves of all bytes come first.
uint32_t four_bits(const std::byte* codes, size_t i) { return nibble_at(codes, i % 16, i >= 16); }

uint32_t five_bits(const std::byte* codes, uint32_t high, size_t i) {
  return four_bits(codes, i) | (high >> i & 1) << 4;
}

void decode_q4_0(const std::byte* block, float* out) {
  const float d = half_at(block, 0);
  for (size_t i = 0; i < kValues; ++i)
    out[i] = d * static_cast<float>(static_cast<int32_t>(four_bits(block + 2, i)) - 8);
}

void decode_q4_1(const std::byte* block, float* out) {
  const float d = half_at(block, 0);
  const float minimum = half_at(block, 2);
  for (size_t i = 0; i < kValues; ++i) out[i] = d * static_cast<float>(four_bits(block + 4, i)) + minimum;
}

void decode_q5_0(const std::byte* block, float* out) {
  const float d = half_at(block, 0);
  const uint32_t high = word32_at(block, 2);
  for (size_t i = 0; i < kValues; ++i)
    out[i] = d * static_cast<float>(static_cast<int32_t>(five_bits(block + 6, high, i)) - 16);
}

void decode_q5_1(const std::byte* block, float* out) {
  const float d = half_at(block, 0);
  const float minimum = half_at(block, 2);
  const uint32_t high = word32_at(block, 4);
  for (size_t i = 0; i < kValues; ++i)
    out[i] = d * static_cast<float>(five_bits(block + 8, high, i)) + minimum;
}

void decode_q8_0(const std::byte* block, float* out) {
  const float d = half_at(block, 0);
  for (size_t i = 0; i < kValues; ++i) out[i] = d * static_cast<float>(signed_byte_at(block, 2 + i));
}

void decode_iq4_nl(const std::byte* block, float* out) {
  const float d = half_at(block, 0);
  for (size_t i = 0; i < kValues; ++i)
    out[i] = d * static_cast<float>(kNonlinearLevels[four_bits(block + 2, i)]);
}

void decode_mxfp4(const std::byte* block, float* out) {
  const float d = half_power(byte_at(block, 0));
  for (size_t i = 0; i < kValues; ++i)
    out[i] = d * static_cast<float>(kDoubledFloats[four_bits(block + 1, i)]);
}

constexpr std::array kFormats = {
    GgufBlockFormat{0, "F32", 1, 4, decode_f32},
    GgufBlockFormat{1, "F16", 1, 2, decode_f16},
    GgufBlockFormat{30, "BF16", 1, 2, decode_bf16},
    GgufBlockFormat{8, "Q8_0", 32, 34, decode_q8_0},
    GgufBlockFormat{2, "Q4_0", 32, 18, decode_q4_0},
    GgufBlockFormat{3, "Q4_1", 32, 20, decode_q4_1},
    GgufBlockFormat{6, "Q5_0", 32, 22, decode_q5_0},
    GgufBlockFormat{7, "Q5_1", 32, 24, decode_q5_1},
    GgufBlockFormat{10, "Q2_K", 256, 84, decode_q2_k},
    GgufBlockFormat{11, "Q3_K", 256, 110, decode_q3_k},
    GgufBlockFormat{12, "Q4_K", 256, 144, decode_q4_k},
    GgufBlockFormat{13, "Q5_K", 256, 176, decode_q5_k},
    GgufBlockFormat{14, "Q6_K", 256, 210, decode_q6_k},
    GgufBlockFormat{20, "IQ4_NL", 32, 18, decode_iq4_nl},
    GgufBlockFormat{23, "IQ4_XS", 256, 136, decode_iq4_xs},
    GgufBlockFormat{39, "MXFP4", 32, 17, decode_mxfp4},
    GgufBlockFormat{34, "TQ1_0", 256, 54, decode_tq1_0},
    GgufBlockFormat{35, "TQ2_0", 256, 66, decode_tq2_0},
};

// Types that files may have and that are refused by name.
struct OtherType {
  uint32_t type;
  std::string_view name;
};
constexpr std::array kOthers = {
    OtherType{9, "Q8_1"},     OtherType{15, "Q8_K"},  OtherType{16, "IQ2_XXS"}, OtherType{17, "IQ2_XS"},
    OtherType{18, "IQ3_XXS"}, OtherType{19, "IQ1_S"}, OtherType{21, "IQ3_S"},   OtherType{22, "IQ2_S"},
    OtherType{24, "I8"},      OtherType{25, "I16"},   OtherType{26, "I32"},     OtherType{27, "I64"},
    OtherType{28, "F64"},     OtherType{29, "IQ1_M"}, OtherType{40, "NVFP4"},
};

}  // namespace

const GgufBlockFormat* find_block_format(uint32_t type) {
  const auto found = std::find_if(kFormats.begin(), kFormats.end(),
                                  [&](const GgufBlockFormat& each) { return each.type == type; });
  return found == kFormats.end() ? nullptr : &*found;
}

std::string block_type_name(uint32_t type) {
  if (const GgufBlockFormat* format = find_block_format(type)) return std::string(format->name);
  for (const OtherType& other : kOthers)
    if (other.type == type) return std::string(other.name);
  return fmt::format("type {}", type);
}

std::string known_block_types() {
  std::string names;
  for (const GgufBlockFormat& format : kFormats)
    names += fmt::format("{}{}", names.empty() ? "" : ", ", format.name);
  return names;
}

void decode_values(const GgufBlockFormat& format, std::span<const std::byte> bytes, uint64_t first,
                   std::span<float> out) {
  std::array<float, kMostBlockValues> block{};
  for (size_t done = 0; done < out.size();) {
    const auto index = static_cast<size_t>((first + done) / format.values);
    const auto skipped = static_cast<size_t>((first + done) % format.values);
    const std::byte* const from = bytes.subspan(index * format.bytes, format.bytes).data();
    const size_t count = std::min(format.values - skipped, out.size() - done);
    if (count == format.values) {
      format.decode(from, &out[done]);
    } else {
      format.decode(from, block.data());
      std::copy_n(block.begin() + static_cast<std::ptrdiff_t>(skipped), count, &out[done]);
    }
    done += count;
  }
}

}  // namespace tessera
