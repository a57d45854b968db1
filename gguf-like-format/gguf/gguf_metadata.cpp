#include "gguf-like-format/gguf/gguf_metadata.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

namespace tessera {

namespace {

struct TypeRow {
  std::string_view name;
  size_t bytes;
};
constexpr std::array<TypeRow, kGgufTypes> kTypes{
    TypeRow{"u8", 1}, {"i8", 1},     {"u16", 2},   {"i16", 2}, {"u32", 4}, {"i32", 4}, {"f32", 4},
    {"bool", 1},      {"string", 0}, {"array", 0}, {"u64", 8}, {"i64", 8}, {"f64", 8}};

template <class T>
T read_at(const GgufValue& value, uint64_t index) {
  T item;
  std::memcpy(&item, value.bytes.subspan(static_cast<size_t>(index) * sizeof(T), sizeof(T)).data(),
              sizeof(T));
  return item;
}

bool is_whole(GgufType type) {
  return type <= GgufType::i32 || type == GgufType::u64 || type == GgufType::i64;
}

// A whole number of any type: how far it is from zero, and on which side.
struct Whole {
  bool negative = false;
  uint64_t magnitude = 0;
};

template <class T>
Whole whole_at(const GgufValue& value, uint64_t index) {
  const T item = read_at<T>(value, index);
  if constexpr (std::numeric_limits<T>::is_signed) {
    if (item < 0) return {true, uint64_t{0} - static_cast<uint64_t>(static_cast<int64_t>(item))};
  }
  return {false, static_cast<uint64_t>(item)};
}

Whole read_whole(const GgufValue& value, uint64_t index) {
  switch (value.type) {
    case GgufType::u8:
      return whole_at<uint8_t>(value, index);
    case GgufType::i8:
      return whole_at<int8_t>(value, index);
    case GgufType::u16:
      return whole_at<uint16_t>(value, index);
    case GgufType::i16:
      return whole_at<int16_t>(value, index);
    case GgufType::u32:
      return whole_at<uint32_t>(value, index);
    case GgufType::i32:
      return whole_at<int32_t>(value, index);
    case GgufType::i64:
      return whole_at<int64_t>(value, index);
    default:
      return whole_at<uint64_t>(value, index);
  }
}

std::string_view string_of(const GgufValue& value) {
  return {reinterpret_cast<const char*>(value.bytes.data()) + 8, value.bytes.size() - 8};
}

bool is_utf8(std::string_view text) {
  try {
    (void)nlohmann::json(text).dump();
    return true;
  } catch (const nlohmann::json::exception&) {
    return false;
  }
}

std::string found_type(const GgufValue& value) {
  return value.is_array ? fmt::format("an array of {}", gguf_type_name(value.type))
                        : std::string(gguf_type_name(value.type));
}

}  // namespace

size_t gguf_type_bytes(GgufType type) { return kTypes[static_cast<size_t>(type)].bytes; }
std::string_view gguf_type_name(GgufType type) { return kTypes[static_cast<size_t>(type)].name; }

void GgufMetadata::refuse(std::string_view key, std::string_view expected, std::string_view found) const {
  throw FileError(fmt::format("{}: {}: expected {}, found {}", where_, printable(key), expected, found));
}

const GgufValue* GgufMetadata::find(std::string_view key) const {
  const auto found = values_.find(key);
  return found == values_.end() ? nullptr : &found->second;
}

const GgufValue& GgufMetadata::require(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) refuse(key, "a value", "none");
  return *value;
}

const GgufValue& GgufMetadata::require_array(std::string_view key, std::string_view of_what) const {
  const GgufValue& value = require(key);
  if (!value.is_array) refuse(key, fmt::format("an array of {}", of_what), found_type(value));
  return value;
}

std::string GgufMetadata::text(std::string_view key, size_t most_bytes) const {
  const GgufValue& value = require(key);
  if (value.is_array || value.type != GgufType::string) refuse(key, "a string", found_type(value));
  const std::string_view text = string_of(value);
  if (text.size() > most_bytes)
    refuse(key, fmt::format("at most {} bytes", most_bytes), fmt::format("{}", text.size()));
  if (!is_utf8(text)) refuse(key, "text in UTF-8", fmt::format("\"{}\"", printable(text)));
  return std::string(text);
}

std::optional<std::string> GgufMetadata::optional_text(std::string_view key, size_t most_bytes) const {
  if (!has(key)) return std::nullopt;
  return text(key, most_bytes);
}

