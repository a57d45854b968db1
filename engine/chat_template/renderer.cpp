#include "engine/chat_template/renderer.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>

#include "engine/chat_template/lexer.h"
#include "engine/chat_template/operators.h"

namespace tessera::jinja {

// The variables of one scope. Inner scopes can read those of outer ones and never change them.
struct Scope {
  std::shared_ptr<Scope> outer;
  std::vector<std::pair<std::string_view, Value>> variables;  // names point into the parsed template

  void set(std::string_view name, Value value) {
    for (auto& variable : variables) {
      if (variable.first == name) {
        variable.second = std::move(value);
        return;
      }
    }
    variables.emplace_back(name, std::move(value));
  }
};

namespace {

constexpr size_t kMostRunDepth = 320;   // nested statements and expressions while running
constexpr size_t kMostMacroDepth = 40;  // macros that call each other

// How to go on after a statement: with the next one, as after {% continue %}, or as after {% break %}.
enum class Flow : uint8_t { next_statement, next_item, leave_loop };

class Renderer {
 public:
  Renderer(Environment& environment, std::shared_ptr<Scope> root)
      : environment_(environment), budget_(environment.budget), scope_(std::move(root)), output_(budget_) {}

  QuotedText run(const Block& block) {
    try {
      execute(block);
    } catch (const Fault& fault) {
      fail_at_line(line_, fault.message);
    }
    return std::move(output_).release();
  }

 private:
  // Counts nested statements and expressions, so that a template cannot exhaust the stack.
  class DepthGuard {
   public:
    explicit DepthGuard(Renderer& renderer) : renderer_(renderer) {
      if (renderer_.depth_ >= kMostRunDepth) fail("the template recurses too deeply");
      ++renderer_.depth_;
    }
    ~DepthGuard() { --renderer_.depth_; }
    DepthGuard(const DepthGuard&) = delete;
    DepthGuard& operator=(const DepthGuard&) = delete;

   private:
    Renderer& renderer_;
  };

  // A new innermost scope, which ends when this object is destroyed.
  class ScopeGuard {
   public:
    explicit ScopeGuard(Renderer& renderer) : ScopeGuard(renderer, renderer.scope_) {}
    ScopeGuard(Renderer& renderer, std::shared_ptr<Scope> outer)
        : renderer_(renderer), previous_(std::move(renderer.scope_)) {
      renderer_.scope_ = std::make_shared<Scope>();
      renderer_.scope_->outer = std::move(outer);
    }
    ~ScopeGuard() { renderer_.scope_ = std::move(previous_); }
    ScopeGuard(const ScopeGuard&) = delete;
    ScopeGuard& operator=(const ScopeGuard&) = delete;

   private:
    Renderer& renderer_;
    std::shared_ptr<Scope> previous_;
  };

  Flow execute(const Block& block) {
    const DepthGuard guard(*this);
    for (const Statement& statement : block) {
      line_ = statement.line;
      budget_.spend(1);
      const Flow flow = std::visit([this](const auto& action) { return perform(action); }, statement.action);
      if (flow != Flow::next_statement) return flow;
    }
    return Flow::next_statement;
  }

  // Runs a block and stores in `text` what it prints.
  Flow capture(const Block& block, Value& text) {
    TextBuilder outside(budget_);
    std::swap(outside, output_);
    const ScopeGuard guard(*this);
    const Flow flow = execute(block);
    std::swap(outside, output_);
    text = std::move(outside).value();
    return flow;
  }

  Flow perform(const Text& text) {
    output_.append(text.text);
    return Flow::next_statement;
  }

  Flow perform(const Output& output) {
    const Value value = evaluate(*output.value);
    append_text(output_, value);
    return Flow::next_statement;
  }

  Flow perform(const If& choice) {
    for (const auto& [condition, body] : choice.branches) {
      if (truthy(evaluate(*condition))) return execute(body);
    }
    return execute(choice.otherwise);
  }

  Flow perform(const For& statement) { return run_loop(statement, evaluate(*statement.items), 1); }

