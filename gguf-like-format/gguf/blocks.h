// The number formats of GGUF tensors: how many values a block of bytes holds and what they are in f32.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace tessera {

struct GgufBlockFormat {
  uint32_t type;  // its number in GGUF files
  std::string_view name;
  size_t values;  // per block
  size_t bytes;   // per block
  // The values of one block, in f32 arithmetic: the products and sums of the format's definition, in its
  // order.
  void (*decode)(const std::byte* block, float* out);
};

// No block of any format has more values.
inline constexpr size_t kMostBlockValues = 256;

// nullptr for a type that is not decoded here.
const GgufBlockFormat* find_block_format(uint32_t type);
std::string block_type_name(uint32_t type);  // "Q4_K", or "type 77" for one without a name here
std::string known_block_types();             // "F32, F16, …"

// Values first … first + out.size() - 1 of blocks that lie one after another. The caller has checked that
// bytes holds them.
void decode_values(const GgufBlockFormat& format, std::span<const std::byte> bytes, uint64_t first,
                   std::span<float> out);

}  // namespace tessera
