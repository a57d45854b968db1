// Parses the expressions of a template; the parser of statements derives from this class.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/chat_template/lexer.h"
#include "engine/chat_template/syntax_tree.h"

namespace tessera::jinja {

class ExpressionParser {
 protected:
  explicit ExpressionParser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  // Parses a single expression or a tuple without parentheses ("a, b"). with_conditional: "a if b else c" is
  // allowed; it is not where an `if` that follows belongs to the statement.
  ExprPtr parse_tuple(bool with_conditional = true);
  ExprPtr parse_expression() { return parse_conditional(); }
  // Parses "| name | name(...)", filters applied to `subject`, which is null for the text of a block.
  // first_bar_read: the first "|" has been skipped or is not written.
  ExprPtr parse_filters(ExprPtr subject, bool first_bar_read);

  // Whether a name is reserved in expressions: and, if, in, …
  static bool is_keyword(std::string_view name);
  const Token& current() const { return tokens_[position_]; }
  const Token& following() const { return tokens_[std::min(position_ + 1, tokens_.size() - 1)]; }
  // Returns the current token and goes on to the one after it.
  Token read_token();
  bool at_symbol(std::string_view symbol) const;
  bool at_name(std::string_view name) const;
  // Skip the current token when it is this symbol or name; false when it is not.
  bool skip_symbol(std::string_view symbol);
  bool skip_name(std::string_view name);
  // Skip the current token or throw TemplateError when it is another; `where` and `what` are for the message.
  void expect_symbol(std::string_view symbol, std::string_view where);
  std::string expect_identifier(std::string_view what);
  [[noreturn]] void fail_here(std::string_view message) const { fail_at_line(current().line, message); }
  [[noreturn]] void fail_unexpected(std::string_view wanted) const;
  std::string describe_current() const;

  // The macros and call blocks around the current token, innermost last: which of the names varargs, kwargs
  // and caller their bodies use.
  struct SpecialNames {
    std::set<std::string, std::less<>> assigned;  // names that the body gives a meaning of its own first
    bool positional = false;
    bool named = false;
    bool caller = false;
  };
  std::vector<SpecialNames> macros_;
  void note_assigned(const std::string& name) {
    for (SpecialNames& macro : macros_) macro.assigned.insert(name);
  }

  // Counts nested constructs while it lives, so that no template can exhaust the stack.
  class Nesting {
   public:
    explicit Nesting(ExpressionParser& parser);
    ~Nesting() { --parser_.nesting_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;

   private:
    ExpressionParser& parser_;
  };

 private:
  using Operands = std::vector<ExprPtr>;
  ExprPtr parse_conditional();
  ExprPtr parse_or();
  ExprPtr parse_and();
  ExprPtr parse_not();
  ExprPtr parse_comparison();
  ExprPtr parse_sum();
  ExprPtr parse_concatenation();
  ExprPtr parse_product();
  ExprPtr parse_power();
  ExprPtr parse_unary(bool with_filters);
  ExprPtr parse_primary();
  ExprPtr parse_name();
  ExprPtr parse_bracketed();
  ExprPtr parse_dict(uint32_t line);
  ExprPtr parse_postfix(ExprPtr subject);
  ExprPtr parse_subscript(ExprPtr object);
  ExprPtr parse_call(ExprPtr callee);
  ExprPtr parse_filter(ExprPtr subject);
  ExprPtr parse_test(ExprPtr subject);
  // Parses "(…)" and adds its arguments to a call, filter or test.
  void parse_arguments(Expr& node);
  bool at_expression_end(bool explicit_parentheses) const;

  // Completes a node whose operands are set. Throws TemplateError when the tree has become too deep.
  ExprPtr finish(Expr node) const;
  ExprPtr make(ExprKind kind, uint32_t line, Operands operands) const;
  ExprPtr make_pair(ExprKind kind, uint32_t line, ExprPtr left, ExprPtr right,
                    Operator operation = Operator::add) const;
  std::vector<Token> tokens_;
  size_t position_ = 0;
  size_t nesting_ = 0;
};

}  // namespace tessera::jinja
