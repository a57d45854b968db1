#include <algorithm>
#include <array>

#include "engine/chat_template/builtins.h"
#include "engine/chat_template/characters.h"
#include "engine/chat_template/operators.h"

namespace tessera::jinja {

namespace {

using Subject = const Value&;
using Given = const Arguments&;

template <Operator operation>
bool test_comparison(Environment& environment, Subject subject, Given given) {
  return apply_comparison(environment.budget, operation, subject, *given.find(0));
}

bool test_defined(Environment&, Subject subject, Given) { return !subject.is_undefined(); }
bool test_undefined(Environment&, Subject subject, Given) { return subject.is_undefined(); }
bool test_none(Environment&, Subject subject, Given) { return subject.is_none(); }
bool test_boolean(Environment&, Subject subject, Given) { return subject.holds<bool>(); }
bool test_true(Environment&, Subject subject, Given) { return subject.holds<bool>() && *subject.get<bool>(); }
bool test_false(Environment&, Subject subject, Given) {
  return subject.holds<bool>() && !*subject.get<bool>();
}
bool test_integer(Environment&, Subject subject, Given) { return subject.holds<int64_t>(); }
bool test_float(Environment&, Subject subject, Given) { return subject.holds<double>(); }
bool test_number(Environment&, Subject subject, Given) {
  return subject.holds<int64_t>() || subject.holds<double>() || subject.holds<bool>();
}
bool test_string(Environment&, Subject subject, Given) { return subject.string() != nullptr; }
bool test_mapping(Environment&, Subject subject, Given) { return subject.dict() != nullptr; }
// In Jinja a sequence is what has a length and can be indexed: that includes dicts and undefined values.
bool test_sequence(Environment&, Subject subject, Given) {
  return subject.string() != nullptr || subject.list() != nullptr || subject.dict() != nullptr ||
         subject.is_undefined();
}
bool test_iterable(Environment& environment, Subject subject, Given given) {
  return test_sequence(environment, subject, given) || subject.loop() != nullptr;
}
bool test_callable(Environment&, Subject subject, Given) {
  // In Jinja an undefined value is callable; the call itself is the error.
  return subject.is_undefined() || subject.macro() != nullptr || subject.holds<const Function*>() ||
         subject.method() != nullptr;
}

int64_t remainder(Environment& environment, Subject subject, int64_t divisor) {
  const Value rest = apply_operator(environment.budget, Operator::modulo, subject, divisor);
  if (const int64_t* integer = rest.get<int64_t>()) return *integer;
  const double* number = rest.get<double>();
  return number != nullptr && *number == 0.0 ? 0 : (number != nullptr && *number == 1.0 ? 1 : 2);
}
bool test_even(Environment& environment, Subject subject, Given) {
  return remainder(environment, subject, 2) == 0;
}
bool test_odd(Environment& environment, Subject subject, Given) {
  return remainder(environment, subject, 2) == 1;
}
bool test_divisible(Environment& environment, Subject subject, Given given) {
  return remainder(environment, subject, given.integer(0, 1)) == 0;
}

// Identity shows in lists and dicts only; of all others, equal values of the same type count as the same.
bool test_same(Environment& environment, Subject subject, Given given) {
  const Value& other = *given.find(0);
  if (subject.list() != nullptr) return subject.list() == other.list();
  if (subject.dict() != nullptr) return subject.dict() == other.dict();
  return subject.data().index() == other.data().index() && equal(environment.budget, subject, other);
}

// Whether a text has upper or lower case letters and none for which `unwanted` is true.
bool all_cased(Environment& environment, Subject subject, bool (*unwanted)(uint32_t)) {
  Value storage;
  const std::string_view text = text_of(environment.budget, subject, storage).text;
  environment.budget.spend_bytes(text.size());
  bool cased = false;
  for (size_t position = 0; position < text.size();) {
    const Character next = character_at(text, position);
    if (unwanted(next.code) || is_title(next.code)) return false;
    cased = cased || is_cased(next.code);
    position += next.bytes;
  }
  return cased;
}
bool test_lower(Environment& environment, Subject subject, Given) {
  return all_cased(environment, subject, is_upper);
}
bool test_upper(Environment& environment, Subject subject, Given) {
  return all_cased(environment, subject, is_lower);
}

bool test_filter(Environment& environment, Subject subject, Given) {
  Value storage;
  return find_filter(text_of(environment.budget, subject, storage).text) != nullptr;
}
bool test_test(Environment& environment, Subject subject, Given) {
  Value storage;
  return find_test(text_of(environment.budget, subject, storage).text) != nullptr;
}

constexpr std::array<Test, 38> tests = {{
    {{"defined"}, test_defined},
    {{"undefined"}, test_undefined},
    {{"none"}, test_none},
    {{"boolean"}, test_boolean},
    {{"true"}, test_true},
    {{"false"}, test_false},
    {{"integer"}, test_integer},
    {{"float"}, test_float},
    {{"number"}, test_number},
    {{"string"}, test_string},
    {{"mapping"}, test_mapping},
    {{"sequence"}, test_sequence},
    {{"iterable"}, test_iterable},
    {{"callable"}, test_callable},
    {{"even"}, test_even},
    {{"odd"}, test_odd},
    {{"divisibleby", {"num"}, 1}, test_divisible},
    {{"sameas", {"other"}, 1}, test_same},
    {{"lower"}, test_lower},
    {{"upper"}, test_upper},
    {{"filter"}, test_filter},
    {{"test"}, test_test},
    {{"in", {"seq"}, 1}, test_comparison<Operator::in>},
    {{"eq", {"other"}, 1}, test_comparison<Operator::equal>},
    {{"==", {"other"}, 1}, test_comparison<Operator::equal>},
    {{"equalto", {"other"}, 1}, test_comparison<Operator::equal>},
    {{"ne", {"other"}, 1}, test_comparison<Operator::not_equal>},
    {{"!=", {"other"}, 1}, test_comparison<Operator::not_equal>},
    {{"lt", {"other"}, 1}, test_comparison<Operator::less>},
    {{"<", {"other"}, 1}, test_comparison<Operator::less>},
    {{"lessthan", {"other"}, 1}, test_comparison<Operator::less>},
    {{"le", {"other"}, 1}, test_comparison<Operator::less_equal>},
    {{"<=", {"other"}, 1}, test_comparison<Operator::less_equal>},
    {{"gt", {"other"}, 1}, test_comparison<Operator::greater>},
    {{">", {"other"}, 1}, test_comparison<Operator::greater>},
    {{"greaterthan", {"other"}, 1}, test_comparison<Operator::greater>},
    {{"ge", {"other"}, 1}, test_comparison<Operator::greater_equal>},
    {{">=", {"other"}, 1}, test_comparison<Operator::greater_equal>},
}};

}  // namespace

const Test* find_test(std::string_view name) {
  const auto found = std::find_if(tests.begin(), tests.end(),
                                  [name](const Test& test) { return test.signature.name == name; });
  return found == tests.end() ? nullptr : &*found;
}

}  // namespace tessera::jinja
