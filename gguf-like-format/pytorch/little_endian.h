// Unsigned numbers in the order of bytes that zip archives and pickles have.
#pragma once

#include <bit>
#include <cstddef>
#include <cstring>
#include <span>

namespace tessera {

// The number at the beginning of bytes, which must hold it.
template <class Number>
Number little_endian(std::span<const std::byte> bytes) {
  static_assert(std::endian::native == std::endian::little);
  Number number = 0;
  std::memcpy(&number, bytes.data(), sizeof number);
  return number;
}

}  // namespace tessera
