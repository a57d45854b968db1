// The values a chat template computes with. They are shared and behave as in Python, for which templates are
// written: lists and dicts change by their methods only, namespaces by assignment, everything else never.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "engine/chat_template/quoted_text.h"
#include "engine/chat_template/render_budget.h"

namespace tessera::jinja {

struct String;
struct List;
struct Dict;
struct Namespace;
struct Loop;
struct BoundMethod;
struct Closure;
struct Scope;     // renderer.cpp
struct For;       // syntax_tree.h
struct Macro;     // syntax_tree.h
struct Function;  // builtins.h

// The value of a name or attribute that does not exist. `name` may be null and points into the parsed
// template.
struct Undefined {
  const std::string* name = nullptr;
};
struct None {};

class Value {
 public:
  using Data = std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const String>,
                            std::shared_ptr<const List>, std::shared_ptr<const Dict>, Namespace*,
                            std::shared_ptr<const Loop>, std::shared_ptr<const Closure>, const Function*,
                            std::shared_ptr<const BoundMethod>>;

  Value() = default;            // undefined
  Value(const char*) = delete;  // would become a bool
  Value(Undefined undefined) : data_(undefined) {}
  Value(None none) : data_(none) {}
  Value(bool truth) : data_(truth) {}
  Value(int64_t integer) : data_(integer) {}
  Value(double number) : data_(number) {}
  Value(std::shared_ptr<const String> string) : data_(std::move(string)) {}
  Value(std::shared_ptr<const List> list) : data_(std::move(list)) {}
  Value(std::shared_ptr<const Dict> dict) : data_(std::move(dict)) {}
  Value(Namespace* space) : data_(space) {}
  Value(std::shared_ptr<const Loop> loop) : data_(std::move(loop)) {}
  Value(std::shared_ptr<const Closure> macro) : data_(std::move(macro)) {}
  Value(const Function* function) : data_(function) {}
  Value(std::shared_ptr<const BoundMethod> method) : data_(std::move(method)) {}

  template <typename T>
  bool holds() const {
    return std::holds_alternative<T>(data_);
  }
  template <typename T>
  const T* get() const {
    return std::get_if<T>(&data_);
  }
  bool is_undefined() const { return holds<Undefined>(); }
  bool is_none() const { return holds<None>(); }
  const String* string() const { return pointee<String>(); }
  const List* list() const { return pointee<List>(); }
  const Dict* dict() const { return pointee<Dict>(); }
  const Loop* loop() const { return pointee<Loop>(); }
  const BoundMethod* method() const { return pointee<BoundMethod>(); }
  const Closure* macro() const { return pointee<Closure>(); }

  const Data& data() const { return data_; }

 private:
  template <typename T>
  const T* pointee() const {
    const auto* pointer = std::get_if<std::shared_ptr<const T>>(&data_);
    return pointer == nullptr ? nullptr : pointer->get();
  }
  Data data_;
};

// A string and which of its bytes come from a message. Whatever a template does with a message, its bytes
// stay marked, so that they never become special tokens.
struct String : QuotedText {
  Charge charge;
};

struct List {
  std::vector<Value> items;
  bool tuple = false;
  size_t depth = 1;  // when it was made
  Charge charge;
};

struct Dict {
  std::vector<std::pair<Value, Value>> entries;  // in order of insertion
  size_t depth = 1;
  Charge charge;
};

// What namespace() returns. The renderer owns all of them until it ends, so that a namespace which contains
// itself does not leak.
struct Namespace {
  std::vector<std::pair<std::string, Value>> attributes;
  Charge charge;
};

// The variable `loop` inside a for statement. The renderer increments `index`.
struct Loop {
  std::shared_ptr<const List> items;
  mutable size_t index = 0;
  size_t depth = 1;                // of recursive loops: 1 outside
  const For* recursive = nullptr;  // the statement, where calling the loop runs it again
  std::weak_ptr<Scope> scope;      // what surrounds that statement
};

// A macro, or the body of a call block, and the variables that surround it. It does not keep them alive.
struct Closure {
  const Macro* macro = nullptr;
  std::weak_ptr<Scope> scope;
};

struct Method;  // builtins.h
// The value of "object.method" when it is not called at once.
struct BoundMethod {
  Value object;
  const Method* method = nullptr;
  Charge charge;
};

// The following functions make values. They throw Fault when the budget is exceeded or values nest deeper
// than 64 levels.

// A string without quoted bytes.
Value make_string(Budget& budget, std::string text);
Value make_string(Budget& budget, QuotedText text);
// A substring with its quotes; `part` is a view into whole.text.
Value make_part(Budget& budget, const String& whole, std::string_view part);
// A string computed from `source` byte by byte (say, in upper case), whose bytes no longer correspond: all of
// it is quoted when any byte of the source is.
Value make_changed(Budget& budget, const String& source, std::string text);
// A constant of the parsed template, which no budget counts.
Value make_constant_string(std::string text);
Value make_list(Budget& budget, std::vector<Value> items, bool tuple = false);
Value make_dict(Budget& budget, std::vector<std::pair<Value, Value>> entries);
Value make_method(Budget& budget, Value object, const Method* method);

// The list or dict itself, for methods that change it. It was made by make_list or make_dict.
List& changeable(const List& list);
Dict& changeable(const Dict& dict);

// Builds a string piece by piece; its budget counts what it holds. All append functions throw Fault.
class TextBuilder {
 public:
  explicit TextBuilder(Budget& budget) : budget_(&budget), charge_(budget, 0) {}
  void append(std::string_view text) { append_all(text, false); }
  void append(const String& string) { append_part(string, string.text); }
  // The same as make_part and make_changed.
  void append_part(const String& whole, std::string_view part);
  void append_changed(const String& source, std::string_view text);
  // The text as a string value.
  Value value() &&;
  // The text itself, which the budget no longer counts.
  QuotedText release() &&;
  Budget& budget() const { return *budget_; }

 private:
  void append_all(std::string_view text, bool quoted);

  Budget* budget_;
  QuotedText text_;
  Charge charge_;
};

// "string", "list", … for error messages.
std::string type_name(const Value& value);
// "a string", "an integer", "none" for error messages.
std::string described(const Value& value);
// Whether Python's bool(value) is true.
bool truthy(const Value& value);

// Appends what {{ value }} prints. Throws Fault for loops, functions and namespaces, which have no text.
void append_text(TextBuilder& out, const Value& value);
// Appends what Python's repr(value) gives, which is how a value looks inside a printed list.
void append_repr(TextBuilder& out, const Value& value);
// The text that append_text gives. `storage` owns it and must outlive the reference.
const String& text_of(Budget& budget, const Value& value, Value& storage);
// The shortest digits from which the same double is read again, in the notation of Python's repr.
std::string float_text(double number);

// Python's left == right.
bool equal(Budget& budget, const Value& left, const Value& right);
// Negative, zero or positive when left is less than, equal to or greater than right; `ordered` becomes false
// when one of them is NaN. Throws Fault for types that have no order.
int compare(Budget& budget, const Value& left, const Value& right, bool& ordered);

// What a for statement visits: items of a list, characters of a string, keys of a dict, nothing for
// undefined. Throws Fault for every other type.
std::shared_ptr<const List> iterate(Budget& budget, const Value& value);
// The value stored under a key, or null.
const Value* find_key(Budget& budget, const Dict& dict, const Value& key);
const Value* find_key(Budget& budget, const Dict& dict, std::string_view key);
const Value* find_attribute(const Namespace& space, std::string_view name);

// Throws a Fault that names the undefined value.
[[noreturn]] void fail_undefined(const Value& value);

}  // namespace tessera::jinja
