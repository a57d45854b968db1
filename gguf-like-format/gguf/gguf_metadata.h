// The key-value pairs at the start of a GGUF file, with typed access whose errors name the key.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gguf-like-format/file_error.h"

namespace tessera {

// In the order of their numbers in files.
enum class GgufType : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };
inline constexpr uint32_t kGgufTypes = 13;

// A value as it lies in the file, checked to be complete: one item, or all items of an array back to back.
struct GgufValue {
  GgufType type = GgufType::u8;  // of an item; never array
  bool is_array = false;
  uint64_t count = 1;                // of items
  std::span<const std::byte> bytes;  // strings with their lengths, eight bytes each
};

// A view: the bytes that values point into must outlive it. Every error reads "FILE: KEY: expected …, found
// …".
class GgufMetadata {
 public:
  using Values = std::map<std::string, GgufValue, std::less<>>;

  GgufMetadata(std::string where, Values values) : where_(std::move(where)), values_(std::move(values)) {}

  bool has(std::string_view key) const { return find(key) != nullptr; }
  // All of these throw FileError: for a missing key unless they are optional, for another type, for a value
  // that is out of range (low and high are allowed) and for text that is not UTF-8.
  std::string text(std::string_view key, size_t most_bytes) const;
  std::optional<std::string> optional_text(std::string_view key, size_t most_bytes) const;
  std::optional<bool> optional_boolean(std::string_view key) const;
  uint64_t integer(std::string_view key, uint64_t low, uint64_t high) const;
  std::optional<uint64_t> optional_integer(std::string_view key, uint64_t low, uint64_t high) const;
  // An f32 counts as the number that its shortest decimal text says, which is what was rounded to it: 1e-05.
  // Whole numbers count too.
  double number(std::string_view key, double low, double high) const;
  std::optional<double> optional_number(std::string_view key, double low, double high) const;
  // A whole number, or an array of equal ones: what could differ between layers and does not.
  uint64_t uniform_integer(std::string_view key, uint64_t low, uint64_t high) const;
  // Items of an array. Texts are not checked to be UTF-8.
  std::vector<std::string_view> texts(std::string_view key) const;
  std::vector<uint64_t> integers(std::string_view key, uint64_t low, uint64_t high) const;
  std::vector<float> numbers(std::string_view key) const;

  const std::string& where() const { return where_; }
  [[noreturn]] void refuse(std::string_view key, std::string_view expected, std::string_view found) const;

 private:
  const GgufValue* find(std::string_view key) const;
  const GgufValue& require(std::string_view key) const;
  const GgufValue& require_array(std::string_view key, std::string_view of_what) const;
  uint64_t integer_at(std::string_view key, const GgufValue& value, uint64_t index, uint64_t low,
                      uint64_t high) const;

  std::string where_;
  Values values_;
};

size_t gguf_type_bytes(GgufType type);  // of one item; 0 for strings and arrays
std::string_view gguf_type_name(GgufType type);

}  // namespace tessera
