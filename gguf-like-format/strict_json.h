// The one way this project parses JSON from a file: limits on size and depth, duplicate keys refused, and
// typed access to fields with errors that name them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "gguf-like-format/file_error.h"

namespace tessera {

struct JsonLimits {
  size_t bytes = size_t{64} << 20;
  size_t depth = 32;                        // nested arrays and objects
  size_t values = size_t{8} * 1000 * 1000;  // each takes far more memory than its text, up to forty times
};

// Parses one JSON document (UTF-8, optionally with a byte order mark). where names the file, or the file and
// the part of it, in errors. Throws FileError for text that is too long, too deep, malformed, has too many
// values or repeats a key, and for numbers that no double can hold.
nlohmann::json parse_strict_json(std::string_view text, const std::string& where,
                                 const JsonLimits& limits = {});

// The whole file, refused when it is not a regular file or larger than most_bytes. Throws FileError.
std::string read_text_file(const std::string& path, size_t most_bytes);

// read_text_file and parse_strict_json in one. Throws FileError.
nlohmann::json read_strict_json(const std::string& path, const JsonLimits& limits = {});

// Typed access to the fields of one JSON object. A view: the object and where must outlive it. A field that
// is null counts as absent. Every error reads "FILE: PREFIX.FIELD: expected …, found …".
class JsonFields {
 public:
  // where is the file's name; prefix the path to this object, empty at the top. Throws FileError when value
  // is not an object.
  JsonFields(const nlohmann::json& value, std::string where, std::string prefix);

  const nlohmann::json* find(std::string_view field) const;  // nullptr when absent or null
  const nlohmann::json& require(std::string_view field) const;
  JsonFields object(std::string_view field) const;
  const nlohmann::json& array(std::string_view field) const;
  std::string text(std::string_view field, size_t most_bytes) const;
  bool boolean(std::string_view field) const;
  bool boolean_or(std::string_view field, bool fallback) const;
  uint64_t integer(std::string_view field, uint64_t low, uint64_t high) const;  // low and high are allowed
  std::optional<uint64_t> optional_integer(std::string_view field, uint64_t low, uint64_t high) const;
  double number(std::string_view field, double low, double high) const;  // integers count as numbers
  std::optional<double> optional_number(std::string_view field, double low, double high) const;
  // An element of an array as an integer; label is the element's full name in errors.
  uint64_t element(const nlohmann::json& value, const std::string& label, uint64_t low, uint64_t high) const;

  const std::string& where() const { return where_; }
  std::string label(std::string_view field) const;  // "PREFIX.FIELD"
  [[noreturn]] void refuse(std::string_view field, std::string_view expected, std::string_view found) const;
  [[noreturn]] void refuse_value(std::string_view field, std::string_view expected) const;  // shows the value

 private:
  const nlohmann::json* object_;
  std::string where_;
  std::string prefix_;
};

}  // namespace tessera
