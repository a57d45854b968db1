#include "engine/chat_template/builtins.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>

#include "engine/chat_template/characters.h"

namespace tessera::jinja {

namespace {

constexpr uint64_t kMostRangeItems = 100000;

size_t parameter_count(const Signature& signature) {
  size_t count = 0;
  while (count < signature.parameters.size() && !signature.parameters[count].empty()) ++count;
  return count;
}

std::optional<size_t> parameter_index(const Signature& signature, std::string_view name) {
  for (size_t i = 0; i < parameter_count(signature); ++i) {
    if (signature.parameters[i] == name) return i;
  }
  return std::nullopt;
}

Value call_range(Environment& environment, const Arguments& arguments) {
  const bool two = arguments.find(1) != nullptr;
  const int64_t start = two ? arguments.integer(0, 0) : 0;
  const int64_t stop = arguments.integer(two ? 1 : 0, 0);
  const int64_t step = arguments.integer(2, 1);
  if (step == 0) fail("the step of range() is zero");
  const bool any = step > 0 ? start < stop : start > stop;
  uint64_t count = 0;
  if (any) {
    const uint64_t low = static_cast<uint64_t>(step > 0 ? start : stop);
    const uint64_t high = static_cast<uint64_t>(step > 0 ? stop : start);
    const uint64_t stride =
        step > 0 ? static_cast<uint64_t>(step) : uint64_t{0} - static_cast<uint64_t>(step);
    count = (high - low - 1) / stride + 1;
  }
  if (count > kMostRangeItems)
    fail(fmt::format("range() of {} items, at most {} are allowed", count, kMostRangeItems));
  std::vector<Value> items;
  items.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    items.push_back(static_cast<int64_t>(static_cast<uint64_t>(start) + i * static_cast<uint64_t>(step)));
  }
  return make_list(environment.budget, std::move(items));
}

}  // namespace

std::vector<std::pair<Value, Value>> given_entries(Environment& environment, const Arguments& arguments) {
  Budget& budget = environment.budget;
  std::vector<std::pair<Value, Value>> entries;
  if (const Value* source = arguments.find(0)) {
    if (const Dict* dict = source->dict()) {
      entries = dict->entries;
    } else {
      const std::shared_ptr<const List> pairs = iterate(budget, *source);
      for (const Value& item : pairs->items) {
        const std::shared_ptr<const List> pair = iterate(budget, item);
        if (pair->items.size() != 2) fail("dict() takes a mapping or a list of pairs");
        entries.emplace_back(pair->items[0], pair->items[1]);
      }
    }
  }
  for (const auto& [name, value] : arguments.extra_named())
    entries.emplace_back(make_string(budget, name), value);
  // Of equal keys the last value counts; it stands where the first one stood.
  std::vector<std::pair<Value, Value>> unique;
  for (auto& entry : entries) {
    const auto same = std::find_if(unique.begin(), unique.end(), [&](const auto& other) {
      return equal(budget, other.first, entry.first);
    });
    if (same != unique.end()) {
      same->second = std::move(entry.second);
    } else {
      unique.push_back(std::move(entry));
    }
  }
  return unique;
}

namespace {

Value call_dict(Environment& environment, const Arguments& arguments) {
  return make_dict(environment.budget, given_entries(environment, arguments));
}

Value call_namespace(Environment& environment, const Arguments& arguments) {
  Namespace space{{}, Charge(environment.budget, sizeof(Namespace))};
  for (auto& [name, value] : given_entries(environment, arguments)) {
    const String* string = name.string();
    if (string == nullptr) fail("the attributes of a namespace have names");
    space.charge.grow(string->text.size() + sizeof(space.attributes[0]));
    space.attributes.emplace_back(string->text, std::move(value));
  }
  environment.namespaces.push_back(std::move(space));
  return &environment.namespaces.back();
}

Value call_raise(Environment& environment, const Arguments& arguments) {
  Value storage;
  fail(text_of(environment.budget, *arguments.find(0), storage).text);
}

std::string format_time(std::string_view format) {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  std::string text;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') {
      text += format[i];
      continue;
    }
    // Only plain directives: widths and flags of the C library could make the text arbitrarily long.
    static constexpr std::string_view directives = "aAbBcdHIjmMpSUwWxXyYzZ%DeFGghklnRrsTtuV";
    const bool unpadded = i + 1 < format.size() && format[i + 1] == '-';
    const size_t at = i + (unpadded ? 2 : 1);
    if (at >= format.size() || directives.find(format[at]) == std::string_view::npos) {
      fail("strftime_now: the format has an unknown directive");
    }
    const char directive[] = {'%', format[at], '\0'};
    char buffer[128];
    std::string piece(buffer, std::strftime(buffer, sizeof(buffer), directive, &local));
    if (unpadded) {
      const size_t digits = std::min(piece.find_first_not_of("0 "), piece.size() - (piece.empty() ? 0 : 1));
      piece.erase(0, digits);
    }
    text += piece;
    i = at;
  }
  return text;
}

