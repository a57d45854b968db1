// Filters, tests, methods and functions that a chat template can name: their parameters, known to the parser
// so that a wrong call is refused before anything runs, and what they do.
#pragma once

#include <array>
#include <cstddef>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/chat_template/value.h"

namespace tessera::jinja {

// What all of them may use during one rendering.
struct Environment {
  explicit Environment(size_t input_bytes) : budget(input_bytes) {}
  Budget budget;
  std::deque<Namespace> namespaces;
  std::string date;  // what strftime_now gives; empty: the clock is asked
};

struct Signature {
  std::string_view name;
  std::array<std::string_view, 4> parameters{};  // up to the first empty one
  size_t required = 0;
  bool more_positional = false;  // takes any further positional arguments
  bool more_named = false;       // takes any further named ones
};

// Arguments matched with a signature's parameters.
class Arguments {
 public:
  // Throws Fault when they do not fit.
  Arguments(const Signature& signature, std::vector<Value> positional,
            std::vector<std::pair<std::string, Value>> named);

  const Value* find(size_t parameter) const;  // null when it was not given
  const std::vector<Value>& extra() const { return extra_; }
  const std::vector<std::pair<std::string, Value>>& extra_named() const { return extra_named_; }
  // Typed access; throws Fault when the argument has another type.
  int64_t integer(size_t parameter, int64_t otherwise) const;
  bool truth(size_t parameter, bool otherwise) const;
  std::string_view text(size_t parameter, std::string_view otherwise) const;
  const String& string(size_t parameter) const;  // one that is required

 private:
  const Signature* signature_;
  std::array<std::optional<Value>, 4> bound_;
  std::vector<Value> extra_;
  std::vector<std::pair<std::string, Value>> extra_named_;
};

// Why arguments do not fit a signature; empty when they do.
std::string check_arguments(const Signature& signature, size_t positional,
                            const std::vector<std::string_view>& named);

struct Filter {
  Signature signature;
  Value (*apply)(Environment& environment, const Value& subject, const Arguments& arguments);
};
struct Test {
  Signature signature;
  bool (*apply)(Environment& environment, const Value& subject, const Arguments& arguments);
};
struct Method {
  Signature signature;
  Value (*apply)(Environment& environment, const Value& object, const Arguments& arguments);
};
struct Function {
  Signature signature;
  Value (*apply)(Environment& environment, const Arguments& arguments);
};

// Null when there is none of this name.
const Filter* find_filter(std::string_view name);
const Filter* find_sequence_filter(std::string_view name);  // those on lists; find_filter knows them too
const Test* find_test(std::string_view name);
const Function* find_function(std::string_view name);
const Method* find_method(const Value& object, std::string_view name);
bool is_method_name(std::string_view name);  // of any type

// object.name and object[key] as templates mean them: undefined when there is no such thing; throws Fault
// when the object is itself undefined. `name` must live as long as the parsed template.
Value get_attribute(Budget& budget, const Value& object, const std::string& name);
Value get_item(Budget& budget, const Value& object, const Value& key);

// The tojson filter. Throws Fault for what JSON cannot express.
struct JsonStyle {
  bool ascii = false;
  bool sort_keys = false;
  std::optional<Value> indent;  // the string that one level is indented by
  Value item_separator;         // strings
  Value key_separator;
};
Value to_json(Budget& budget, const Value& value, const JsonStyle& style);

}  // namespace tessera::jinja
