// Filters, tests, methods and functions that a chat template can call, each with its parameters.
#pragma once

#include <array>
#include <cstddef>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/chat_template/value.h"

namespace tessera::jinja {

// The state of one rendering that all of them may use.
struct Environment {
  explicit Environment(size_t input_bytes) : budget(input_bytes) {}
  ~Environment();
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

  Budget budget;
  std::deque<Namespace> namespaces;
  // Lists and dicts that were given another one after they were made. They may contain themselves, or each
  // other deeper than destructors may recurse, so all of them are emptied before any is destroyed.
  std::vector<Value> regrown;
  std::string date;  // what strftime_now returns; empty: the current time
};

struct Signature {
  std::string_view name;
  std::array<std::string_view, 4> parameters{};  // names; the first empty one ends the list
  size_t required = 0;                           // how many of them have no default value
  bool more_positional = false;                  // like Python's *args
  bool more_named = false;                       // like Python's **kwargs
};

// The arguments of one call, matched with a signature's parameters. Functions take a parameter's index.
class Arguments {
 public:
  // Throws Fault when the arguments do not fit the signature.
  Arguments(const Signature& signature, std::vector<Value> positional,
            std::vector<std::pair<std::string, Value>> named);

  // Null when the argument was not given.
  const Value* find(size_t parameter) const;
  // Further arguments of signatures with more_positional and more_named.
  const std::vector<Value>& extra() const { return extra_; }
  const std::vector<std::pair<std::string, Value>>& extra_named() const { return extra_named_; }
  // The argument, or `otherwise` when it was not given. Throws Fault when it has another type.
  int64_t integer(size_t parameter, int64_t otherwise) const;
  bool truth(size_t parameter, bool otherwise) const;
  std::string_view text(size_t parameter, std::string_view otherwise) const;
  // A required string. Throws Fault when it has another type.
  const String& string(size_t parameter) const;

 private:
  const Signature* signature_;
  std::array<std::optional<Value>, 4> bound_;
  std::vector<Value> extra_;
  std::vector<std::pair<std::string, Value>> extra_named_;
};

// The entries that the arguments of dict(…), namespace(…) and update(…) describe: those of a mapping or a
// list of pairs, the first argument, then the named ones. Each key once, with its last value. Throws Fault.
std::vector<std::pair<Value, Value>> given_entries(Environment& environment, const Arguments& arguments);

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

// These return null when nothing has the name.
const Method* find_in(std::span<const Method> methods, std::string_view name);
const Filter* find_filter(std::string_view name);
// Only the filters that work on lists; find_filter finds them too.
const Filter* find_sequence_filter(std::string_view name);
// Only the methods of lists and dicts; find_method finds them too.
const Method* find_container_method(const Value& object, std::string_view name);
const Test* find_test(std::string_view name);
const Function* find_function(std::string_view name);
const Method* find_method(const Value& object, std::string_view name);

// The values of object.name and object[key]: undefined when there is no such attribute or entry. Throws Fault
// when the object itself is undefined. `name` must live as long as the parsed template.
Value get_attribute(Budget& budget, const Value& object, const std::string& name);
Value get_item(Budget& budget, const Value& object, const Value& key);

struct JsonStyle {
  bool ascii = false;  // characters beyond ASCII are escaped
  bool sort_keys = false;
  std::optional<Value> indent;  // a string by which each level is indented; none: everything on one line
  Value item_separator;         // strings
  Value key_separator;
};
// What the tojson filter returns. Throws Fault for values that JSON cannot express.
Value to_json(Budget& budget, const Value& value, const JsonStyle& style);

}  // namespace tessera::jinja
