// The syntax tree of a parsed chat template: statements and expressions. Immutable once parsed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "engine/chat_template/builtins.h"
#include "engine/chat_template/value.h"

namespace tessera::jinja {

enum class Operator : uint8_t {
  add,
  subtract,
  multiply,
  divide,
  floor_divide,
  modulo,
  power,
  concatenate,
  equal,
  not_equal,
  less,
  less_equal,
  greater,
  greater_equal,
  in,
  not_in,
};

// What an expression is, and which fields of Expr it uses.
enum class ExprKind : uint8_t {
  constant,     // constant
  name,         // name, and `function` when it is one that the interpreter provides
  list,         // operands
  tuple,        // operands
  dict,         // operands: key, value, key, value, …
  attribute,    // operands: object; name
  subscript,    // operands: object, key
  slice,        // operands: object, start, stop, step; the last three may be null
  call,         // operands: callee, positional arguments; named
  filter,       // operands: subject (null inside a filter block), positional arguments; named; filter
  test,         // operands: subject, positional arguments; named; test; negated
  logical_not,  // operands: one
  negate,       // operands: one
  plus,         // operands: one
  binary,       // operands: two; operation
  comparison,   // operands: n + 1; comparisons: n
  logical_and,  // operands: two
  logical_or,   // operands: two
  conditional,  // operands: condition, value, other value (may be null: undefined)
};

struct Expr;
using ExprPtr = std::unique_ptr<const Expr>;

struct Expr {
  ExprKind kind = ExprKind::constant;
  Operator operation = Operator::add;
  bool negated = false;
  uint32_t line = 0;
  uint32_t depth = 1;  // levels of expressions, this one included
  std::string name;
  Value constant;
  std::vector<ExprPtr> operands;
  std::vector<std::pair<std::string, ExprPtr>> named;
  ExprPtr more_positional;  // of calls, filters and tests: *arguments; may be null
  ExprPtr more_named;       // **arguments; may be null
  std::vector<Operator> comparisons;
  // Null where nothing has the name: an error once it is used.
  const Function* function = nullptr;
  const Filter* filter = nullptr;
  const Test* test = nullptr;
};

struct Statement;
using Block = std::vector<Statement>;

// What is assigned to: a name, an attribute of a namespace, or several targets into which a sequence is
// unpacked.
struct Target {
  std::string name;
  std::string attribute;         // empty: the name itself
  std::vector<Target> elements;  // not empty: name is unused
};

struct Text {
  std::string text;
};
struct Output {
  ExprPtr value;
};
struct If {
  std::vector<std::pair<ExprPtr, Block>> branches;  // if and every elif
  Block otherwise;
};
struct For {
  Target target;
  ExprPtr items;
  ExprPtr condition;  // may be null
  Block body;
  Block otherwise;  // runs when there was no item
  bool recursive = false;
};
struct Set {
  Target target;
  ExprPtr value;
};
struct SetBlock {
  Target target;
  ExprPtr filter;  // a chain of filters whose innermost one is applied to the text of the block; may be null
  Block body;
};
struct FilterBlock {
  ExprPtr filter;
  Block body;
};
struct With {
  std::vector<std::pair<Target, ExprPtr>> variables;
  Block body;
};
struct Generation {  // marks the assistant's text for training; has no effect on rendering
  Block body;
};
struct Break {};
struct Continue {};

struct Macro {
  std::string name;
  std::vector<std::pair<std::string, ExprPtr>> parameters;  // default value or null
  Block body;
  // Whether the body uses these names, which makes them parameters.
  bool takes_positional = false;  // varargs
  bool takes_named = false;       // kwargs
  bool takes_caller = false;      // caller
};
struct MacroDefinition {
  std::unique_ptr<const Macro> macro;
};
struct CallBlock {
  ExprPtr call;
  std::unique_ptr<const Macro> body;  // what the called macro gets as caller
};

struct Statement {
  uint32_t line = 0;
  std::variant<Text, Output, If, For, Set, SetBlock, FilterBlock, With, Generation, Break, Continue,
               MacroDefinition, CallBlock>
      action;
};

// Parses a template with normalized newlines, which is not needed afterwards. Throws TemplateError.
Block parse_template(std::string_view source);

}  // namespace tessera::jinja
