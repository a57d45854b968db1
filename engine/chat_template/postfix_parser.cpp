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

void ExpressionParser::parse_arguments(Expr& node) {
  expect_symbol("(", "before the arguments");
  for (size_t count = 0; !at_symbol(")"); ++count) {
    if (count > 0) {
      expect_symbol(",", "between arguments");
      if (at_symbol(")")) break;
    }
    if (count >= kMostArguments) fail_here("too many arguments");
    if (node.more_named != nullptr) fail_here("nothing may follow arguments with '**'");
    if (skip_symbol("**")) {
      node.more_named = parse_expression();
    } else if (skip_symbol("*")) {
      if (node.more_positional != nullptr) fail_here("arguments with '*' are given twice");
      node.more_positional = parse_expression();
    } else if (current().kind == TokenKind::name && following().kind == TokenKind::symbol &&
               following().text == "=") {
      std::string name(read_token().text);
      read_token();
      for (const auto& other : node.named) {
        if (other.first == name) fail_here(fmt::format("the argument '{}' is given twice", name));
      }
      node.named.emplace_back(std::move(name), parse_expression());
    } else {
      if (!node.named.empty() || node.more_positional != nullptr)
        fail_here("a positional argument follows a named one or '*'");
      node.operands.push_back(parse_expression());
    }
  }
  read_token();
}

ExprPtr ExpressionParser::parse_call(ExprPtr callee) {
  const uint32_t line = current().line;
  Expr node;
  node.kind = ExprKind::call;
  node.line = line;
  node.operands.push_back(std::move(callee));
  parse_arguments(node);
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
  node.operands.push_back(std::move(subject));
  if (at_symbol("(")) parse_arguments(node);
  return finish(std::move(node));
}

ExprPtr ExpressionParser::parse_test(ExprPtr subject) {
  Expr node;
  node.kind = ExprKind::test;
  node.line = current().line;
  node.negated = skip_name("not");
  if (current().kind != TokenKind::name) fail_unexpected("the name of a test");
  node.name = read_token().text;
  node.test = find_test(node.name);
  node.operands.push_back(std::move(subject));
  const TokenKind next = current().kind;
  if (at_symbol("(")) {
    parse_arguments(node);
  } else if (at_symbol("[") || at_symbol("{") || next == TokenKind::string || next == TokenKind::integer ||
             next == TokenKind::number || (next == TokenKind::name && !is_keyword(current().text))) {
    // A single argument needs no parentheses: "x is divisibleby 3".
    node.operands.push_back(parse_postfix(parse_primary()));
  } else if (at_name("is")) {
    fail_here("tests cannot be chained with 'is'");
  }
  return finish(std::move(node));
}

}  // namespace tessera::jinja