  Flow run_loop(const For& statement, const Value& visited, size_t depth) {
    std::shared_ptr<const List> items = iterate(budget_, visited);
    if (statement.condition != nullptr) items = filter_items(statement, *items);
    if (items->items.empty()) return execute(statement.otherwise);
    auto loop = std::make_shared<Loop>();
    loop->items = items;
    loop->depth = depth;
    if (statement.recursive) {
      loop->recursive = &statement;
      loop->scope = scope_;
    }
    const Value loop_value = std::shared_ptr<const Loop>(loop);
    Flow flow = Flow::next_statement;
    for (; loop->index < items->items.size() && flow != Flow::leave_loop; ++loop->index) {
      budget_.spend(1);
      const ScopeGuard guard(*this);
      set_variable("loop", loop_value);
      assign(statement.target, Value(items->items[loop->index]));
      flow = execute(statement.body);
    }
    return Flow::next_statement;
  }

  std::shared_ptr<const List> filter_items(const For& statement, const List& items) {
    std::vector<Value> kept;
    for (size_t i = 0; i < items.items.size(); ++i) {  // which the condition may change
      const Value item = items.items[i];
      budget_.spend(1);
      const ScopeGuard guard(*this);
      assign(statement.target, item);
      if (truthy(evaluate(*statement.condition))) kept.push_back(item);
    }
    const Value list = make_list(budget_, std::move(kept));
    return *list.get<std::shared_ptr<const List>>();
  }

  Flow perform(const Set& set) {
    assign(set.target, evaluate(*set.value));
    return Flow::next_statement;
  }

  Flow perform(const SetBlock& set) {
    Value text;
    const Flow flow = capture(set.body, text);
    if (flow != Flow::next_statement) return flow;
    if (set.filter != nullptr) text = evaluate_filter(*set.filter, &text);
    assign(set.target, text);
    return flow;
  }

  Flow perform(const FilterBlock& block) {
    Value text;
    const Flow flow = capture(block.body, text);
    append_text(output_, evaluate_filter(*block.filter, &text));
    return flow;
  }

  Flow perform(const With& with) {
    std::vector<Value> values;
    for (const auto& variable : with.variables) values.push_back(evaluate(*variable.second));
    const ScopeGuard guard(*this);
    for (size_t i = 0; i < values.size(); ++i) assign(with.variables[i].first, values[i]);
    return execute(with.body);
  }

  Flow perform(const Generation& generation) {
    const ScopeGuard guard(*this);
    return execute(generation.body);
  }

  Flow perform(const Break&) { return Flow::leave_loop; }
  Flow perform(const Continue&) { return Flow::next_item; }

  Flow perform(const MacroDefinition& definition) {
    set_variable(definition.macro->name, closure_of(*definition.macro));
    return Flow::next_statement;
  }

  Flow perform(const CallBlock& block) {
    const Value caller = closure_of(*block.body);
    append_text(output_, evaluate_call(*block.call, &caller));
    return Flow::next_statement;
  }

  Value closure_of(const Macro& macro) {
    budget_.spend(1);
    return std::make_shared<const Closure>(Closure{&macro, scope_});
  }

  void assign(const Target& target, const Value& value) {
    if (!target.elements.empty()) {
      const std::shared_ptr<const List> items = iterate(budget_, value);
      if (items->items.size() != target.elements.size()) {
        fail(fmt::format("{} values cannot be unpacked into {} names", items->items.size(),
                         target.elements.size()));
      }
      for (size_t i = 0; i < target.elements.size(); ++i) assign(target.elements[i], items->items[i]);
    } else if (target.attribute.empty()) {
      set_variable(target.name, value);
    } else {
      const Value* object = find_variable(target.name);
      Namespace* const* space = object == nullptr ? nullptr : object->get<Namespace*>();
      if (space == nullptr) fail(fmt::format("'{}' is not a namespace", target.name));
      set_attribute(**space, target.attribute, value);
    }
  }

  void set_attribute(Namespace& space, const std::string& name, const Value& value) {
    budget_.spend(space.attributes.size() / 16);
    for (auto& attribute : space.attributes) {
      if (attribute.first == name) {
        attribute.second = value;
        return;
      }
    }
    space.charge.grow(name.size() + sizeof(space.attributes[0]));
    space.attributes.emplace_back(name, value);
  }

  // Null when no scope has the name.
  const Value* find_variable(std::string_view name) {
    for (const Scope* scope = scope_.get(); scope != nullptr; scope = scope->outer.get()) {
      budget_.spend(scope->variables.size() / 16);
      for (const auto& variable : scope->variables) {
        if (variable.first == name) return &variable.second;
      }
    }
    return nullptr;
  }

