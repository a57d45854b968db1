// The methods of lists, tuples and dicts.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "engine/chat_template/builtins.h"
#include "engine/chat_template/operators.h"

namespace tessera::jinja {

namespace {

using Object = const Value&;
using Given = const Arguments&;
using Entries = std::vector<std::pair<Value, Value>>;

// The list to change, which is about to get `more` items.
List& grown(Environment& environment, Object object, size_t more) {
  List& list = changeable(*object.list());
  environment.budget.spend(1);
  list.charge.grow(more * sizeof(Value));
  return list;
}

// Notes that a container holds another since it was made.
void note_content(Environment& environment, Object container, const Value& content) {
  if (content.list() != nullptr || content.dict() != nullptr || content.loop() != nullptr ||
      content.method() != nullptr) {
    environment.budget.hold(sizeof(Value));
    environment.regrown.push_back(container);
  }
}

// Where index i of a list lies; throws Fault when it has none there.
size_t position_of(const List& list, int64_t index, const char* method) {
  const auto size = static_cast<int64_t>(list.items.size());
  if (index < 0) index += size;
  if (index < 0 || index >= size) fail(fmt::format("{}(): the list has {} items", method, list.items.size()));
  return static_cast<size_t>(index);
}

void spend_shift(Environment& environment, const List& list) {
  environment.budget.spend_bytes(list.items.size() * sizeof(Value));
}

Value list_append(Environment& environment, Object object, Given given) {
  List& list = grown(environment, object, 1);
  note_content(environment, object, *given.find(0));
  list.items.push_back(*given.find(0));
  return None{};
}

Value list_extend(Environment& environment, Object object, Given given) {
  const std::vector<Value> items = iterate(environment.budget, *given.find(0))->items;
  spend_shift(environment, *object.list());
  List& list = grown(environment, object, items.size());
  for (const Value& item : items) note_content(environment, object, item);
  list.items.insert(list.items.end(), items.begin(), items.end());
  return None{};
}

Value list_insert(Environment& environment, Object object, Given given) {
  spend_shift(environment, *object.list());
  List& list = grown(environment, object, 1);
  note_content(environment, object, *given.find(1));
  const size_t at = clamp_index(given.integer(0, 0), list.items.size());
  list.items.insert(list.items.begin() + static_cast<std::ptrdiff_t>(at), *given.find(1));
  return None{};
}

Value taken(Environment& environment, Object object, size_t at) {
  spend_shift(environment, *object.list());
  List& list = changeable(*object.list());
  Value item = list.items[at];
  list.items.erase(list.items.begin() + static_cast<std::ptrdiff_t>(at));
  list.charge.shrink(sizeof(Value));
  return item;
}

Value list_pop(Environment& environment, Object object, Given given) {
  return taken(environment, object, position_of(*object.list(), given.integer(0, -1), "pop"));
}

// The first item from `begin` to `end` that equals a value.
size_t find_item(Environment& environment, const List& list, const Value& wanted, size_t begin, size_t end) {
  for (size_t i = begin; i < end; ++i)
    if (equal(environment.budget, list.items[i], wanted)) return i;
  fail("the item searched for is not in the list");
}

Value list_remove(Environment& environment, Object object, Given given) {
  const List& list = *object.list();
  taken(environment, object, find_item(environment, list, *given.find(0), 0, list.items.size()));
  return None{};
}

Value list_clear(Environment&, Object object, Given) {
  List& list = changeable(*object.list());
  list.charge.shrink(list.items.size() * sizeof(Value));
  list.items.clear();
  return None{};
}

Value list_reverse(Environment& environment, Object object, Given) {
  spend_shift(environment, *object.list());
  std::vector<Value>& items = changeable(*object.list()).items;
  std::reverse(items.begin(), items.end());
  return None{};
}

Value list_sort(Environment& environment, Object object, Given given) {
  if (!given.extra().empty()) fail("sort() takes named arguments only");
  bool reverse = false;
  for (const auto& [name, value] : given.extra_named()) {
    if (name == "reverse") {
      reverse = truthy(value);
    } else if (name != "key" || !value.is_none()) {
      fail(fmt::format("sort(): the argument '{}' is not supported", name));
    }
  }
  std::vector<Value> items = object.list()->items;
  std::stable_sort(items.begin(), items.end(), [&](const Value& a, const Value& b) {
    bool ordered = true;
    const int order =
        reverse ? compare(environment.budget, b, a, ordered) : compare(environment.budget, a, b, ordered);
    return order < 0 && ordered;
  });
  changeable(*object.list()).items = std::move(items);
  return None{};
}

Value list_copy(Environment& environment, Object object, Given) {
  return make_list(environment.budget, object.list()->items);
}

Value list_index(Environment& environment, Object object, Given given) {
  const List& list = *object.list();
  const size_t size = list.items.size();
  const size_t begin = given.find(1) == nullptr ? 0 : clamp_index(given.integer(1, 0), size);
  const size_t end = given.find(2) == nullptr ? size : clamp_index(given.integer(2, 0), size);
  return static_cast<int64_t>(find_item(environment, list, *given.find(0), begin, end));
}

Value list_count(Environment& environment, Object object, Given given) {
  int64_t count = 0;
  for (const Value& item : object.list()->items) {
    if (equal(environment.budget, item, *given.find(0))) ++count;
  }
  return count;
}

constexpr std::array<Method, 2> tuple_methods = {{
    {{"index", {"value", "start", "stop"}, 1}, list_index},
    {{"count", {"value"}, 1}, list_count},
}};

constexpr std::array<Method, 11> list_methods = {{
    {{"append", {"object"}, 1}, list_append},
    {{"extend", {"iterable"}, 1}, list_extend},
    {{"insert", {"index", "object"}, 2}, list_insert},
    {{"pop", {"index"}}, list_pop},
    {{"remove", {"value"}, 1}, list_remove},
    {{"clear"}, list_clear},
    {{"reverse"}, list_reverse},
    {{"sort", {}, 0, true, true}, list_sort},
    {{"copy"}, list_copy},
    {{"index", {"value", "start", "stop"}, 1}, list_index},
    {{"count", {"value"}, 1}, list_count},
}};

void put(Environment& environment, Object object, const Value& key, const Value& value) {
  Dict& dict = changeable(*object.dict());
  note_content(environment, object, value);
  for (auto& entry : dict.entries) {
    if (!equal(environment.budget, entry.first, key)) continue;
    entry.second = value;
    return;
  }
  environment.budget.spend(1);
  dict.charge.grow(sizeof(dict.entries[0]));
  dict.entries.emplace_back(key, value);
}

Value taken(Object object, Entries::iterator entry) {
  Dict& dict = changeable(*object.dict());
  Value value = entry->second;
  dict.entries.erase(entry);
  dict.charge.shrink(sizeof(dict.entries[0]));
  return value;
}

Value dict_get(Environment& environment, Object object, Given given) {
  const Value* found = find_key(environment.budget, *object.dict(), *given.find(0));
  if (found != nullptr) return *found;
  return given.find(1) == nullptr ? Value(None{}) : *given.find(1);
}

Value dict_pop(Environment& environment, Object object, Given given) {
  Entries& entries = changeable(*object.dict()).entries;
  const auto entry = std::find_if(entries.begin(), entries.end(), [&](const auto& each) {
    return equal(environment.budget, each.first, *given.find(0));
  });
  if (entry != entries.end()) return taken(object, entry);
  if (given.find(1) == nullptr) fail("pop(): the key is not in the mapping");
  return *given.find(1);
}

Value dict_pop_item(Environment& environment, Object object, Given) {
  Entries& entries = changeable(*object.dict()).entries;
  if (entries.empty()) fail("popitem(): the mapping is empty");
  const Value key = entries.back().first;
  return make_list(environment.budget, {key, taken(object, std::prev(entries.end()))}, true);
}

Value dict_set_default(Environment& environment, Object object, Given given) {
  if (const Value* found = find_key(environment.budget, *object.dict(), *given.find(0))) return *found;
  const Value value = given.find(1) == nullptr ? Value(None{}) : *given.find(1);
  put(environment, object, *given.find(0), value);
  return value;
}

Value dict_update(Environment& environment, Object object, Given given) {
  for (const auto& [key, value] : given_entries(environment, given)) put(environment, object, key, value);
  return None{};
}

Value dict_clear(Environment&, Object object, Given) {
  Dict& dict = changeable(*object.dict());
  dict.charge.shrink(dict.entries.size() * sizeof(dict.entries[0]));
  dict.entries.clear();
  return None{};
}

Value dict_copy(Environment& environment, Object object, Given) {
  return make_dict(environment.budget, object.dict()->entries);
}

Value dict_items(Environment& environment, Object object, Given) {
  std::vector<Value> items;
  for (const auto& [key, value] : object.dict()->entries) {
    items.push_back(make_list(environment.budget, {key, value}, true));
  }
  return make_list(environment.budget, std::move(items));
}

Value dict_keys(Environment& environment, Object object, Given) {
  return iterate(environment.budget, object);
}

Value dict_values(Environment& environment, Object object, Given) {
  std::vector<Value> values;
  for (const auto& entry : object.dict()->entries) values.push_back(entry.second);
  return make_list(environment.budget, std::move(values));
}

constexpr std::array<Method, 10> dict_methods = {{
    {{"get", {"key", "default"}, 1}, dict_get},
    {{"items"}, dict_items},
    {{"keys"}, dict_keys},
    {{"values"}, dict_values},
    {{"copy"}, dict_copy},
    {{"pop", {"key", "default"}, 1}, dict_pop},
    {{"popitem"}, dict_pop_item},
    {{"setdefault", {"key", "default"}, 1}, dict_set_default},
    {{"update", {"mapping"}, 0, false, true}, dict_update},
    {{"clear"}, dict_clear},
}};

}  // namespace

const Method* find_container_method(const Value& object, std::string_view name) {
  if (object.dict() != nullptr) return find_in(dict_methods, name);
  if (const List* list = object.list())
    return list->tuple ? find_in(tuple_methods, name) : find_in(list_methods, name);
  return nullptr;
}

}  // namespace tessera::jinja