Value call_strftime(Environment& environment, const Arguments& arguments) {
  const std::string_view format = arguments.text(0, "");
  environment.budget.spend_bytes(format.size() * 16);
  environment.budget.require(format.size() * 64);
  if (!environment.date.empty()) return make_string(environment.budget, environment.date);
  return make_changed(environment.budget, arguments.string(0), format_time(format));
}

constexpr std::array<Function, 5> functions = {{
    {{"range", {"start", "stop", "step"}, 1}, call_range},
    {{"dict", {"mapping"}, 0, false, true}, call_dict},
    {{"namespace", {"mapping"}, 0, false, true}, call_namespace},
    {{"raise_exception", {"message"}, 1}, call_raise},
    {{"strftime_now", {"format"}, 1}, call_strftime},
}};

Value loop_attribute(const Loop& loop, const std::string& name) {
  // The list may have changed since the loop began.
  const auto count = static_cast<int64_t>(loop.items->items.size());
  const auto index = static_cast<int64_t>(loop.index);
  if (name == "index") return index + 1;
  if (name == "index0") return index;
  if (name == "revindex") return count - index;
  if (name == "revindex0") return count - index - 1;
  if (name == "first") return index == 0;
  if (name == "last") return index + 1 == count;
  if (name == "length") return count;
  if (name == "depth") return static_cast<int64_t>(loop.depth);
  if (name == "depth0") return static_cast<int64_t>(loop.depth) - 1;
  if (name == "previtem" && index > 0 && index <= count) return loop.items->items[loop.index - 1];
  if (name == "nextitem" && index + 1 < count) return loop.items->items[loop.index + 1];
  return Undefined{&name};
}

// Says why arguments do not fit a signature; an empty string when they do. positional: their number.
std::string check_arguments(const Signature& signature, size_t positional,
                            const std::vector<std::string_view>& named) {
  const size_t parameters = parameter_count(signature);
  if (positional > parameters && !signature.more_positional) {
    return fmt::format("'{}' takes at most {} arguments, found {}", signature.name, parameters, positional);
  }
  std::array<bool, 4> given{};
  for (size_t i = 0; i < std::min(positional, parameters); ++i) given[i] = true;
  for (const std::string_view name : named) {
    const std::optional<size_t> index = parameter_index(signature, name);
    if (!index && !signature.more_named)
      return fmt::format("'{}' has no argument '{}'", signature.name, name);
    if (index && given[*index]) return fmt::format("'{}' is given '{}' twice", signature.name, name);
    if (index) given[*index] = true;
  }
  for (size_t i = 0; i < signature.required; ++i) {
    if (!given[i])
      return fmt::format("'{}' needs the argument '{}'", signature.name, signature.parameters[i]);
  }
  return {};
}

}  // namespace

Environment::~Environment() {
  std::vector<Value> held;
  for (const Value& value : regrown) {
    if (const List* list = value.list()) {
      std::vector<Value>& items = changeable(*list).items;
      held.insert(held.end(), items.begin(), items.end());
      items.clear();
    } else if (const Dict* dict = value.dict()) {
      for (auto& [key, entry] : changeable(*dict).entries) held.push_back(std::move(entry));
      changeable(*dict).entries.clear();
    }
  }
}

Arguments::Arguments(const Signature& signature, std::vector<Value> positional,
                     std::vector<std::pair<std::string, Value>> named)
    : signature_(&signature) {
  std::vector<std::string_view> names;
  names.reserve(named.size());
  for (const auto& argument : named) names.push_back(argument.first);
  const std::string problem = check_arguments(signature, positional.size(), names);
  if (!problem.empty()) fail(problem);
  const size_t parameters = parameter_count(signature);
  for (size_t i = 0; i < positional.size(); ++i) {
    if (i < parameters) {
      bound_[i] = std::move(positional[i]);
    } else {
      extra_.push_back(std::move(positional[i]));
    }
  }
  for (auto& argument : named) {
    if (const std::optional<size_t> index = parameter_index(signature, argument.first)) {
      bound_[*index] = std::move(argument.second);
    } else {
      extra_named_.push_back(std::move(argument));
    }
  }
}