  // Assigns in the innermost scope.
  void set_variable(std::string_view name, Value value) {
    budget_.spend(scope_->variables.size() / 16);
    scope_->set(name, std::move(value));
  }

  Value evaluate(const Expr& expr) {
    const DepthGuard guard(*this);
    line_ = expr.line;
    budget_.spend(1);
    switch (expr.kind) {
      case ExprKind::constant:
        return expr.constant;
      case ExprKind::name: {
        if (const Value* found = find_variable(expr.name)) return *found;
        return expr.function != nullptr ? Value(expr.function) : Value(Undefined{&expr.name});
      }
      case ExprKind::list:
      case ExprKind::tuple:
        return make_list(budget_, evaluate_all(expr, 0), expr.kind == ExprKind::tuple);
      case ExprKind::dict:
        return evaluate_dict(expr);
      case ExprKind::attribute: {
        const Value object = evaluate(*expr.operands[0]);
        line_ = expr.line;
        return get_attribute(budget_, object, expr.name);
      }
      case ExprKind::subscript:
        return evaluate_subscript(expr);
      case ExprKind::slice:
        return evaluate_slice(expr);
      case ExprKind::call:
        return evaluate_call(expr, nullptr);
      case ExprKind::filter:
        return evaluate_filter(expr, nullptr);
      case ExprKind::test:
        return evaluate_test(expr);
      case ExprKind::logical_not:
        return !truthy(evaluate(*expr.operands[0]));
      case ExprKind::negate:
        return evaluate_sign(expr, true);
      case ExprKind::plus:
        return evaluate_sign(expr, false);
      case ExprKind::binary:
        return evaluate_binary(expr);
      case ExprKind::comparison:
        return evaluate_comparison(expr);
      case ExprKind::logical_and: {
        Value left = evaluate(*expr.operands[0]);
        return truthy(left) ? evaluate(*expr.operands[1]) : left;
      }
      case ExprKind::logical_or: {
        Value left = evaluate(*expr.operands[0]);
        return truthy(left) ? left : evaluate(*expr.operands[1]);
      }
      case ExprKind::conditional:
        break;
    }
    if (truthy(evaluate(*expr.operands[0]))) return evaluate(*expr.operands[1]);
    return expr.operands[2] == nullptr ? Value() : evaluate(*expr.operands[2]);
  }

  std::vector<Value> evaluate_all(const Expr& expr, size_t first) {
    std::vector<Value> values;
    values.reserve(expr.operands.size() - first);
    for (size_t i = first; i < expr.operands.size(); ++i) values.push_back(evaluate(*expr.operands[i]));
    return values;
  }

  struct Given {
    std::vector<Value> positional;
    std::vector<std::pair<std::string, Value>> named;
  };

  // The arguments of a call, filter or test, whose first operand is what they are given to.
  Given evaluate_arguments(const Expr& expr) {
    Given given{evaluate_all(expr, 1), {}};
    given.named.reserve(expr.named.size());
    for (const auto& [name, value] : expr.named) given.named.emplace_back(name, evaluate(*value));
    if (expr.more_positional != nullptr) {
      const std::vector<Value> more = iterate(budget_, evaluate(*expr.more_positional))->items;
      given.positional.insert(given.positional.end(), more.begin(), more.end());
    }
    if (expr.more_named != nullptr) {
      const Value more = evaluate(*expr.more_named);
      if (more.dict() == nullptr)
        fail(fmt::format("arguments with '**' are a mapping, found {}", described(more)));
      for (const auto& [key, value] : more.dict()->entries) {
        const String* name = key.string();
        if (name == nullptr) fail("the names of arguments are strings");
        given.named.emplace_back(name->text, value);
      }
    }
    budget_.spend_bytes((given.positional.size() + given.named.size()) * sizeof(Value));
    line_ = expr.line;
    return given;
  }

  Value evaluate_dict(const Expr& expr) {
    std::vector<std::pair<Value, Value>> entries;
    for (size_t i = 0; i + 1 < expr.operands.size(); i += 2) {
      Value key = evaluate(*expr.operands[i]);
      Value value = evaluate(*expr.operands[i + 1]);
      const auto same = std::find_if(entries.begin(), entries.end(),
                                     [&](const auto& entry) { return equal(budget_, entry.first, key); });
      if (same != entries.end()) {
        same->second = std::move(value);
      } else {
        entries.emplace_back(std::move(key), std::move(value));
      }
    }
    return make_dict(budget_, std::move(entries));
  }

