#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "engine/chat_template/builtins.h"
#include "engine/chat_template/characters.h"
#include "engine/chat_template/literals.h"
#include "engine/chat_template/operators.h"

namespace tessera::jinja {

namespace {

using Subject = const Value&;
using Given = const Arguments&;

// The value at a path such as "a.b.0": attributes one after the other; numbers are indexes.
Value attribute_path(Budget& budget, const Value& item, const Value& path) {
  const String* string = path.string();
  if (string == nullptr) return get_item(budget, item, path);
  Value found = item;
  std::string_view rest = string->text;
  while (true) {
    const size_t dot = rest.find('.');
    const std::string_view part = rest.substr(0, dot);
    const bool digits = !part.empty() && part.find_first_not_of("0123456789") == std::string_view::npos;
    const std::optional<int64_t> index = digits ? parse_integer(part) : std::nullopt;
    found = get_item(budget, found, index ? Value(*index) : make_string(budget, std::string(part)));
    if (dot == std::string_view::npos) return found;
    rest.remove_prefix(dot + 1);
  }
}

// The value by which an item is sorted or compared: the item or its attribute, in lower case unless
// case_sensitive.
Value sort_key(Budget& budget, const Value& item, const Value* attribute, bool case_sensitive) {
  const Value key =
      attribute == nullptr || attribute->is_none() ? item : attribute_path(budget, item, *attribute);
  const String* string = key.string();
  if (string == nullptr || case_sensitive) return key;
  budget.require(string->text.size() * kMostCaseGrowth);
  return make_string(budget, change_case(string->text, Case::lower));
}

bool less(Budget& budget, const Value& left, const Value& right) {
  bool ordered = true;
  return compare(budget, left, right, ordered) < 0 && ordered;
}

Value filter_join(Environment& environment, Subject subject, Given given) {
  Budget& budget = environment.budget;
  const std::shared_ptr<const List> items = iterate(budget, subject);
  Value storage;
  const String* separator = given.find(0) == nullptr ? nullptr : &text_of(budget, *given.find(0), storage);
  const Value* attribute = given.find(1);
  TextBuilder text(budget);
  for (size_t i = 0; i < items->items.size(); ++i) {
    if (i > 0 && separator != nullptr) text.append(*separator);
    const Value& item = items->items[i];
    append_text(
        text, attribute == nullptr || attribute->is_none() ? item : attribute_path(budget, item, *attribute));
  }
  return std::move(text).value();
}

Value filter_list(Environment& environment, Subject subject, Given) {
  const std::shared_ptr<const List> items = iterate(environment.budget, subject);
  return make_list(environment.budget, items->items);
}

Value filter_first(Environment& environment, Subject subject, Given) {
  if (subject.string() != nullptr) return get_item(environment.budget, subject, int64_t{0});
  const std::shared_ptr<const List> items = iterate(environment.budget, subject);
  return items->items.empty() ? Value() : items->items.front();
}

Value filter_last(Environment& environment, Subject subject, Given) {
  if (subject.string() != nullptr) return get_item(environment.budget, subject, int64_t{-1});
  const std::shared_ptr<const List> items = iterate(environment.budget, subject);
  return items->items.empty() ? Value() : items->items.back();
}

Value filter_reverse(Environment& environment, Subject subject, Given) {
  const Value open = None{};
  if (subject.string() != nullptr) return slice(environment.budget, subject, open, open, int64_t{-1});
  std::vector<Value> items = iterate(environment.budget, subject)->items;
  std::reverse(items.begin(), items.end());
  return make_list(environment.budget, std::move(items));
}

Value filter_items(Environment& environment, Subject subject, Given) {
  if (subject.is_undefined()) return make_list(environment.budget, {});
  const Dict* dict = subject.dict();
  if (dict == nullptr) fail(fmt::format("items: needs a mapping, found {}", described(subject)));
  std::vector<Value> items;
  for (const auto& [key, value] : dict->entries)
    items.push_back(make_list(environment.budget, {key, value}, true));
  return make_list(environment.budget, std::move(items));
}

std::vector<Value> sorted(Budget& budget, const std::vector<Value>& items, const std::vector<Value>& keys,
                          bool reverse) {
  std::vector<size_t> order(items.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return reverse ? less(budget, keys[b], keys[a]) : less(budget, keys[a], keys[b]);
  });
  std::vector<Value> result;
  result.reserve(order.size());
  for (const size_t i : order) result.push_back(items[i]);
  return result;
}

Value filter_sort(Environment& environment, Subject subject, Given given) {
  Budget& budget = environment.budget;
  const std::shared_ptr<const List> items = iterate(budget, subject);
  std::vector<Value> keys;
  for (const Value& item : items->items)
    keys.push_back(sort_key(budget, item, given.find(2), given.truth(1, false)));
  return make_list(budget, sorted(budget, items->items, keys, given.truth(0, false)));
}

Value filter_dictsort(Environment& environment, Subject subject, Given given) {
  Budget& budget = environment.budget;
  const Dict* dict = subject.dict();
  if (dict == nullptr) fail(fmt::format("dictsort: needs a mapping, found {}", described(subject)));
  const std::string_view by = given.text(1, "key");
  if (by != "key" && by != "value") fail("dictsort: sorts by 'key' or 'value'");
  std::vector<Value> pairs;
  std::vector<Value> keys;
  for (const auto& [key, value] : dict->entries) {
    pairs.push_back(make_list(budget, {key, value}, true));
    keys.push_back(sort_key(budget, by == "key" ? key : value, nullptr, given.truth(0, false)));
  }
  return make_list(budget, sorted(budget, pairs, keys, given.truth(2, false)));
}

Value filter_unique(Environment& environment, Subject subject, Given given) {
  Budget& budget = environment.budget;
  const std::shared_ptr<const List> items = iterate(budget, subject);
  std::vector<Value> seen;
  std::vector<Value> kept;
  for (const Value& item : items->items) {
    Value key = sort_key(budget, item, given.find(1), given.truth(0, false));
    const bool known =
        std::any_of(seen.begin(), seen.end(), [&](const Value& other) { return equal(budget, other, key); });
    if (known) continue;
    seen.push_back(std::move(key));
    kept.push_back(item);
  }
  return make_list(budget, std::move(kept));
}

template <bool largest>
Value filter_extreme(Environment& environment, Subject subject, Given given) {
  Budget& budget = environment.budget;
  const std::shared_ptr<const List> items = iterate(budget, subject);
  Value best;
  Value best_key;
  for (size_t i = 0; i < items->items.size(); ++i) {
    const Value key = sort_key(budget, items->items[i], given.find(1), given.truth(0, false));
    if (i > 0 && !(largest ? less(budget, best_key, key) : less(budget, key, best_key))) continue;
    best = items->items[i];
    best_key = key;
  }
  return best;
}

Value filter_sum(Environment& environment, Subject subject, Given given) {
  Budget& budget = environment.budget;
  const Value* attribute = given.find(0);
  Value sum = given.find(1) == nullptr ? Value(int64_t{0}) : *given.find(1);
  const std::shared_ptr<const List> items = iterate(budget, subject);
  for (const Value& item : items->items) {
    const bool whole = attribute == nullptr || attribute->is_none();
    sum = apply_operator(budget, Operator::add, sum, whole ? item : attribute_path(budget, item, *attribute));
  }
  return sum;
}

// As iterate, but false values such as none, false and 0 have no items. For map, select and reject.
std::shared_ptr<const List> iterate_any(Budget& budget, Subject subject) {
  return iterate(budget, truthy(subject) ? subject : Value());
}

// The positional arguments after the first `used`: those for the filter or test that is applied to every
// item.
std::vector<Value> rest_of(Given given, size_t used) {
  const std::vector<Value>& extra = given.extra();
  if (extra.size() <= used) return {};
  return {extra.begin() + static_cast<std::ptrdiff_t>(used), extra.end()};
}

const Value* named_argument(Given given, std::string_view name) {
  for (const auto& argument : given.extra_named()) {
    if (argument.first == name) return &argument.second;
  }
  return nullptr;
}

Value filter_map(Environment& environment, Subject subject, Given given) {
  Budget& budget = environment.budget;
  const std::shared_ptr<const List> items = iterate_any(budget, subject);
  std::vector<Value> mapped;
  if (given.extra().empty()) {
    const Value* attribute = named_argument(given, "attribute");
    const Value* otherwise = named_argument(given, "default");
    if (attribute == nullptr) fail("map: needs the name of a filter or attribute=…");
    for (const Value& item : items->items) {
      Value value = attribute_path(budget, item, *attribute);
      mapped.push_back(value.is_undefined() && otherwise != nullptr ? *otherwise : std::move(value));
    }
    return make_list(budget, std::move(mapped));
  }
  Value storage;
  const std::string& name = text_of(budget, given.extra()[0], storage).text;
  const Filter* filter = find_filter(name);
  if (filter == nullptr) fail(fmt::format("the filter '{}' is not supported", name));
  const Arguments arguments(filter->signature, rest_of(given, 1), given.extra_named());
  for (const Value& item : items->items) mapped.push_back(filter->apply(environment, item, arguments));
  return make_list(budget, std::move(mapped));
}

// select, reject, selectattr and rejectattr: the items for which a test holds (wanted) or does not.
// by_attribute: an attribute of the item is tested.
template <bool by_attribute, bool wanted>
Value filter_choose(Environment& environment, Subject subject, Given given) {
  Budget& budget = environment.budget;
  const std::shared_ptr<const List> items = iterate_any(budget, subject);
  constexpr size_t test_at = by_attribute ? 1 : 0;
  if (given.extra().size() < test_at) fail("needs the name of an attribute");
  const Test* test = nullptr;
  std::optional<Arguments> arguments;
  if (given.extra().size() > test_at) {
    Value storage;
    const std::string& name = text_of(budget, given.extra()[test_at], storage).text;
    test = find_test(name);
    if (test == nullptr) fail(fmt::format("the test '{}' is not supported", name));
    arguments.emplace(test->signature, rest_of(given, test_at + 1), given.extra_named());
  }
  std::vector<Value> kept;
  for (const Value& item : items->items) {
    const Value seen = by_attribute ? attribute_path(budget, item, given.extra()[0]) : item;
    budget.spend(1);
    const bool holds = test == nullptr ? truthy(seen) : test->apply(environment, seen, *arguments);
    if (holds == wanted) kept.push_back(item);
  }
  return make_list(budget, std::move(kept));
}

Value filter_batch(Environment& environment, Subject subject, Given given) {
  Budget& budget = environment.budget;
  const std::shared_ptr<const List> items = iterate(budget, subject);
  const int64_t size = given.integer(0, 1);
  std::vector<Value> batches;
  std::vector<Value> batch;
  for (const Value& item : items->items) {
    if (static_cast<int64_t>(batch.size()) == size)
      batches.push_back(make_list(budget, std::exchange(batch, {})));
    batch.push_back(item);
  }
  if (batch.empty()) return make_list(budget, std::move(batches));
  if (given.find(1) != nullptr && !given.find(1)->is_none() && static_cast<int64_t>(batch.size()) < size) {
    const auto missing = static_cast<uint64_t>(size) - batch.size();
    budget.require(missing * sizeof(Value));
    batch.insert(batch.end(), missing, *given.find(1));
  }
  batches.push_back(make_list(budget, std::move(batch)));
  return make_list(budget, std::move(batches));
}

Value filter_slice(Environment& environment, Subject subject, Given given) {
  Budget& budget = environment.budget;
  const std::shared_ptr<const List> items = iterate(budget, subject);
  const int64_t slices = given.integer(0, 1);
  if (slices == 0) fail("division by zero");
  const size_t count = slices < 0 ? 0 : static_cast<size_t>(slices);
  budget.require(count * sizeof(Value));
  const size_t size = count == 0 ? 0 : items->items.size() / count;
  const size_t longer = count == 0 ? 0 : items->items.size() % count;
  std::vector<Value> lists;
  size_t at = 0;
  for (size_t i = 0; i < count; ++i) {
    const size_t length = size + (i < longer ? 1 : 0);
    std::vector<Value> part(items->items.begin() + static_cast<std::ptrdiff_t>(at),
                            items->items.begin() + static_cast<std::ptrdiff_t>(at + length));
    at += length;
    if (i >= longer && given.find(1) != nullptr && !given.find(1)->is_none()) part.push_back(*given.find(1));
    lists.push_back(make_list(budget, std::move(part)));
  }
  return make_list(budget, std::move(lists));
}

constexpr std::array<Filter, 19> filters = {{
    {{"join", {"d", "attribute"}}, filter_join},
    {{"list"}, filter_list},
    {{"first"}, filter_first},
    {{"last"}, filter_last},
    {{"reverse"}, filter_reverse},
    {{"items"}, filter_items},
    {{"sort", {"reverse", "case_sensitive", "attribute"}}, filter_sort},
    {{"dictsort", {"case_sensitive", "by", "reverse"}}, filter_dictsort},
    {{"unique", {"case_sensitive", "attribute"}}, filter_unique},
    {{"min", {"case_sensitive", "attribute"}}, filter_extreme<false>},
    {{"max", {"case_sensitive", "attribute"}}, filter_extreme<true>},
    {{"sum", {"attribute", "start"}}, filter_sum},
    {{"batch", {"linecount", "fill_with"}, 1}, filter_batch},
    {{"slice", {"slices", "fill_with"}, 1}, filter_slice},
    {{"map", {}, 0, true, true}, filter_map},
    {{"select", {}, 0, true, true}, filter_choose<false, true>},
    {{"reject", {}, 0, true, true}, filter_choose<false, false>},
    {{"selectattr", {}, 0, true, true}, filter_choose<true, true>},
    {{"rejectattr", {}, 0, true, true}, filter_choose<true, false>},
}};

}  // namespace

const Filter* find_sequence_filter(std::string_view name) {
  const auto found = std::find_if(filters.begin(), filters.end(),
                                  [name](const Filter& filter) { return filter.signature.name == name; });
  return found == filters.end() ? nullptr : &*found;
}

}  // namespace tessera::jinja
