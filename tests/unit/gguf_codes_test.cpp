// The codes and levels of GGUF blocks: by the formula that their format names they are what blocks decode to.
#include "engine/checkpoint/gguf_codes.h"

#include <doctest/doctest.h>

#include <array>
#include <bit>
#include <random>

#include "tests/unit/packed_formula.h"

using namespace tessera;

namespace {

struct Coded {
  uint32_t type;
  std::array<size_t, 2> halves;  // where f16 numbers of a block lie
  size_t half_count;
};
constexpr std::array kCoded = {
    Coded{8, {0, 0}, 1},   Coded{2, {0, 0}, 1},   Coded{3, {0, 2}, 2},  Coded{6, {0, 0}, 1},
    Coded{12, {0, 2}, 2},  Coded{20, {0, 0}, 1},  Coded{23, {0, 0}, 1}, Coded{39, {0, 0}, 0},
    Coded{34, {52, 0}, 1}, Coded{35, {64, 0}, 1},
};

std::vector<std::byte> random_blocks(const GgufBlockFormat& format, const Coded& coded, size_t blocks,
                                     std::mt19937_64& random) {
  std::vector<std::byte> bytes(blocks * format.bytes);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random() & 255);
  for (size_t block = 0; block < blocks; ++block)
    for (size_t i = 0; i < coded.half_count; ++i) {
      std::byte& high = bytes[block * format.bytes + coded.halves[i] + 1];
      if ((high & std::byte{0x7c}) == std::byte{0x7c}) high &= std::byte{0xbf};  // no infinity, no NaN
    }
  return bytes;
}

GgufTensor tensor_of(const GgufBlockFormat& format, const std::vector<std::byte>& bytes,
                     std::vector<uint64_t> shape) {
  GgufTensor tensor;
  tensor.name = "tensor";
  tensor.shape = std::move(shape);
  tensor.format = &format;
  tensor.bytes = bytes;
  return tensor;
}

}  // namespace

TEST_CASE("codes and levels of random blocks give the values that the blocks decode to") {
  std::mt19937_64 random(std::random_device{}());
  for (const Coded& coded : kCoded) {
    const GgufBlockFormat* format = find_block_format(coded.type);
    REQUIRE(format != nullptr);
    CAPTURE(format->name);
    const size_t row_blocks = 1 + random() % 4, rows = 3 + random() % 20;
    const size_t columns = row_blocks * format->values;
    const std::vector<std::byte> bytes = random_blocks(*format, coded, rows * row_blocks, random);
    const GgufTensor tensor = tensor_of(*format, bytes, {rows, columns});
    const std::optional<PackedFormat> packed = packed_format_of(tensor);
    REQUIRE(packed);
    CHECK(packed->order.empty());
    std::vector<float> expected(rows * columns);
    read_floats(tensor, 0, expected);
    const size_t first = random() % rows, count = random() % (rows - first + 1);
    for (const auto& [from, many] : {std::pair(size_t{0}, rows), std::pair(first, count)}) {
      const PackedRows read = read_codes(tensor, from, many, GgufCodes::with_levels);
      REQUIRE(read.codes.size() == many * columns);
      for (const uint8_t code : read.codes) REQUIRE(code < 1u << packed->bits);
      const std::vector<float> values = crafted::packed_values(*packed, read, columns);
      for (size_t i = 0; i < values.size(); ++i)
        REQUIRE(std::bit_cast<uint32_t>(values[i]) == std::bit_cast<uint32_t>(expected[from * columns + i]));
      const PackedRows levels = read_codes(tensor, from, many, GgufCodes::levels_only);
      CHECK(levels.codes.empty());
      CHECK(levels.scales == read.scales);
      CHECK(levels.offsets == read.offsets);
      CHECK(levels.block_scales == read.block_scales);
      CHECK(levels.block_minimums == read.block_minimums);
      CHECK(levels.group_scales == read.group_scales);
      CHECK(levels.group_minimums == read.group_minimums);
    }
  }
}

TEST_CASE("dimensions before the last one count as rows") {
  std::mt19937_64 random(std::random_device{}());
  const GgufBlockFormat* format = find_block_format(8);
  const std::vector<std::byte> bytes = random_blocks(*format, kCoded[0], 2 * 3 * 2, random);
  const GgufTensor experts = tensor_of(*format, bytes, {2, 3, 64});
  const GgufTensor matrix = tensor_of(*format, bytes, {6, 64});
  REQUIRE(packed_format_of(experts));
  CHECK(read_codes(experts, 3, 3, GgufCodes::with_levels).codes ==
        read_codes(matrix, 3, 3, GgufCodes::with_levels).codes);
}

TEST_CASE("what has no codes, or rows beyond the tensor") {
  std::mt19937_64 random(std::random_device{}());
  for (const uint32_t type : {0u, 1u, 30u, 7u, 10u, 11u, 13u, 14u}) {
    const GgufBlockFormat* format = find_block_format(type);
    const std::vector<std::byte> bytes(2 * format->bytes);
    CHECK_FALSE(packed_format_of(tensor_of(*format, bytes, {2, format->values})));
  }
  const GgufBlockFormat* format = find_block_format(2);
  const std::vector<std::byte> bytes = random_blocks(*format, kCoded[1], 6, random);
  CHECK_FALSE(packed_format_of(tensor_of(*format, bytes, {192})));
  const GgufTensor tensor = tensor_of(*format, bytes, {3, 64});
  CHECK(read_codes(tensor, 3, 0, GgufCodes::with_levels).codes.empty());
  CHECK_THROWS_WITH_AS(read_codes(tensor, 1, 3, GgufCodes::with_levels),
                       "tensor tensor: expected rows below 3, found 3 from 1 on", FileError);
  CHECK_THROWS_AS(read_codes(tensor, ~uint64_t{0}, 2, GgufCodes::with_levels), FileError);
}