  Value evaluate_subscript(const Expr& expr) {
    const Value object = evaluate(*expr.operands[0]);
    const Value key = evaluate(*expr.operands[1]);
    line_ = expr.line;
    return get_item(budget_, object, key);
  }

  Value evaluate_slice(const Expr& expr) {
    const Value object = evaluate(*expr.operands[0]);
    const auto bound = [&](size_t i) -> Value {
      return expr.operands[i] == nullptr ? Value(None{}) : evaluate(*expr.operands[i]);
    };
    const Value start = bound(1);
    const Value stop = bound(2);
    const Value step = bound(3);
    line_ = expr.line;
    return slice(budget_, object, start, stop, step);
  }

  Value evaluate_sign(const Expr& expr, bool negative) {
    const Value value = evaluate(*expr.operands[0]);
    line_ = expr.line;
    const Value negated = negate(value);
    return negative ? negated : apply_operator(budget_, Operator::add, value, int64_t{0});
  }

  Value evaluate_binary(const Expr& expr) {
    const Value left = evaluate(*expr.operands[0]);
    const Value right = evaluate(*expr.operands[1]);
    line_ = expr.line;
    return apply_operator(budget_, expr.operation, left, right);
  }

  // a < b < c means a < b and b < c; every operand is evaluated once.
  Value evaluate_comparison(const Expr& expr) {
    Value left = evaluate(*expr.operands[0]);
    for (size_t i = 0; i < expr.comparisons.size(); ++i) {
      Value right = evaluate(*expr.operands[i + 1]);
      line_ = expr.line;
      if (!apply_comparison(budget_, expr.comparisons[i], left, right)) return false;
      left = std::move(right);
    }
    return true;
  }

  // `text`: the text of a block, to which the innermost filter of the chain is applied; null for other
  // expressions.
  Value evaluate_filter(const Expr& expr, const Value* text) {
    const DepthGuard guard(*this);
    const Expr* inner = expr.operands[0].get();
    Value subject;
    if (inner != nullptr) {
      subject = text != nullptr ? evaluate_filter(*inner, text) : evaluate(*inner);
    } else {
      subject = *text;
    }
    Given given = evaluate_arguments(expr);
    if (expr.filter == nullptr) fail(fmt::format("the filter '{}' is not supported", expr.name));
    const Arguments arguments(expr.filter->signature, std::move(given.positional), std::move(given.named));
    return expr.filter->apply(environment_, subject, arguments);
  }

  Value evaluate_test(const Expr& expr) {
    const Value subject = evaluate(*expr.operands[0]);
    Given given = evaluate_arguments(expr);
    if (expr.test == nullptr) fail(fmt::format("the test '{}' is not supported", expr.name));
    const Arguments arguments(expr.test->signature, std::move(given.positional), std::move(given.named));
    return expr.test->apply(environment_, subject, arguments) != expr.negated;
  }

  // caller: the body of a call block, or null.
  Value evaluate_call(const Expr& expr, const Value* caller) {
    const Expr& callee_expr = *expr.operands[0];
    Value object;
    Value callee;
    const Method* method = nullptr;
    if (callee_expr.kind == ExprKind::attribute) {
      object = evaluate(*callee_expr.operands[0]);
      line_ = callee_expr.line;
      method = find_method(object, callee_expr.name);
      if (method == nullptr) callee = get_attribute(budget_, object, callee_expr.name);
    } else {
      callee = evaluate(callee_expr);
    }
    Given given = evaluate_arguments(expr);
    if (caller != nullptr) given.named.emplace_back("caller", *caller);
    if (const BoundMethod* bound = callee.method()) {
      object = bound->object;
      method = bound->method;
    }
    if (method != nullptr) {
      return method->apply(environment_, object,
                           Arguments(method->signature, std::move(given.positional), std::move(given.named)));
    }
    if (const auto* function = callee.get<const Function*>()) {
      return (*function)->apply(environment_, Arguments((*function)->signature, std::move(given.positional),
                                                        std::move(given.named)));
    }
    if (const Closure* macro = callee.macro()) return call_macro(*macro, std::move(given));
    if (const Loop* loop = callee.loop(); loop != nullptr && loop->recursive != nullptr)
      return call_loop(*loop, given);
    if (callee_expr.kind == ExprKind::attribute && callee.is_undefined()) {
      fail(fmt::format("{} has no method '{}'", described(object), callee_expr.name));
    }
    if (callee.is_undefined()) fail_undefined(callee);
    fail(fmt::format("{} cannot be called", described(callee)));
  }

