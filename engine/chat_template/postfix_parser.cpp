// The expression parser's functions for what can follow a value: attributes, subscripts, calls, filters and
// tests.
#include <fmt/format.h>

#include <optional>

#include "engine/chat_template/expression_parser.h"
#include "engine/chat_template/literals.h"

namespace tessera::jinja {

namespace {

constexpr size_t kMostArguments = 100;

}  // namespace

ExprPtr ExpressionParser::parse_postfix(ExprPtr subject) {
  while (true) {
    if (at_symbol(".")) {
      const uint32_t line = read_token().line;
      Expr node;
      node.line = line;
      if (current().kind == TokenKind::integer) {
        const std::optional<int64_t> index = parse_integer(current().text);
        if (!index) fail_unexpected("an index");
        read_token();
        Expr key;
        key.line = line;
        key.constant = *index;
        node.kind = ExprKind::subscript;
        node.operands.push_back(std::move(subject));
        node.operands.push_back(finish(std::move(key)));
      } else {
        if (current().kind != TokenKind::name) fail_unexpected("a name after '.'");
        node.kind = ExprKind::attribute;
        node.name = read_token().text;
        node.operands.push_back(std::move(subject));
      }
      subject = finish(std::move(node));
    } else if (at_symbol("[")) {
      subject = parse_subscript(std::move(subject));
    } else if (at_symbol("(")) {
      subject = parse_call(std::move(subject));
    } else {
      return subject;
    }
  }
}

ExprPtr ExpressionParser::parse_subscript(ExprPtr object) {
  const uint32_t line = read_token().line;
  Operands operands;
  operands.push_back(std::move(object));
  const auto parse_bound = [this]() -> ExprPtr {
    if (at_symbol(":") || at_symbol("]")) return nullptr;
    return parse_expression();
  };
  ExprPtr start = parse_bound();
  if (!at_symbol(":")) {
    if (start == nullptr) fail_unexpected("an index");
    if (at_symbol(",")) fail_here("an index of several parts is not supported");
    operands.push_back(std::move(start));
    expect_symbol("]", "after the index");
    return make(ExprKind::subscript, line, std::move(operands));
  }
  read_token();
  operands.push_back(std::move(start));
  operands.push_back(parse_bound());
  operands.push_back(skip_symbol(":") ? parse_bound() : nullptr);
  expect_symbol("]", "after the slice");
  return make(ExprKind::slice, line, std::move(operands));
}

ExpressionParser::CallParts ExpressionParser::parse_arguments() {
  CallParts parts;
  expect_symbol("(", "before the arguments");
  while (!at_symbol(")")) {
    if (!parts.positional.empty() || !parts.named.empty()) {
      expect_symbol(",", "between arguments");
      if (at_symbol(")")) break;
    }
    if (parts.positional.size() + parts.named.size() >= kMostArguments) fail_here("too many arguments");
    if (at_symbol("*") || at_symbol("**")) fail_here("unpacking arguments with '*' is not supported");
    if (current().kind == TokenKind::name && following().kind == TokenKind::symbol &&
        following().text == "=") {
      std::string name(read_token().text);
      read_token();
      for (const auto& other : parts.named) {
        if (other.first == name) fail_here(fmt::format("the argument '{}' is given twice", name));
      }
      parts.named.emplace_back(std::move(name), parse_expression());
    } else {
      if (!parts.named.empty()) fail_here("a positional argument follows a named one");
      parts.positional.push_back(parse_expression());
    }
  }
  read_token();
  return parts;
}

void ExpressionParser::check_call(uint32_t line, std::string_view kind, const Signature& signature,
                                  const CallParts& parts) const {
  std::vector<std::string_view> named;
  for (const auto& argument : parts.named) named.push_back(argument.first);
  const std::string problem = check_arguments(signature, parts.positional.size(), named);
  if (!problem.empty()) fail_at_line(line, fmt::format("the {} {}", kind, problem));
}

ExprPtr ExpressionParser::parse_call(ExprPtr callee) {
  const uint32_t line = current().line;
  CallParts parts = parse_arguments();
  if (callee->kind == ExprKind::attribute && !is_method_name(callee->name) &&
      assigned_.count(callee->name) == 0) {
    fail_at_line(line, fmt::format("the method '{}' is not supported", callee->name));
  }
  if (callee->kind == ExprKind::name) {
    if (callee->function == nullptr) {
      called_.emplace_back(callee->name, line);
    } else {
      check_call(line, "function", callee->function->signature, parts);
    }
  }
  Expr node;
  node.kind = ExprKind::call;
  node.line = line;
  node.operands.push_back(std::move(callee));
  for (ExprPtr& argument : parts.positional) node.operands.push_back(std::move(argument));
  node.named = std::move(parts.named);
  return finish(std::move(node));
}

ExprPtr ExpressionParser::parse_filters(ExprPtr subject, bool first_bar_read) {
  if (!first_bar_read && !skip_symbol("|")) return subject;
  do {
    subject = parse_filter(std::move(subject));
  } while (skip_symbol("|"));
  return subject;
}

ExprPtr ExpressionParser::parse_filter(ExprPtr subject) {
  Expr node;
  node.kind = ExprKind::filter;
  node.line = current().line;
  if (current().kind != TokenKind::name) fail_unexpected("the name of a filter");
  node.name = read_token().text;
  node.filter = find_filter(node.name);
  if (node.filter == nullptr)
    fail_at_line(node.line, fmt::format("the filter '{}' is not supported", node.name));
  CallParts parts;
  if (at_symbol("(")) parts = parse_arguments();
  check_call(node.line, "filter", node.filter->signature, parts);
  check_applied_name(node.line, node.name, parts.positional);
  node.operands.push_back(std::move(subject));
  for (ExprPtr& argument : parts.positional) node.operands.push_back(std::move(argument));
  node.named = std::move(parts.named);
  return finish(std::move(node));
}

void ExpressionParser::check_applied_name(uint32_t line, std::string_view filter, const Operands& arguments) {
  const bool by_attribute = filter == "selectattr" || filter == "rejectattr";
  const bool maps = filter == "map";
  if (!maps && !by_attribute && filter != "select" && filter != "reject") return;
  const size_t at = by_attribute ? 1 : 0;
  const String* name = arguments.size() > at ? arguments[at]->constant.string() : nullptr;
  if (name == nullptr) return;
  const bool known = maps ? find_filter(name->text) != nullptr : find_test(name->text) != nullptr;
  if (!known)
    fail_at_line(line, fmt::format("the {} '{}' is not supported", maps ? "filter" : "test", name->text));
}

ExprPtr ExpressionParser::parse_test(ExprPtr subject) {
  Expr node;
  node.kind = ExprKind::test;
  node.line = current().line;
  node.negated = skip_name("not");
  if (current().kind != TokenKind::name) fail_unexpected("the name of a test");
  node.name = read_token().text;
  node.test = find_test(node.name);
  if (node.test == nullptr) fail_at_line(node.line, fmt::format("the test '{}' is not supported", node.name));
  CallParts parts;
  const TokenKind next = current().kind;
  if (at_symbol("(")) {
    parts = parse_arguments();
  } else if (at_symbol("[") || at_symbol("{") || next == TokenKind::string || next == TokenKind::integer ||
             next == TokenKind::number || (next == TokenKind::name && !is_keyword(current().text))) {
    // A single argument needs no parentheses: "x is divisibleby 3".
    parts.positional.push_back(parse_postfix(parse_primary()));
  } else if (at_name("is")) {
    fail_here("tests cannot be chained with 'is'");
  }
  check_call(node.line, "test", node.test->signature, parts);
  node.operands.push_back(std::move(subject));
  for (ExprPtr& argument : parts.positional) node.operands.push_back(std::move(argument));
  node.named = std::move(parts.named);
  return finish(std::move(node));
}

}  // namespace tessera::jinja
