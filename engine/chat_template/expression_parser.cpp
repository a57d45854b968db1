#include "engine/chat_template/expression_parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>

#include "engine/chat_template/literals.h"

namespace tessera::jinja {

namespace {

constexpr size_t kMostNesting = 80;
constexpr uint32_t kMostExpressionDepth = 150;

struct Symbol {
  std::string_view text;
  Operator operation;
};

template <size_t n>
std::optional<Operator> match(const Token& token, const std::array<Symbol, n>& symbols) {
  if (token.kind != TokenKind::symbol) return std::nullopt;
  for (const Symbol& symbol : symbols) {
    if (symbol.text == token.text) return symbol.operation;
  }
  return std::nullopt;
}

}  // namespace

bool ExpressionParser::is_keyword(std::string_view name) {
  static constexpr std::array<std::string_view, 7> keywords = {"and", "else", "if", "in", "is", "not", "or"};
  return std::find(keywords.begin(), keywords.end(), name) != keywords.end();
}

ExpressionParser::Nesting::Nesting(ExpressionParser& parser) : parser_(parser) {
  if (parser_.nesting_ >= kMostNesting) {
    parser_.fail_here(fmt::format("nested deeper than {} levels", kMostNesting));
  }
  ++parser_.nesting_;
}

Token ExpressionParser::read_token() {
  const Token token = tokens_[position_];
  if (position_ + 1 < tokens_.size()) ++position_;
  return token;
}

bool ExpressionParser::at_symbol(std::string_view symbol) const {
  return current().kind == TokenKind::symbol && current().text == symbol;
}

bool ExpressionParser::at_name(std::string_view name) const {
  return current().kind == TokenKind::name && current().text == name;
}

bool ExpressionParser::skip_symbol(std::string_view symbol) {
  if (!at_symbol(symbol)) return false;
  read_token();
  return true;
}

bool ExpressionParser::skip_name(std::string_view name) {
  if (!at_name(name)) return false;
  read_token();
  return true;
}

std::string ExpressionParser::describe_current() const {
  switch (current().kind) {
    case TokenKind::end:
      return "the end of the template";
    case TokenKind::text:
      return "text";
    default:
      return fmt::format("'{}'", current().text);
  }
}

void ExpressionParser::fail_unexpected(std::string_view wanted) const {
  fail_here(fmt::format("expected {}, found {}", wanted, describe_current()));
}

void ExpressionParser::expect_symbol(std::string_view symbol, std::string_view where) {
  if (!skip_symbol(symbol)) fail_unexpected(fmt::format("'{}' {}", symbol, where));
}

std::string ExpressionParser::expect_identifier(std::string_view what) {
  if (current().kind != TokenKind::name || is_keyword(current().text)) fail_unexpected(what);
  return std::string(read_token().text);
}

ExprPtr ExpressionParser::finish(Expr node) const {
  uint32_t depth = 0;
  for (const ExprPtr& operand : node.operands) {
    if (operand != nullptr) depth = std::max(depth, operand->depth);
  }
  for (const auto& argument : node.named) depth = std::max(depth, argument.second->depth);
  for (const ExprPtr* more : {&node.more_positional, &node.more_named})
    if (*more != nullptr) depth = std::max(depth, (*more)->depth);
  if (depth >= kMostExpressionDepth) {
    fail_at_line(node.line, fmt::format("the expression has more than {} levels", kMostExpressionDepth));
  }
  node.depth = depth + 1;
  return std::make_unique<const Expr>(std::move(node));
}

ExprPtr ExpressionParser::make(ExprKind kind, uint32_t line, Operands operands) const {
  Expr node;
  node.kind = kind;
  node.line = line;
  node.operands = std::move(operands);
  return finish(std::move(node));
}

ExprPtr ExpressionParser::make_pair(ExprKind kind, uint32_t line, ExprPtr left, ExprPtr right,
                                    Operator operation) const {
  Expr node;
  node.kind = kind;
  node.line = line;
  node.operation = operation;
  node.operands.push_back(std::move(left));
  node.operands.push_back(std::move(right));
  return finish(std::move(node));
}

bool ExpressionParser::at_expression_end(bool explicit_parentheses) const {
  if (current().kind == TokenKind::output_end || current().kind == TokenKind::block_end ||
      current().kind == TokenKind::end) {
    return true;
  }
  return (explicit_parentheses && at_symbol(")")) || at_symbol("=") || at_name("in");
}

ExprPtr ExpressionParser::parse_tuple(bool with_conditional) {
  const uint32_t line = current().line;
  const auto parse_one = [&] { return with_conditional ? parse_conditional() : parse_or(); };
  ExprPtr first = parse_one();
  if (!at_symbol(",")) return first;
  Operands items;
  items.push_back(std::move(first));
  while (skip_symbol(",")) {
    if (at_expression_end(true)) break;
    items.push_back(parse_one());
  }
  return make(ExprKind::tuple, line, std::move(items));
}

ExprPtr ExpressionParser::parse_conditional() {
  const Nesting nesting(*this);
  ExprPtr value = parse_or();
  while (at_name("if")) {
    const uint32_t line = read_token().line;
    Operands operands;
    operands.push_back(parse_or());
    operands.push_back(std::move(value));
    operands.push_back(skip_name("else") ? parse_conditional() : nullptr);
    value = make(ExprKind::conditional, line, std::move(operands));
  }
  return value;
}

ExprPtr ExpressionParser::parse_or() {
  ExprPtr left = parse_and();
  while (at_name("or")) {
    const uint32_t line = read_token().line;
    left = make_pair(ExprKind::logical_or, line, std::move(left), parse_and());
  }
  return left;
}

ExprPtr ExpressionParser::parse_and() {
  ExprPtr left = parse_not();
  while (at_name("and")) {
    const uint32_t line = read_token().line;
    left = make_pair(ExprKind::logical_and, line, std::move(left), parse_not());
  }
  return left;
}

ExprPtr ExpressionParser::parse_not() {
  if (!at_name("not")) return parse_comparison();
  const Nesting nesting(*this);
  const uint32_t line = read_token().line;
  Operands operands;
  operands.push_back(parse_not());
  return make(ExprKind::logical_not, line, std::move(operands));
}

ExprPtr ExpressionParser::parse_comparison() {
  static constexpr std::array<Symbol, 6> symbols = {{{"==", Operator::equal},
                                                     {"!=", Operator::not_equal},
                                                     {"<", Operator::less},
                                                     {"<=", Operator::less_equal},
                                                     {">", Operator::greater},
                                                     {">=", Operator::greater_equal}}};
  const uint32_t line = current().line;
  Operands operands;
  operands.push_back(parse_sum());
  std::vector<Operator> comparisons;
  while (true) {
    if (const std::optional<Operator> found = match(current(), symbols)) {
      read_token();
      comparisons.push_back(*found);
    } else if (at_name("in")) {
      read_token();
      comparisons.push_back(Operator::in);
    } else if (at_name("not") && following().kind == TokenKind::name && following().text == "in") {
      read_token();
      read_token();
      comparisons.push_back(Operator::not_in);
    } else {
      break;
    }
    operands.push_back(parse_sum());
  }
  if (comparisons.empty()) return std::move(operands.front());
  Expr node;
  node.kind = ExprKind::comparison;
  node.line = line;
  node.operands = std::move(operands);
  node.comparisons = std::move(comparisons);
  return finish(std::move(node));
}

ExprPtr ExpressionParser::parse_sum() {
  static constexpr std::array<Symbol, 2> symbols = {{{"+", Operator::add}, {"-", Operator::subtract}}};
  ExprPtr left = parse_concatenation();
  while (const std::optional<Operator> found = match(current(), symbols)) {
    const uint32_t line = read_token().line;
    left = make_pair(ExprKind::binary, line, std::move(left), parse_concatenation(), *found);
  }
  return left;
}

ExprPtr ExpressionParser::parse_concatenation() {
  ExprPtr left = parse_product();
  while (at_symbol("~")) {
    const uint32_t line = read_token().line;
    left = make_pair(ExprKind::binary, line, std::move(left), parse_product(), Operator::concatenate);
  }
  return left;
}

ExprPtr ExpressionParser::parse_product() {
  static constexpr std::array<Symbol, 4> symbols = {{{"*", Operator::multiply},
                                                     {"/", Operator::divide},
                                                     {"//", Operator::floor_divide},
                                                     {"%", Operator::modulo}}};
  ExprPtr left = parse_power();
  while (const std::optional<Operator> found = match(current(), symbols)) {
    const uint32_t line = read_token().line;
    left = make_pair(ExprKind::binary, line, std::move(left), parse_power(), *found);
  }
  return left;
}

ExprPtr ExpressionParser::parse_power() {
  ExprPtr left = parse_unary(true);
  while (at_symbol("**")) {
    const uint32_t line = read_token().line;
    left = make_pair(ExprKind::binary, line, std::move(left), parse_unary(true), Operator::power);
  }
  return left;
}

ExprPtr ExpressionParser::parse_unary(bool with_filters) {
  ExprPtr value;
  if (at_symbol("-") || at_symbol("+")) {
    const Nesting nesting(*this);
    const Token sign = read_token();
    Operands operands;
    operands.push_back(parse_unary(false));
    value = make(sign.text == "-" ? ExprKind::negate : ExprKind::plus, sign.line, std::move(operands));
  } else {
    value = parse_primary();
  }
  value = parse_postfix(std::move(value));
  while (with_filters) {
    if (at_symbol("|")) {
      read_token();
      value = parse_filter(std::move(value));
    } else if (at_name("is")) {
      read_token();
      value = parse_test(std::move(value));
    } else if (at_symbol("(")) {
      value = parse_call(std::move(value));
    } else {
      break;
    }
  }
  return value;
}

ExprPtr ExpressionParser::parse_primary() {
  const Token token = current();
  Expr node;
  node.line = token.line;
  switch (token.kind) {
    case TokenKind::name:
      return parse_name();
    case TokenKind::string: {
      std::string text;
      while (current().kind == TokenKind::string) {
        const Token piece = read_token();
        text += decode_string(piece.text, piece.line);
      }
      node.constant = make_constant_string(std::move(text));
      return finish(std::move(node));
    }
    case TokenKind::integer: {
      read_token();
      const std::optional<int64_t> integer = parse_integer(token.text);
      if (!integer) fail_at_line(token.line, fmt::format("'{}' is not an integer of 64 bits", token.text));
      node.constant = *integer;
      return finish(std::move(node));
    }
    case TokenKind::number: {
      read_token();
      const std::optional<double> number = parse_number(token.text);
      if (!number) fail_at_line(token.line, fmt::format("'{}' is not a number", token.text));
      node.constant = *number;
      return finish(std::move(node));
    }
    default:
      return parse_bracketed();
  }
}

ExprPtr ExpressionParser::parse_name() {
  const Token token = read_token();
  Expr node;
  node.line = token.line;
  if (token.text == "true" || token.text == "True") {
    node.constant = true;
  } else if (token.text == "false" || token.text == "False") {
    node.constant = false;
  } else if (token.text == "none" || token.text == "None") {
    node.constant = None{};
  } else if (is_keyword(token.text)) {
    fail_at_line(token.line, fmt::format("expected a value, found '{}'", token.text));
  } else {
    for (SpecialNames& macro : macros_) {
      if (macro.assigned.find(token.text) != macro.assigned.end()) continue;
      if (token.text == "varargs") macro.positional = true;
      if (token.text == "kwargs") macro.named = true;
      if (token.text == "caller") macro.caller = true;
    }
    node.kind = ExprKind::name;
    node.name = token.text;
    node.function = find_function(token.text);
  }
  return finish(std::move(node));
}

ExprPtr ExpressionParser::parse_bracketed() {
  const uint32_t line = current().line;
  if (skip_symbol("(")) {
    if (skip_symbol(")")) return make(ExprKind::tuple, line, {});
    ExprPtr inside = parse_tuple();
    expect_symbol(")", "after the expression");
    return inside;
  }
  if (skip_symbol("[")) {
    Operands items;
    while (!at_symbol("]")) {
      if (!items.empty()) {
        expect_symbol(",", "between the items of a list");
        if (at_symbol("]")) break;
      }
      items.push_back(parse_expression());
    }
    read_token();
    return make(ExprKind::list, line, std::move(items));
  }
  if (skip_symbol("{")) return parse_dict(line);
  fail_unexpected("a value");
}

ExprPtr ExpressionParser::parse_dict(uint32_t line) {
  Operands entries;
  while (!at_symbol("}")) {
    if (!entries.empty()) {
      expect_symbol(",", "between the entries of a dict");
      if (at_symbol("}")) break;
    }
    entries.push_back(parse_expression());
    expect_symbol(":", "after the key of a dict entry");
    entries.push_back(parse_expression());
  }
  read_token();
  return make(ExprKind::dict, line, std::move(entries));
}

}  // namespace tessera::jinja
