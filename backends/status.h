// Success or one line that says what failed: what crosses a backend's boundary instead of an exception.
#pragma once

#include <cassert>
#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace tessera {

class [[nodiscard]] Status {
 public:
  static Status success() { return Status(std::nullopt); }
  static Status failure(std::string line) { return Status(std::move(line)); }
  bool ok() const { return !error_.has_value(); }
  const std::string& error() const {
    assert(error_.has_value());
    return *error_;
  }

 private:
  explicit Status(std::optional<std::string> error) : error_(std::move(error)) {}
  std::optional<std::string> error_;
};

// A value, or the line that says why there is none. value() and error() may only be called where ok() says
// so.
template <class Value>
class [[nodiscard]] Result {
 public:
  Result(Value value) : content_(std::in_place_index<0>, std::move(value)) {}  // NOLINT: implicit by design
  static Result failure(std::string line) { return Result(Failure{std::move(line)}); }
  bool ok() const { return content_.index() == 0; }
  Value& value() { return std::get<0>(content_); }
  const std::string& error() const { return std::get<1>(content_).line; }

 private:
  struct Failure {
    std::string line;
  };
  explicit Result(Failure failure) : content_(std::in_place_index<1>, std::move(failure)) {}
  std::variant<Value, Failure> content_;
};

}  // namespace tessera
