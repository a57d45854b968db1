#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <initializer_list>
#include <utility>

#include "engine/chat_template/expression_parser.h"
#include "engine/chat_template/syntax_tree.h"

namespace tessera::jinja {

namespace {

constexpr size_t kMostParameters = 100;

class Parser : private ExpressionParser {
 public:
  explicit Parser(std::string_view source) : ExpressionParser(tokenize(source)) {}

  Block run() { return parse_block({}); }

 private:
  using Names = std::initializer_list<std::string_view>;

  // Parses statements up to a tag that begins with one of the names `ends`, which is then the current token.
  // Without names, parses up to the end of the template.
  Block parse_block(Names ends) {
    const Nesting nesting(*this);
    const uint32_t first_line = current().line;
    Block block;
    while (true) {
      const Token token = read_token();
      switch (token.kind) {
        case TokenKind::text:
          block.push_back({token.line, Text{std::string(token.text)}});
          break;
        case TokenKind::output_begin: {
          ExprPtr value = parse_tuple();
          if (current().kind != TokenKind::output_end) fail_unexpected("'}}' after the expression");
          read_token();
          block.push_back({token.line, Output{std::move(value)}});
          break;
        }
        case TokenKind::block_begin:
          if (std::any_of(ends.begin(), ends.end(), [this](std::string_view end) { return at_name(end); })) {
            return block;
          }
          block.push_back(parse_statement());
          break;
        default:
          if (ends.size() == 0) return block;
          fail_at_line(first_line, fmt::format("'{}' is missing", *(ends.end() - 1)));
      }
    }
  }

  void end_tag() {
    if (current().kind != TokenKind::block_end) fail_unexpected("'%}'");
    read_token();
  }

  // Parses the end of an opening tag, the body and the closing tag.
  Block parse_body(std::string_view closing) {
    end_tag();
    Block body = parse_block({closing});
    read_token();
    end_tag();
    return body;
  }

  Statement parse_statement() {
    if (current().kind != TokenKind::name) fail_unexpected("the name of a statement");
    const Token keyword = read_token();
    const std::string_view name = keyword.text;
    Statement statement;
    statement.line = keyword.line;
    if (name == "for") {
      statement.action = parse_for();
    } else if (name == "if") {
      statement.action = parse_if();
    } else if (name == "set") {
      parse_set(statement);
    } else if (name == "macro") {
      statement.action = parse_macro();
    } else if (name == "call") {
      statement.action = parse_call_block();
    } else if (name == "with") {
      statement.action = parse_with();
    } else if (name == "filter") {
      ExprPtr filter = parse_filters(nullptr, true);
      statement.action = FilterBlock{std::move(filter), parse_body("endfilter")};
    } else if (name == "generation") {
      statement.action = Generation{parse_body("endgeneration")};
    } else if (name == "break" || name == "continue") {
      if (loops_ == 0) fail_at_line(keyword.line, fmt::format("'{}' outside a loop", name));
      end_tag();
      if (name == "break") {
        statement.action = Break{};
      } else {
        statement.action = Continue{};
      }
    } else {
      static constexpr std::array<std::string_view, 11> closing = {
          "elif",     "else",    "endif",     "endfor",        "endset", "endcall",
          "endmacro", "endwith", "endfilter", "endgeneration", "endraw"};
      if (std::find(closing.begin(), closing.end(), name) != closing.end()) {
        fail_at_line(keyword.line, fmt::format("unexpected '{}'", name));
      }
      fail_at_line(keyword.line, fmt::format("the statement '{}' is not supported", name));
    }
    return statement;
  }

  Target parse_target(bool attribute_allowed) {
    const Nesting nesting(*this);
    Target first = parse_single_target(attribute_allowed);
    if (!at_symbol(",")) return first;
    Target several;
    several.elements.push_back(std::move(first));
    while (skip_symbol(",")) {
      if (at_name("in") || at_symbol("=") || at_symbol(")")) break;
      several.elements.push_back(parse_single_target(false));
    }
    return several;
  }

  Target parse_single_target(bool attribute_allowed) {
    if (skip_symbol("(")) {
      Target inside = parse_target(false);
      expect_symbol(")", "after the names");
      return inside;
    }
    Target target;
    const uint32_t line = current().line;
    target.name = expect_identifier("a name to assign to");
    static constexpr std::array<std::string_view, 6> constants = {"true",  "True", "false",
                                                                  "False", "none", "None"};
    if (std::find(constants.begin(), constants.end(), target.name) != constants.end()) {
      fail_at_line(line, fmt::format("'{}' cannot be assigned", target.name));
    }
    if (attribute_allowed && skip_symbol(".")) {
      target.attribute = expect_identifier("an attribute's name");
      note_assigned(target.attribute);
    } else {
      note_assigned(target.name);
    }
    return target;
  }

