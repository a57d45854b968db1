#include "gguf-like-format/strict_json.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "gguf-like-format/stand_ins.h"

namespace tessera {

namespace {

using nlohmann::json;

// Builds the document while it is parsed, so that limits are applied before memory is spent.
class DocumentBuilder : public nlohmann::json_sax<json> {
 public:
  explicit DocumentBuilder(const JsonLimits& limits) : limits_(limits) {}

  json take() { return std::move(root_); }
  const std::string& fault() const { return fault_; }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t&) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { return fail("binary data is not JSON"); }
  bool start_object(std::size_t) override { return open(json::object()); }
  bool start_array(std::size_t) override { return open(json::array()); }
  bool end_object() override {
    stack_.pop_back();
    return true;
  }
  bool end_array() override {
    stack_.pop_back();
    return true;
  }
  bool key(string_t& name) override {
    const auto [entry, inserted] = stack_.back()->get_ref<json::object_t&>().try_emplace(name);
    if (!inserted) return fail(fmt::format("key \"{}\" appears twice in one object", printable(name)));
    member_ = &entry->second;
    return true;
  }
  bool parse_error(std::size_t position, const std::string& token,
                   const nlohmann::detail::exception& error) override {
    constexpr int number_overflow = 406;  // the library's code for a number that is infinite as a double
    if (error.id == number_overflow) return fail(fmt::format("number {} is out of range", printable(token)));
    return fail(fmt::format("malformed at byte {} near \"{}\"", position, printable(token)));
  }

 private:
  bool fail(std::string line) {
    if (fault_.empty()) fault_ = std::move(line);
    return false;
  }

  bool add(json value) { return count() && place(std::move(value)) != nullptr; }

  bool count() {
    return ++values_ <= limits_.values || fail(fmt::format("expected at most {} values", limits_.values));
  }

  json* place(json value) {
    if (stack_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (member_ != nullptr) {
      *member_ = std::move(value);
      return std::exchange(member_, nullptr);
    }
    auto& elements = stack_.back()->get_ref<json::array_t&>();
    elements.push_back(std::move(value));
    return &elements.back();
  }

  bool open(json empty) {
    if (stack_.size() >= limits_.depth)
      return fail(fmt::format("nested deeper than {} levels", limits_.depth));
    if (!count()) return false;
    stack_.push_back(place(std::move(empty)));
    return true;
  }

  JsonLimits limits_;
  size_t values_ = 0;
  json root_;
  std::vector<json*> stack_;
  json* member_ = nullptr;  // the value that the last key waits for
  std::string fault_;
};

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

std::string describe(const json& value) {
  switch (value.type()) {
    case json::value_t::object:
      return "an object";
    case json::value_t::array:
      return "an array";
    case json::value_t::string:
      return fmt::format("\"{}\"", printable(value.get_ref<const std::string&>()));
    case json::value_t::number_float:
      return fmt::format("{}", value.get<double>());
    default:
      return value.dump();
  }
}

}  // namespace

json parse_strict_json(std::string_view text, const std::string& where, const JsonLimits& limits) {
  if (text.size() > limits.bytes)
    throw FileError(
        fmt::format("{}: JSON: expected at most {} bytes, found {}", where, limits.bytes, text.size()));
  // The parser takes a NUL for the end of its input; here it is one more byte that JSON does not allow.
  if (const size_t nul = text.find('\0'); nul != std::string_view::npos)
    throw FileError(fmt::format("{}: JSON: malformed at byte {}: NUL", where, nul + 1));
  DocumentBuilder builder(limits);
  if (!json::sax_parse(text.begin(), text.end(), &builder))
    throw FileError(fmt::format("{}: JSON: {}", where, builder.fault()));
  return builder.take();
}

std::string read_text_file(const std::string& path, size_t most_bytes) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) throw FileError(fmt::format("{}: {}", path, why_not_opened(path, errno)));
  struct stat info {};
  if (::fstat(file.get(), &info) != 0)
    throw FileError(fmt::format("{}: cannot be examined: {}", path, std::strerror(errno)));
  if (!S_ISREG(info.st_mode)) throw FileError(fmt::format("{}: expected a regular file", path));
  const auto size = static_cast<uint64_t>(info.st_size);
  if (size > most_bytes)
    throw FileError(fmt::format("{}: expected at most {} bytes, found {}", path, most_bytes, size));
  std::string text(static_cast<size_t>(size), '\0');
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t got = ::read(file.get(), text.data() + done, text.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw FileError(fmt::format("{}: cannot be read: {}", path, std::strerror(errno)));
    if (got == 0)
      throw FileError(fmt::format("{}: expected {} bytes, found {}: the file changed while it was read", path,
                                  text.size(), done));
    done += static_cast<size_t>(got);
  }
  refuse_stand_in(path, text);
  return text;
}

