// Arrays in golden JSON files: base64 of their little-endian bytes.
#pragma once

#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace tessera::golden {

inline std::vector<uint8_t> decode_base64(const std::string& text) {
  const std::string alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::vector<uint8_t> bytes;
  uint32_t bits = 0;
  unsigned held = 0;
  for (const char letter : text) {
    if (letter == '=') break;
    const size_t digit = alphabet.find(letter);
    REQUIRE(digit != std::string::npos);
    bits = (bits << 6) | static_cast<uint32_t>(digit);
    held += 6;
    if (held >= 8) {
      held -= 8;
      bytes.push_back(static_cast<uint8_t>(bits >> held));
      bits &= (1u << held) - 1;
    }
  }
  return bytes;
}

// The field's values, of which there must be `count`.
template <typename T>
std::vector<T> read(const nlohmann::json& field, size_t count) {
  const std::vector<uint8_t> bytes = decode_base64(field.get<std::string>());
  REQUIRE(bytes.size() == count * sizeof(T));
  std::vector<T> values(count);
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

}  // namespace tessera::golden