const Value* Arguments::find(size_t parameter) const {
  return bound_[parameter] ? &*bound_[parameter] : nullptr;
}

int64_t Arguments::integer(size_t parameter, int64_t otherwise) const {
  const Value* value = find(parameter);
  if (value == nullptr) return otherwise;
  if (const int64_t* integer = value->get<int64_t>()) return *integer;
  if (const bool* truth = value->get<bool>()) return *truth ? 1 : 0;
  if (value->is_undefined()) fail_undefined(*value);
  fail(fmt::format("'{}' needs an integer for '{}', found {}", signature_->name,
                   signature_->parameters[parameter], described(*value)));
}

bool Arguments::truth(size_t parameter, bool otherwise) const {
  const Value* value = find(parameter);
  return value == nullptr ? otherwise : truthy(*value);
}

std::string_view Arguments::text(size_t parameter, std::string_view otherwise) const {
  const Value* value = find(parameter);
  if (value == nullptr) return otherwise;
  if (const String* string = value->string()) return string->text;
  if (value->is_undefined()) fail_undefined(*value);
  fail(fmt::format("'{}' needs a string for '{}', found {}", signature_->name,
                   signature_->parameters[parameter], described(*value)));
}

const String& Arguments::string(size_t parameter) const {
  text(parameter, "");  // throws when it is not a string
  return *find(parameter)->string();
}

const Function* find_function(std::string_view name) {
  const auto found = std::find_if(functions.begin(), functions.end(), [name](const Function& function) {
    return function.signature.name == name;
  });
  return found == functions.end() ? nullptr : &*found;
}

Value get_attribute(Budget& budget, const Value& object, const std::string& name) {
  if (object.is_undefined()) fail_undefined(object);
  if (const Method* method = find_method(object, name)) return make_method(budget, object, method);
  const Value* found = nullptr;
  if (const Dict* dict = object.dict()) {
    found = find_key(budget, *dict, name);
  } else if (Namespace* const* space = object.get<Namespace*>()) {
    budget.spend((*space)->attributes.size() / 16);
    found = find_attribute(**space, name);
  } else if (const Loop* loop = object.loop()) {
    return loop_attribute(*loop, name);
  }
  return found != nullptr ? *found : Value(Undefined{&name});
}

Value get_item(Budget& budget, const Value& object, const Value& key) {
  if (object.is_undefined()) fail_undefined(object);
  if (const Dict* dict = object.dict()) {
    const String* name = key.string();
    const Value* found = name != nullptr ? find_key(budget, *dict, name->text) : find_key(budget, *dict, key);
    if (found != nullptr) return *found;
  }
  if (key.holds<int64_t>() || key.holds<bool>()) {
    int64_t index = key.holds<bool>() ? int64_t{*key.get<bool>()} : *key.get<int64_t>();
    if (const List* list = object.list()) {
      const auto size = static_cast<int64_t>(list->items.size());
      if (index < 0) index += size;
      return index >= 0 && index < size ? list->items[static_cast<size_t>(index)] : Value();
    }
    if (const String* string = object.string()) {
      budget.spend_bytes(string->text.size());
      if (index < 0) index += static_cast<int64_t>(count_characters(string->text));
      if (index < 0) return Value();
      const size_t position = byte_offset(string->text, static_cast<size_t>(index));
      if (position >= string->text.size()) return Value();
      const std::string_view rest = std::string_view(string->text).substr(position);
      return make_part(budget, *string, rest.substr(0, character_at(rest, 0).bytes));
    }
  }
  if (const String* name = key.string()) {
    if (const Method* method = find_method(object, name->text)) return make_method(budget, object, method);
    if (Namespace* const* space = object.get<Namespace*>()) {
      budget.spend((*space)->attributes.size() / 16);
      if (const Value* found = find_attribute(**space, name->text)) return *found;
    }
    if (const Loop* loop = object.loop()) {
      const Value found = loop_attribute(*loop, name->text);
      return found.is_undefined() ? Value() : found;
    }
  }
  return Value();
}

}  // namespace tessera::jinja