  For parse_for() {
    For loop;
    loop.target = parse_target(false);
    if (!skip_name("in")) fail_unexpected("'in' of the for statement");
    loop.items = parse_tuple(false);
    if (skip_name("if")) loop.condition = parse_expression();
    loop.recursive = skip_name("recursive");
    end_tag();
    ++loops_;
    loop.body = parse_block({"else", "endfor"});
    --loops_;
    if (skip_name("else")) {
      end_tag();
      loop.otherwise = parse_block({"endfor"});
    }
    read_token();
    end_tag();
    return loop;
  }

  If parse_if() {
    If choice;
    while (true) {
      ExprPtr condition = parse_tuple(false);
      end_tag();
      Block body = parse_block({"elif", "else", "endif"});
      choice.branches.emplace_back(std::move(condition), std::move(body));
      if (!skip_name("elif")) break;
    }
    if (skip_name("else")) {
      end_tag();
      choice.otherwise = parse_block({"endif"});
    }
    read_token();
    end_tag();
    return choice;
  }

  void parse_set(Statement& statement) {
    Target target = parse_target(true);
    if (skip_symbol("=")) {
      ExprPtr value = parse_tuple();
      end_tag();
      statement.action = Set{std::move(target), std::move(value)};
      return;
    }
    ExprPtr filter = parse_filters(nullptr, false);
    Block body = parse_body("endset");
    statement.action = SetBlock{std::move(target), std::move(filter), std::move(body)};
  }

  // Parses "(a, b=1)".
  void parse_parameters(Macro& macro) {
    expect_symbol("(", "before the parameters");
    while (!at_symbol(")")) {
      if (!macro.parameters.empty()) {
        expect_symbol(",", "between parameters");
        if (at_symbol(")")) break;
      }
      if (macro.parameters.size() >= kMostParameters) fail_here("too many parameters");
      std::string name = expect_identifier("a parameter's name");
      ExprPtr fallback = skip_symbol("=") ? parse_expression() : nullptr;
      if (fallback == nullptr && !macro.parameters.empty() && macro.parameters.back().second != nullptr) {
        fail_here(fmt::format("the parameter '{}' needs a default value too", name));
      }
      macro.parameters.emplace_back(std::move(name), std::move(fallback));
    }
    read_token();
  }

  // Parses the end of the opening tag and what follows of a macro or call block.
  void parse_macro_body(Macro& macro, std::string_view closing) {
    macros_.emplace_back();
    for (const auto& parameter : macro.parameters) macros_.back().assigned.insert(parameter.first);
    const size_t loops = std::exchange(loops_, 0);
    macro.body = parse_body(closing);
    loops_ = loops;
    macro.takes_positional = macros_.back().positional;
    macro.takes_named = macros_.back().named;
    macro.takes_caller = macros_.back().caller;
    macros_.pop_back();
  }

  MacroDefinition parse_macro() {
    auto macro = std::make_unique<Macro>();
    macro->name = expect_identifier("the macro's name");
    note_assigned(macro->name);
    parse_parameters(*macro);
    parse_macro_body(*macro, "endmacro");
    return {std::move(macro)};
  }

  CallBlock parse_call_block() {
    auto body = std::make_unique<Macro>();
    body->name = "caller";
    if (at_symbol("(")) parse_parameters(*body);
    ExprPtr call = parse_expression();
    if (call->kind != ExprKind::call) fail_here("expected the call of a macro");
    parse_macro_body(*body, "endcall");
    return {std::move(call), std::move(body)};
  }

  With parse_with() {
    With with;
    while (current().kind != TokenKind::block_end) {
      if (!with.variables.empty()) expect_symbol(",", "between the variables of 'with'");
      Target target = parse_single_target(false);
      expect_symbol("=", "after the variable of 'with'");
      with.variables.emplace_back(std::move(target), parse_expression());
    }
    with.body = parse_body("endwith");
    return with;
  }

  size_t loops_ = 0;
};

}  // namespace

Block parse_template(std::string_view source) { return Parser(source).run(); }

}  // namespace tessera::jinja
