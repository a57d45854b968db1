// Streams of codes of 1 to 8 bits in little-endian 32-bit words, the first code in the lowest bits of the
// first word; codes may cross words.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace tessera::bit_stream {

// Words that hold `codes` codes.
inline uint64_t words(uint64_t codes, unsigned bits) { return (codes * bits + 31) / 32; }

inline uint32_t load_word(std::span<const std::byte> bytes, size_t word) {
  uint32_t value = 0;
  std::memcpy(&value, bytes.subspan(4 * word, 4).data(), 4);
  return value;
}

// Code i of the stream whose word w is bytes' word first + w * stride.
inline uint32_t code(std::span<const std::byte> bytes, size_t first, size_t stride, uint64_t i,
                     unsigned bits) {
  const auto bit = static_cast<size_t>(i) * bits;
  const size_t word = first + bit / 32 * stride;
  const unsigned shift = bit % 32;
  uint64_t pair = load_word(bytes, word);
  if (shift + bits > 32) pair |= uint64_t{load_word(bytes, word + stride)} << 32;
  return static_cast<uint32_t>(pair >> shift) & ((1u << bits) - 1);
}

// 32 codes from `Bits` words; words has one more entry, which is 0.
template <unsigned Bits>
void unpack_block(const std::array<uint32_t, 9>& words, std::array<uint8_t, 32>& out) {
  for (unsigned i = 0; i < 32; ++i) {
    const unsigned word = i * Bits / 32;
    const uint64_t pair = words[word] | (uint64_t{words[word + 1]} << 32);
    out[i] = static_cast<uint8_t>((pair >> (i * Bits % 32)) & ((1u << Bits) - 1));
  }
}

using UnpackBlock = void (*)(const std::array<uint32_t, 9>&, std::array<uint8_t, 32>&);
inline constexpr std::array<UnpackBlock, 9> kUnpackBlock{nullptr,         unpack_block<1>, unpack_block<2>,
                                                         unpack_block<3>, unpack_block<4>, unpack_block<5>,
                                                         unpack_block<6>, unpack_block<7>, unpack_block<8>};

// Codes of a whole stream of consecutive words.
inline void unpack(std::span<const std::byte> stream, unsigned bits, std::span<uint8_t> out) {
  std::array<uint32_t, 9> words{};
  std::array<uint8_t, 32> block{};
  for (size_t at = 0; at < out.size(); at += 32) {
    const size_t count = std::min<size_t>(32, out.size() - at);
    const size_t first = at / 32 * bits;
    words.fill(0);
    for (size_t w = 0; w < (count * bits + 31) / 32; ++w) words[w] = load_word(stream, first + w);
    kUnpackBlock[bits](words, block);
    std::memcpy(out.subspan(at, count).data(), block.data(), count);
  }
}

}  // namespace tessera::bit_stream
