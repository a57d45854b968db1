#include "engine/checkpoint/gguf_codes.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cassert>

#include "gguf-like-format/gguf/block_fields.h"

namespace tessera {

namespace {

using namespace gguf_blocks;

constexpr size_t kSmall = 32;  // values of a small block, which is one group
constexpr size_t kLarge = 256;
constexpr size_t kGroups = kLarge / kSmall;  // of a large block that has some

void nibble_codes(const std::byte* codes, uint8_t* out) {
  for (size_t i = 0; i < kSmall / 2; ++i) {
    out[i] = static_cast<uint8_t>(nibble_at(codes, i, false));
    out[i + kSmall / 2] = static_cast<uint8_t>(nibble_at(codes, i, true));
  }
}

template <size_t first_byte>
void nibble_codes_at(const std::byte* block, uint8_t* out) {
  nibble_codes(block + first_byte, out);
}

void q5_0_codes(const std::byte* block, uint8_t* out) {
  nibble_codes(block + 6, out);
  const uint32_t high = word32_at(block, 2);
  for (size_t i = 0; i < kSmall; ++i) out[i] = static_cast<uint8_t>(out[i] | (high >> i & 1) << 4);
}

// Signed bytes as bytes around 128.
void q8_0_codes(const std::byte* block, uint8_t* out) {
  for (size_t i = 0; i < kSmall; ++i) out[i] = static_cast<uint8_t>(byte_at(block, 2 + i) ^ 128);
}

// The f16 scale of a block of one group.
template <size_t at>
void one_scale(const std::byte* block, size_t index, PackedRows& rows) {
  rows.scales[index] = half_at(block, at);
}

void q4_1_levels(const std::byte* block, size_t index, PackedRows& rows) {
  rows.scales[index] = half_at(block, 0);
  rows.offsets[index] = half_at(block, 2);
}

void mxfp4_levels(const std::byte* block, size_t index, PackedRows& rows) {
  rows.scales[index] = half_power(byte_at(block, 0));
}

// d times a whole number of six bits, which f32 holds exactly.
void iq4_xs_levels(const std::byte* block, size_t index, PackedRows& rows) {
  const float d = half_at(block, 0);
  for (size_t group = 0; group < kGroups; ++group)
    rows.scales[index * kGroups + group] = d * static_cast<float>(iq4_xs_scale(block, group));
}

void q4_k_levels(const std::byte* block, size_t index, PackedRows& rows) {
  rows.block_scales[index] = half_at(block, 0);
  rows.block_minimums[index] = half_at(block, 2);
  for (size_t group = 0; group < kGroups; ++group) {
    const ScaleAndMinimum packed = packed_scales(block + 4, group);
    rows.group_scales[index * kGroups + group] = static_cast<uint8_t>(packed.scale);
    rows.group_minimums[index * kGroups + group] = static_cast<uint8_t>(packed.minimum);
  }
}

// A block format as codes.
struct CodedBlocks {
  std::string_view name;
  PackedMeaning meaning;
  unsigned bits;
  size_t group;
  float zero_point;      // of all groups
  const int32_t* table;  // of the codes' values
  void (*codes)(const std::byte* block, uint8_t* out);
  void (*levels)(const std::byte* block, size_t index, PackedRows& rows);  // of block `index` of rows
};

constexpr PackedMeaning kZeroPoint = PackedMeaning::zero_point;
constexpr PackedMeaning kTable = PackedMeaning::table;

constexpr std::array kCodedBlocks = {
    CodedBlocks{"Q8_0", kZeroPoint, 8, kSmall, 128, nullptr, q8_0_codes, one_scale<0>},
    CodedBlocks{"Q4_0", kZeroPoint, 4, kSmall, 8, nullptr, nibble_codes_at<2>, one_scale<0>},
    CodedBlocks{"Q4_1", PackedMeaning::minimum, 4, kSmall, 0, nullptr, nibble_codes_at<4>, q4_1_levels},
    CodedBlocks{"Q5_0", kZeroPoint, 5, kSmall, 16, nullptr, q5_0_codes, one_scale<0>},
    CodedBlocks{"Q4_K", PackedMeaning::nested, 4, kSmall, 0, nullptr, q4_k_codes, q4_k_levels},
    CodedBlocks{"IQ4_NL", kTable, 4, kSmall, 0, kNonlinearLevels, nibble_codes_at<2>, one_scale<0>},
    CodedBlocks{"IQ4_XS", kTable, 4, kSmall, 0, kNonlinearLevels, iq4_xs_codes, iq4_xs_levels},
    CodedBlocks{"MXFP4", kTable, 4, kSmall, 0, kDoubledFloats, nibble_codes_at<1>, mxfp4_levels},
    CodedBlocks{"TQ1_0", kZeroPoint, 2, kLarge, 1, nullptr, tq1_0_codes, one_scale<52>},
    CodedBlocks{"TQ2_0", kZeroPoint, 2, kLarge, 1, nullptr, tq2_0_codes, one_scale<64>},
};

const CodedBlocks* find_coded_blocks(const GgufTensor& tensor) {
  if (tensor.shape.size() < 2) return nullptr;
  const auto found = std::find_if(kCodedBlocks.begin(), kCodedBlocks.end(),
                                  [&](const CodedBlocks& each) { return each.name == tensor.format->name; });
  return found == kCodedBlocks.end() ? nullptr : &*found;
}

}  // namespace

std::optional<PackedFormat> packed_format_of(const GgufTensor& tensor) {
  const CodedBlocks* coded = find_coded_blocks(tensor);
  if (coded == nullptr) return std::nullopt;
  PackedFormat format;
  format.meaning = coded->meaning;
  format.bits = coded->bits;
  format.group = coded->group;
  if (coded->meaning == PackedMeaning::nested) format.block = tensor.format->values;
  for (size_t code = 0; coded->table != nullptr && code < format.table.size(); ++code)
    format.table[code] = static_cast<float>(coded->table[code]);
  return format;
}

PackedRows read_codes(const GgufTensor& tensor, uint64_t first_row, uint64_t rows, GgufCodes wanted) {
  const CodedBlocks* coded = find_coded_blocks(tensor);
  assert(coded != nullptr);
  const uint64_t columns = tensor.shape.back();
  const uint64_t all_rows = tensor.elements() / columns;
  if (first_row > all_rows || rows > all_rows - first_row)
    throw FileError(fmt::format("tensor {}: expected rows below {}, found {} from {} on", tensor.name,
                                all_rows, rows, first_row));
  const GgufBlockFormat& format = *tensor.format;
  const auto row_blocks = static_cast<size_t>(columns / format.values);  // a row begins with a block
  const size_t blocks = static_cast<size_t>(rows) * row_blocks;
  const size_t groups = blocks * (format.values / coded->group);
  PackedRows result;
  if (coded->meaning == PackedMeaning::nested) {
    result.block_scales.resize(blocks);
    result.block_minimums.resize(blocks);
    result.group_scales.resize(groups);
    result.group_minimums.resize(groups);
  } else {
    result.scales.resize(groups);
    if (coded->meaning != PackedMeaning::table) result.offsets.resize(groups, coded->zero_point);
  }
  if (wanted == GgufCodes::with_levels) result.codes.resize(blocks * format.values);
  const std::byte* block = tensor.bytes.data() + static_cast<size_t>(first_row) * row_blocks * format.bytes;
  for (size_t index = 0; index < blocks; ++index, block += format.bytes) {
    coded->levels(block, index, result);
    if (wanted == GgufCodes::with_levels) coded->codes(block, &result.codes[index * format.values]);
  }
  return result;
}

}  // namespace tessera
