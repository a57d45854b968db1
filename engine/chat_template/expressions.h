// The expression half of the template parser; the statement half derives from it.
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
#include "engine/chat_template/syntax.h"

namespace tessera::jinja {

class ExpressionParser {
 protected:
  explicit ExpressionParser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  // a, b or a single expression; without a conditional "a if b else c" where a following `if` means something
  // else.
  ExprPtr parse_tuple(bool with_conditional = true);
  ExprPtr parse_expression() { return parse_conditional(); }
  // "name | name(...)" applied to `subject`, which is null for the text of a block.
  ExprPtr parse_filters(ExprPtr subject, bool first_bar_read);

  static bool is_keyword(std::string_view name);  // of expressions: and, if, in, …
  const Token& current() const { return tokens_[position_]; }
  const Token& following() const { return tokens_[std::min(position_ + 1, tokens_.size() - 1)]; }
  Token take();
  bool at_symbol(std::string_view symbol) const;
  bool at_name(std::string_view name) const;
  bool skip_symbol(std::string_view symbol);
  bool skip_name(std::string_view name);
  void expect_symbol(std::string_view symbol, std::string_view where);
  std::string expect_identifier(std::string_view what);
  [[noreturn]] void fail_here(std::string_view message) const { fail_at_line(current().line, message); }
  [[noreturn]] void fail_unexpected(std::string_view wanted) const;
  std::string describe_current() const;

  // Names that the template assigns anywhere; the rest can only be inputs or functions.
  void note_assigned(const std::string& name) { assigned_.insert(name); }
  // Inside a macro the names varargs, kwargs and caller would mean something that is not supported.
  bool inside_macro_ = false;
  // Refuses calls of names that nothing defines; run when everything is parsed.
  void check_called_names() const;

  // Counts nested constructs, so that no template can exhaust the stack.
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
  struct CallParts {
    Operands positional;
    std::vector<std::pair<std::string, ExprPtr>> named;
  };

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
  CallParts parse_arguments();
  bool at_expression_end(bool explicit_parentheses) const;

  // Finishes a node whose operands are set: checks how deep the tree has become.
  ExprPtr finish(Expr node) const;
  ExprPtr make(ExprKind kind, uint32_t line, Operands operands) const;
  ExprPtr make_pair(ExprKind kind, uint32_t line, ExprPtr left, ExprPtr right,
                    Operator operation = Operator::add) const;
  void check_shape(uint32_t line, std::string_view kind, const Signature& signature,
                   const CallParts& parts) const;
  // The filter or test that map, select and their kin are to apply, where it is written as a constant.
  static void check_applied_name(uint32_t line, std::string_view filter, const Operands& arguments);

  std::vector<Token> tokens_;
  size_t position_ = 0;
  size_t nesting_ = 0;
  std::set<std::string> assigned_;
  std::vector<std::pair<std::string, uint32_t>> called_;
};

}  // namespace tessera::jinja