  // Counts macros and recursive loops that call each other.
  class CallGuard {
   public:
    explicit CallGuard(Renderer& renderer) : renderer_(renderer) {
      if (renderer_.calls_ >= kMostMacroDepth)
        fail(fmt::format("macros call each other more than {} deep", kMostMacroDepth));
      ++renderer_.calls_;
    }
    ~CallGuard() { --renderer_.calls_; }
    CallGuard(const CallGuard&) = delete;
    CallGuard& operator=(const CallGuard&) = delete;

   private:
    Renderer& renderer_;
  };

  static std::shared_ptr<Scope> surroundings(const std::weak_ptr<Scope>& scope) {
    std::shared_ptr<Scope> alive = scope.lock();
    if (alive == nullptr) fail("a macro or loop is called outside the block that defined it");
    return alive;
  }

  // Runs a recursive loop again, one level deeper.
  Value call_loop(const Loop& loop, const Given& given) {
    if (given.positional.size() != 1 || !given.named.empty()) fail("loop() takes one argument");
    const CallGuard call(*this);
    const ScopeGuard guard(*this, surroundings(loop.scope));
    TextBuilder outside(budget_);
    std::swap(outside, output_);
    run_loop(*loop.recursive, given.positional[0], loop.depth + 1);
    std::swap(outside, output_);
    return std::move(outside).value();
  }

  // Removes a named argument; nothing when it was not given.
  static std::optional<Value> take_named(Given& given, std::string_view name) {
    for (auto argument = given.named.begin(); argument != given.named.end(); ++argument) {
      if (argument->first != name) continue;
      Value value = std::move(argument->second);
      given.named.erase(argument);
      return value;
    }
    return std::nullopt;
  }

  Value call_macro(const Closure& closure, Given given) {
    const Macro& macro = *closure.macro;
    const size_t count = macro.parameters.size();
    if (given.positional.size() > count && !macro.takes_positional) {
      fail(fmt::format("the macro '{}' takes {} arguments, found {}", macro.name, count,
                       given.positional.size()));
    }
    const CallGuard call(*this);
    const ScopeGuard guard(*this, surroundings(closure.scope));
    std::vector<std::optional<Value>> bound(count);
    for (size_t i = 0; i < count; ++i)
      bound[i] = i < given.positional.size() ? std::optional(given.positional[i])
                                             : take_named(given, macro.parameters[i].first);
    for (size_t i = 0; i < count; ++i) {
      const auto& [name, fallback] = macro.parameters[i];
      if (bound[i]) {
        set_variable(name, *bound[i]);
      } else {
        set_variable(name, fallback == nullptr ? Value(Undefined{&name}) : evaluate(*fallback));
      }
    }
    if (macro.takes_caller) set_variable("caller", take_named(given, "caller").value_or(Value()));
    if (macro.takes_named) {
      std::vector<std::pair<Value, Value>> entries;
      for (auto& [name, value] : given.named) entries.emplace_back(make_string(budget_, name), value);
      set_variable("kwargs", make_dict(budget_, std::move(entries)));
    } else if (!given.named.empty()) {
      fail(fmt::format("the macro '{}' has no parameter '{}' left", macro.name, given.named.front().first));
    }
    if (macro.takes_positional) {
      const size_t used = std::min(count, given.positional.size());
      given.positional.erase(given.positional.begin(),
                             given.positional.begin() + static_cast<std::ptrdiff_t>(used));
      set_variable("varargs", make_list(budget_, std::move(given.positional), true));
    }
    Value text;
    capture(macro.body, text);
    return text;
  }

  Environment& environment_;
  Budget& budget_;
  std::shared_ptr<Scope> scope_;
  TextBuilder output_;
  uint32_t line_ = 1;
  size_t depth_ = 0;
  size_t calls_ = 0;
};

}  // namespace

QuotedText render_template(Environment& environment, const Block& block,
                           std::vector<std::pair<std::string_view, Value>> variables) {
  const auto inputs = std::make_shared<Scope>();
  inputs->variables = std::move(variables);
  auto root = std::make_shared<Scope>();
  root->outer = inputs;
  return Renderer(environment, std::move(root)).run(block);
}

}  // namespace tessera::jinja