std::string read_utf8_file(const std::string& path, size_t most_bytes) {
  std::string text = read_text_file(path, most_bytes);
  // The parser knows UTF-8: it reads the text as one JSON string, in which nothing else can be wrong.
  std::string quoted = "\"" + text + "\"";
  for (char& c : std::span(quoted).subspan(1, text.size()))
    if (static_cast<unsigned char>(c) < 0x20 || c == '"' || c == '\\') c = ' ';
  try {
    [[maybe_unused]] const json parsed = json::parse(quoted);
  } catch (const json::parse_error& error) {
    throw FileError(fmt::format("{}: expected text in UTF-8, found malformed characters at byte {}", path,
                                error.byte - 1));  // the quote in front does not count
  }
  return text;
}

json read_strict_json(const std::string& path, const JsonLimits& limits) {
  return parse_strict_json(read_text_file(path, limits.bytes), path, limits);
}

JsonFields::JsonFields(const json& value, std::string where, std::string prefix)
    : object_(&value), where_(std::move(where)), prefix_(std::move(prefix)) {
  if (!value.is_object())
    throw FileError(fmt::format("{}: {}: expected a JSON object, found {}", where_,
                                prefix_.empty() ? "JSON" : prefix_, describe(value)));
}

std::string JsonFields::label(std::string_view field) const {
  return prefix_.empty() ? std::string(field) : fmt::format("{}.{}", prefix_, field);
}

void JsonFields::refuse(std::string_view field, std::string_view expected, std::string_view found) const {
  throw FileError(fmt::format("{}: {}: expected {}, found {}", where_, label(field), expected, found));
}

void JsonFields::refuse_value(std::string_view field, std::string_view expected) const {
  refuse(field, expected, describe(require(field)));
}

const json* JsonFields::find(std::string_view field) const {
  const auto& members = object_->get_ref<const json::object_t&>();
  const auto entry = members.find(field);
  return entry == members.end() || entry->second.is_null() ? nullptr : &entry->second;
}

const json& JsonFields::require(std::string_view field) const {
  const json* value = find(field);
  if (value == nullptr) throw FileError(fmt::format("{}: {}: missing", where_, label(field)));
  return *value;
}

JsonFields JsonFields::object(std::string_view field) const {
  return JsonFields(require(field), where_, label(field));
}

const json& JsonFields::array(std::string_view field) const {
  const json& value = require(field);
  if (!value.is_array()) refuse_value(field, "an array");
  return value;
}

std::string JsonFields::text(std::string_view field, size_t most_bytes) const {
  const json& value = require(field);
  if (!value.is_string()) refuse_value(field, "a string");
  const auto& text = value.get_ref<const std::string&>();
  if (text.size() > most_bytes)
    refuse(field, fmt::format("at most {} bytes", most_bytes), std::to_string(text.size()));
  return text;
}

bool JsonFields::boolean(std::string_view field) const {
  const json& value = require(field);
  if (!value.is_boolean()) refuse_value(field, "true or false");
  return value.get<bool>();
}

bool JsonFields::boolean_or(std::string_view field, bool fallback) const {
  return find(field) != nullptr ? boolean(field) : fallback;
}

uint64_t JsonFields::element(const json& value, const std::string& label, uint64_t low, uint64_t high) const {
  if (!value.is_number_unsigned() || value.get<uint64_t>() < low || value.get<uint64_t>() > high)
    throw FileError(fmt::format("{}: {}: expected an integer from {} to {}, found {}", where_, label, low,
                                high, describe(value)));
  return value.get<uint64_t>();
}

uint64_t JsonFields::integer(std::string_view field, uint64_t low, uint64_t high) const {
  return element(require(field), label(field), low, high);
}

std::optional<uint64_t> JsonFields::optional_integer(std::string_view field, uint64_t low,
                                                     uint64_t high) const {
  if (find(field) == nullptr) return std::nullopt;
  return integer(field, low, high);
}

double JsonFields::number(std::string_view field, double low, double high) const {
  const json& value = require(field);
  if (!value.is_number() || !(value.get<double>() >= low && value.get<double>() <= high))
    refuse_value(field, fmt::format("a number from {} to {}", low, high));
  return value.get<double>();
}

std::optional<double> JsonFields::optional_number(std::string_view field, double low, double high) const {
  if (find(field) == nullptr) return std::nullopt;
  return number(field, low, high);
}

}  // namespace tessera