std::optional<bool> GgufMetadata::optional_boolean(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->is_array || value->type != GgufType::boolean) refuse(key, "a bool", found_type(*value));
  return read_at<uint8_t>(*value, 0) != 0;
}

uint64_t GgufMetadata::integer_at(std::string_view key, const GgufValue& value, uint64_t index, uint64_t low,
                                  uint64_t high) const {
  const std::string expected = fmt::format("an integer from {} to {}", low, high);
  if (!is_whole(value.type)) refuse(key, expected, found_type(value));
  const Whole whole = read_whole(value, index);
  if (whole.negative || whole.magnitude < low || whole.magnitude > high)
    refuse(key, expected, fmt::format("{}{}", whole.negative ? "-" : "", whole.magnitude));
  return whole.magnitude;
}

uint64_t GgufMetadata::integer(std::string_view key, uint64_t low, uint64_t high) const {
  const GgufValue& value = require(key);
  if (value.is_array) refuse(key, fmt::format("an integer from {} to {}", low, high), found_type(value));
  return integer_at(key, value, 0, low, high);
}

std::optional<uint64_t> GgufMetadata::optional_integer(std::string_view key, uint64_t low,
                                                       uint64_t high) const {
  if (!has(key)) return std::nullopt;
  return integer(key, low, high);
}

double GgufMetadata::number(std::string_view key, double low, double high) const {
  const GgufValue& value = require(key);
  const std::string expected = fmt::format("a number from {} to {}", low, high);
  double number = 0;
  if (!value.is_array && value.type == GgufType::f32) {
    const std::string decimal = fmt::format("{}", read_at<float>(value, 0));
    std::from_chars(decimal.data(), decimal.data() + decimal.size(), number);
  } else if (!value.is_array && value.type == GgufType::f64) {
    number = read_at<double>(value, 0);
  } else if (!value.is_array && is_whole(value.type)) {
    const Whole whole = read_whole(value, 0);
    number = whole.negative ? -static_cast<double>(whole.magnitude) : static_cast<double>(whole.magnitude);
  } else {
    refuse(key, expected, found_type(value));
  }
  if (!(number >= low && number <= high)) refuse(key, expected, fmt::format("{}", number));
  return number;
}

std::optional<double> GgufMetadata::optional_number(std::string_view key, double low, double high) const {
  if (!has(key)) return std::nullopt;
  return number(key, low, high);
}

uint64_t GgufMetadata::uniform_integer(std::string_view key, uint64_t low, uint64_t high) const {
  if (!require(key).is_array) return integer(key, low, high);
  const std::vector<uint64_t> items = integers(key, low, high);
  if (items.empty()) refuse(key, "at least one integer", "none");
  for (const uint64_t item : items)
    if (item != items.front())
      refuse(key, "the same integer for all layers", fmt::format("{} and {}", items.front(), item));
  return items.front();
}

std::vector<std::string_view> GgufMetadata::texts(std::string_view key) const {
  const GgufValue& value = require_array(key, "string");
  if (value.type != GgufType::string) refuse(key, "an array of string", found_type(value));
  std::vector<std::string_view> out;
  out.reserve(static_cast<size_t>(value.count));
  const auto* at = reinterpret_cast<const char*>(value.bytes.data());
  for (uint64_t i = 0; i < value.count; ++i) {
    uint64_t length = 0;
    std::memcpy(&length, at, 8);
    out.emplace_back(at + 8, static_cast<size_t>(length));
    at += 8 + length;
  }
  return out;
}

std::vector<uint64_t> GgufMetadata::integers(std::string_view key, uint64_t low, uint64_t high) const {
  const GgufValue& value = require_array(key, "integers");
  std::vector<uint64_t> out;
  out.reserve(static_cast<size_t>(value.count));
  for (uint64_t i = 0; i < value.count; ++i) out.push_back(integer_at(key, value, i, low, high));
  return out;
}

std::vector<float> GgufMetadata::numbers(std::string_view key) const {
  const GgufValue& value = require_array(key, "f32");
  if (value.type != GgufType::f32) refuse(key, "an array of f32", found_type(value));
  std::vector<float> out(static_cast<size_t>(value.count));
  if (!out.empty()) std::memcpy(out.data(), value.bytes.data(), value.bytes.size());
  return out;
}

}  // namespace tessera
