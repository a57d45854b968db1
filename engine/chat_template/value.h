// The values a chat template computes with. All are immutable and shared, except namespaces, which the
// renderer owns. Semantics follow Python, because that is what templates are written for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "engine/chat_template/budget.h"
#include "engine/chat_template/quoted_text.h"

namespace tessera::jinja {

struct String;
struct List;
struct Dict;
struct Namespace;
struct Loop;
struct BoundMethod;
struct Macro;     // template_syntax.h
struct Function;  // template_builtins.h

// A name or attribute that does not exist; `name` (may be null) lives in the parsed template.
struct Undefined {
  const std::string* name = nullptr;
};
struct None {};

class Value {
 public:
  using Data = std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const String>,
                            std::shared_ptr<const List>, std::shared_ptr<const Dict>, Namespace*,
                            std::shared_ptr<const Loop>, const Macro*, const Function*,
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
  Value(const Macro* macro) : data_(macro) {}
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

  const Data& data() const { return data_; }

 private:
  template <typename T>
  const T* pointee() const {
    const auto* pointer = std::get_if<std::shared_ptr<const T>>(&data_);
    return pointer == nullptr ? nullptr : pointer->get();
  }
  Data data_;
};

// Which bytes come from a message travels along, so that a template can do with messages what it likes and
// they still spell no special tokens.
struct String : QuotedText {
  Charge charge;
};

struct List {
  std::vector<Value> items;
  bool tuple = false;
  size_t depth = 1;
  Charge charge;
};

struct Dict {
  std::vector<std::pair<Value, Value>> entries;  // in order of insertion
  size_t depth = 1;
  Charge charge;
};

// namespace(): the one thing a template can change. Owned by the renderer until it ends, so that a namespace
// which holds itself is harmless.
struct Namespace {
  std::vector<std::pair<std::string, Value>> attributes;
  Charge charge;
};

// The `loop` of a for statement; the renderer moves `index` on.
struct Loop {
  std::shared_ptr<const List> items;
  mutable size_t index = 0;
};

struct Method;  // template_builtins.h
// object.method without the call
struct BoundMethod {
  Value object;
  const Method* method = nullptr;
  Charge charge;
};

// Constructors. They throw Fault when the budget is exceeded or values nest deeper than 64 levels.
Value make_string(Budget& budget, std::string text);  // nothing of it is quoted
Value make_string(Budget& budget, QuotedText text);
Value make_part(Budget& budget, const String& whole, std::string_view part);  // a view into the whole
// Text made of a string otherwise than by taking it apart: quoted throughout when any of the source is.
Value make_changed(Budget& budget, const String& source, std::string text);
Value make_constant_string(std::string text);  // for the parsed template: no budget
Value make_list(Budget& budget, std::vector<Value> items, bool tuple = false);
Value make_dict(Budget& budget, std::vector<std::pair<Value, Value>> entries);
Value make_method(Budget& budget, Value object, const Method* method);

// Text that grows under a budget.
class TextBuilder {
 public:
  explicit TextBuilder(Budget& budget) : budget_(&budget), charge_(budget, 0) {}
  void append(std::string_view text) { append_all(text, false); }
  void append(const String& string) { append_part(string, string.text); }
  void append_part(const String& whole, std::string_view part);      // a view into the whole
  void append_changed(const String& source, std::string_view text);  // as make_changed
  Value value() &&;                                                  // the text as a string value
  QuotedText release() &&;  // the text itself, no longer under the budget
  Budget& budget() const { return *budget_; }

 private:
  void append_all(std::string_view text, bool quoted);

  Budget* budget_;
  QuotedText text_;
  Charge charge_;
};

// "string", "list", … for messages.
std::string type_name(const Value& value);
std::string described(const Value& value);  // "a string", "an integer", "none"
bool truthy(const Value& value);

// What {{ value }} prints, and what it looks like inside a printed list. Throws Fault for loops, functions
// and namespaces, which have no text.
void append_text(TextBuilder& out, const Value& value);
void append_repr(TextBuilder& out, const Value& value);
// The text of a value: the string itself, or its printed form; `storage` keeps it.
const String& text_of(Budget& budget, const Value& value, Value& storage);
// The shortest digits that give the same double again, written as Python does.
std::string float_text(double number);

bool equal(Budget& budget, const Value& left, const Value& right);
// Negative, zero or positive; `ordered` becomes false when a NaN is involved. Throws Fault for types that
// have no order.
int compare(Budget& budget, const Value& left, const Value& right, bool& ordered);

// Items of a list, characters of a string, keys of a dict, nothing for undefined; throws Fault for the rest.
std::shared_ptr<const List> iterate(Budget& budget, const Value& value);
// The entry of a key, or null.
const Value* find_key(Budget& budget, const Dict& dict, const Value& key);
const Value* find_key(Budget& budget, const Dict& dict, std::string_view key);
const Value* find_attribute(const Namespace& space, std::string_view name);

[[noreturn]] void fail(std::string message);
[[noreturn]] void fail_undefined(const Value& value);

}  // namespace tessera::jinja
