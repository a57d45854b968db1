#include "gguf-like-format/pytorch/tensor_pickle.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <unordered_map>
#include <unordered_set>

#include "gguf-like-format/pytorch/little_endian.h"

namespace tessera {

namespace {

using Bytes = std::span<const std::byte>;

constexpr size_t kMostBytes = size_t{16} << 20;
constexpr size_t kMostRank = 8;
constexpr size_t kMostNameBytes = 4096;
constexpr unsigned kLastProtocol = 5;

enum class Function : uint8_t { ordered_dict, rebuild_tensor, rebuild_parameter, storage };

struct Global {
  std::string_view module;
  std::string_view name;
  Function function;
};
constexpr std::array kGlobals = {
    Global{"collections", "OrderedDict", Function::ordered_dict},
    Global{"torch._utils", "_rebuild_tensor_v2", Function::rebuild_tensor},
    Global{"torch._utils", "_rebuild_parameter", Function::rebuild_parameter},
    Global{"torch", "FloatStorage", Function::storage},
    Global{"torch", "HalfStorage", Function::storage},
    Global{"torch", "BFloat16Storage", Function::storage},
    Global{"torch", "DoubleStorage", Function::storage},
    Global{"torch", "LongStorage", Function::storage},
    Global{"torch", "IntStorage", Function::storage},
    Global{"torch", "ShortStorage", Function::storage},
    Global{"torch", "CharStorage", Function::storage},
    Global{"torch", "ByteStorage", Function::storage},
    Global{"torch", "BoolStorage", Function::storage},
};

// The steps of the machine that are known, and the names of some that are not.
enum Step : uint8_t {
  kMark = '(',
  kStop = '.',
  kNone = 'N',
  kGlobal = 'c',
  kReduce = 'R',
  kBuild = 'b',
  kBinPersId = 'Q',
  kBinInt = 'J',
  kBinInt1 = 'K',
  kBinInt2 = 'M',
  kBinFloat = 'G',
  kBinUnicode = 'X',
  kEmptyDict = '}',
  kEmptyList = ']',
  kEmptyTuple = ')',
  kTuple = 't',
  kAppend = 'a',
  kAppends = 'e',
  kSetItem = 's',
  kSetItems = 'u',
  kBinGet = 'h',
  kLongBinGet = 'j',
  kBinPut = 'q',
  kLongBinPut = 'r',
  kProto = 0x80,
  kTuple1 = 0x85,
  kTuple2 = 0x86,
  kTuple3 = 0x87,
  kNewTrue = 0x88,
  kNewFalse = 0x89,
  kLong1 = 0x8a,
  kShortBinUnicode = 0x8c,
  kStackGlobal = 0x93,
  kMemoize = 0x94,
  kFrame = 0x95,
};
struct RefusedStep {
  uint8_t step;
  std::string_view name;
};
constexpr std::array kRefused = {
    RefusedStep{'i', "INST"},       RefusedStep{'o', "OBJ"},    RefusedStep{0x81, "NEWOBJ"},
    RefusedStep{0x92, "NEWOBJ_EX"}, RefusedStep{0x82, "EXT1"},  RefusedStep{0x83, "EXT2"},
    RefusedStep{0x84, "EXT4"},      RefusedStep{'P', "PERSID"}, RefusedStep{0x97, "NEXT_BUFFER"}};

enum class Kind : uint8_t { none, boolean, integer, real, text, tuple, list, dict, global, storage, tensor };
constexpr std::array<std::string_view, 11> kKindNames = {
    "None",   "a truth value", "a whole number", "a number",  "a text",  "a tuple",
    "a list", "a dictionary",  "a function",     "a storage", "a tensor"};

// One value; those that hold others name them by their place among all values, so that nothing is nested.
struct Value {
  Kind kind = Kind::none;
  std::string_view text;  // a text
  int64_t integer = 0;    // a number; of a global its row; otherwise the place in a list below
  size_t count = 0;       // of a tuple
};

struct Storage {
  std::string_view type;
  std::string_view key;
  uint64_t elements = 0;
};

class Machine {
 public:
  Machine(Bytes bytes, const std::string& where) : rest_(bytes), size_(bytes.size()), where_(where) {
    if (bytes.size() > kMostBytes)
      throw FileError(
          fmt::format("{}: expected at most {} bytes, found {}", where_, kMostBytes, bytes.size()));
  }

  std::vector<PickledTensor> run() {
    while (!step()) {
    }
    if (stack_.size() != 1 || !marks_.empty()) fail("end", "one value", std::to_string(stack_.size()));
    const Value& all = value(stack_.back());
    if (all.kind != Kind::dict) fail("content", "a dictionary of tensors", name_of(all));
    std::vector<PickledTensor> tensors;
    std::unordered_set<std::string_view> names;
    for (const auto& [key, held] : dicts_[place(all)]) {
      const Value& name = value(key);
      if (name.kind != Kind::text || name.text.empty() || name.text.size() > kMostNameBytes)
        fail("name of a tensor", fmt::format("a text of 1 to {} bytes", kMostNameBytes), name_of(name));
      const std::string label = fmt::format("tensor {}", printable(name.text));
      if (value(held).kind != Kind::tensor) fail(label, "a tensor", name_of(value(held)));
      if (!names.insert(name.text).second) fail(label, "one of this name", "two");
      tensors.push_back(tensors_[place(value(held))]);
      tensors.back().name = name.text;
    }
    return tensors;
  }

 private:
  using Id = uint32_t;  // of a value

  [[noreturn]] void fail(std::string_view field, std::string_view expected, std::string_view found) const {
    throw FileError(fmt::format("{}: {}: expected {}, found {}", where_, field, expected, found));
  }
  [[noreturn]] void fail_here(std::string_view expected, std::string_view found) const {
    fail(fmt::format("byte {}", size_ - rest_.size()), expected, found);
  }

  static std::string_view name_of(const Value& value) { return kKindNames[static_cast<size_t>(value.kind)]; }
  const Value& value(Id id) const { return values_[id]; }
  static size_t place(const Value& value) { return static_cast<size_t>(value.integer); }

  Bytes take(uint64_t count) {
    if (count > rest_.size()) fail_here(fmt::format("{} more bytes", count), std::to_string(rest_.size()));
    const Bytes taken = rest_.first(static_cast<size_t>(count));
    rest_ = rest_.subspan(static_cast<size_t>(count));
    return taken;
  }
  template <class Number>
  Number number() {
    return little_endian<Number>(take(sizeof(Number)));
  }
  std::string_view text(uint64_t count) {
    const Bytes taken = take(count);
    return {reinterpret_cast<const char*>(taken.data()), taken.size()};
  }
  std::string_view line() {
    const std::string_view all(reinterpret_cast<const char*>(rest_.data()), rest_.size());
    const size_t end = all.find('\n');
    if (end == std::string_view::npos) fail_here("the end of a line", "none");
    take(end + 1);
    return all.substr(0, end);
  }

  void push(const Value& value) {
    values_.push_back(value);
    stack_.push_back(static_cast<Id>(values_.size() - 1));
  }
  void push_integer(int64_t integer) { push({Kind::integer, {}, integer}); }
  Id pop() {
    if (stack_.size() <= floor()) fail_here("a value on the stack", "none");
    const Id id = stack_.back();
    stack_.pop_back();
    return id;
  }
  Value pop(Kind kind) {
    const Value& found = value(pop());
    if (found.kind != kind) fail_here(kKindNames[static_cast<size_t>(kind)], name_of(found));
    return found;
  }
  const Value& top(Kind kind) const {
    if (stack_.size() <= floor()) fail_here("a value on the stack", "none");
    const Value& found = value(stack_.back());
    if (found.kind != kind) fail_here(kKindNames[static_cast<size_t>(kind)], name_of(found));
    return found;
  }
  size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  // The values above the last mark, which are taken off with it.
  std::vector<Id> pop_marked() {
    if (marks_.empty()) fail_here("a mark on the stack", "none");
    std::vector<Id> taken(stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back()), stack_.end());
    stack_.resize(marks_.back());
    marks_.pop_back();
    return taken;
  }

  void push_tuple(std::span<const Id> ids) {
    push({Kind::tuple, {}, static_cast<int64_t>(items_.size()), ids.size()});
    items_.insert(items_.end(), ids.begin(), ids.end());
  }
  void pop_tuple(size_t count) {
    std::vector<Id> ids(count);
    for (size_t i = count; i-- > 0;) ids[i] = pop();
    push_tuple(ids);
  }
  std::span<const Id> items(const Value& tuple) const {
    return std::span(items_).subspan(place(tuple), tuple.count);
  }
  // Item i of a tuple, which must be of that kind.
  const Value& item(const Value& tuple, size_t i, Kind kind, std::string_view what) const {
    const Value& found = value(items(tuple)[i]);
    if (found.kind != kind)
      fail_here(fmt::format("{} as {}", kKindNames[static_cast<size_t>(kind)], what), name_of(found));
    return found;
  }
  uint64_t count_of(const Value& tuple, size_t i, std::string_view what) const {
    const Value& found = item(tuple, i, Kind::integer, what);
    if (found.integer < 0) fail_here(fmt::format("{} of at least 0", what), std::to_string(found.integer));
    return static_cast<uint64_t>(found.integer);
  }

  void remember(uint32_t place_in_memo) {
    if (stack_.size() <= floor()) fail_here("a value on the stack", "none");
    memo_[place_in_memo] = stack_.back();
  }
  void recall(uint32_t place_in_memo) {
    const auto found = memo_.find(place_in_memo);
    if (found == memo_.end()) fail_here("a remembered value", fmt::format("number {}", place_in_memo));
    stack_.push_back(found->second);
  }

  void push_global(std::string_view module, std::string_view name) {
    const auto found = std::find_if(kGlobals.begin(), kGlobals.end(), [&](const Global& each) {
      return each.module == module && each.name == name;
    });
    if (found == kGlobals.end())
      fail_here("only names that tensors need", fmt::format("{}.{}", printable(module), printable(name)));
    push({Kind::global, {}, found - kGlobals.begin()});
  }

  void push_dict() {
    push({Kind::dict, {}, static_cast<int64_t>(dicts_.size())});
    dicts_.emplace_back();
  }

  // ('storage', type, key, device, elements)
  void push_storage() {
    const Value tuple = pop(Kind::tuple);
    if (tuple.count != 5) fail_here("5 values that name a storage", std::to_string(tuple.count));
    if (item(tuple, 0, Kind::text, "kind of a persistent value").text != "storage")
      fail_here("a storage", fmt::format("\"{}\"", printable(value(items(tuple)[0]).text)));
    const Global& type = kGlobals[place(item(tuple, 1, Kind::global, "type of a storage"))];
    if (type.function != Function::storage) fail_here("a type of storages", type.name);
    const Storage storage{type.name, item(tuple, 2, Kind::text, "key of a storage").text,
                          count_of(tuple, 4, "elements of a storage")};
    push({Kind::storage, {}, static_cast<int64_t>(storages_.size())});
    storages_.push_back(storage);
  }

  std::vector<uint64_t> counts_in(const Value& tuple, std::string_view what) const {
    if (tuple.count > kMostRank)
      fail_here(fmt::format("at most {} values as {}", kMostRank, what), std::to_string(tuple.count));
    std::vector<uint64_t> counts;
    for (size_t i = 0; i < tuple.count; ++i) counts.push_back(count_of(tuple, i, what));
    return counts;
  }

  // (storage, offset, shape, strides, requires_grad, hooks[, metadata])
  void push_tensor(const Value& tuple) {
    if (tuple.count != 6 && tuple.count != 7)
      fail_here("6 values that make a tensor", std::to_string(tuple.count));
    const Storage& storage = storages_[place(item(tuple, 0, Kind::storage, "content of a tensor"))];
    PickledTensor tensor{
        {}, storage.type, storage.key, storage.elements, count_of(tuple, 1, "offset of a tensor"), {}, {}};
    tensor.shape = counts_in(item(tuple, 2, Kind::tuple, "shape of a tensor"), "shape");
    tensor.strides = counts_in(item(tuple, 3, Kind::tuple, "strides of a tensor"), "strides");
    if (tensor.strides.size() != tensor.shape.size())
      fail_here(fmt::format("{} strides", tensor.shape.size()), std::to_string(tensor.strides.size()));
    push({Kind::tensor, {}, static_cast<int64_t>(tensors_.size())});
    tensors_.push_back(std::move(tensor));
  }

  void reduce() {
    const Value arguments = pop(Kind::tuple);
    const Global& global = kGlobals[place(pop(Kind::global))];
    switch (global.function) {
      case Function::ordered_dict:
        if (arguments.count != 0) fail_here("an empty OrderedDict", "one with content");
        push_dict();
        break;
      case Function::rebuild_tensor:
        push_tensor(arguments);
        break;
      case Function::rebuild_parameter:
        if (arguments.count != 3)
          fail_here("3 values that make a parameter", std::to_string(arguments.count));
        item(arguments, 0, Kind::tensor, "content of a parameter");
        stack_.push_back(items(arguments)[0]);
        break;
      case Function::storage:
        fail_here("a function", fmt::format("{}.{}", global.module, global.name));
    }
  }

  void set_items(const std::vector<Id>& ids) {
    if (ids.size() % 2 != 0) fail_here("pairs of key and value", std::to_string(ids.size()));
    auto& dict = dicts_[place(top(Kind::dict))];
    for (size_t i = 0; i < ids.size(); i += 2) dict.emplace_back(ids[i], ids[i + 1]);
  }

  void push_long(size_t bytes) {
    if (bytes > sizeof(int64_t)) fail_here("a number of at most 64 bits", fmt::format("{} bytes", bytes));
    uint64_t bits = 0;
    const Bytes taken = take(bytes);
    for (size_t i = 0; i < bytes; ++i) bits |= std::to_integer<uint64_t>(taken[i]) << (8 * i);
    if (bytes > 0 && bytes < 8 && (taken[bytes - 1] & std::byte{0x80}) != std::byte{0})
      bits |= ~uint64_t{0} << (8 * bytes);
    push_integer(static_cast<int64_t>(bits));
  }

  [[noreturn]] void refuse(uint8_t step) const {
    const auto* const named = std::find_if(kRefused.begin(), kRefused.end(),
                                           [&](const RefusedStep& each) { return each.step == step; });
    fail_here("only steps that tensors need",
              named != kRefused.end() ? std::string(named->name) : fmt::format("step 0x{:02x}", step));
  }

  // One step; whether it was the last.
  bool step() {
    const auto code = number<uint8_t>();
    switch (code) {
      case kProto:
        if (const auto version = number<uint8_t>(); version > kLastProtocol)
          fail_here(fmt::format("a pickle of protocol {} or older", kLastProtocol), std::to_string(version));
        break;
      case kFrame:
        if (const auto frame = number<uint64_t>(); frame > rest_.size())
          fail_here(fmt::format("a frame within {} bytes", rest_.size()), std::to_string(frame));
        break;
      case kStop:
        return true;
      case kMark:
        marks_.push_back(stack_.size());
        break;
      case kNone:
        push({});
        break;
      case kNewTrue:
      case kNewFalse:
        push({Kind::boolean, {}, code == kNewTrue});
        break;
      case kBinInt:
        push_integer(number<int32_t>());
        break;
      case kBinInt1:
        push_integer(number<uint8_t>());
        break;
      case kBinInt2:
        push_integer(number<uint16_t>());
        break;
      case kLong1:
        push_long(number<uint8_t>());
        break;
      case kBinFloat:
        take(sizeof(double));
        push({Kind::real, {}, 0});
        break;
      case kBinUnicode:
        push({Kind::text, text(number<uint32_t>())});
        break;
      case kShortBinUnicode:
        push({Kind::text, text(number<uint8_t>())});
        break;
      case kEmptyDict:
        push_dict();
        break;
      case kEmptyList:
        push({Kind::list, {}});
        break;
      case kEmptyTuple:
        push_tuple({});
        break;
      case kTuple:
        push_tuple(pop_marked());
        break;
      case kTuple1:
      case kTuple2:
      case kTuple3:
        pop_tuple(size_t{code} - kTuple1 + 1);
        break;
      case kAppend:  // what lists hold is in no tensor
        pop();
        top(Kind::list);
        break;
      case kAppends:
        pop_marked();
        top(Kind::list);
        break;
      case kSetItem: {
        const Id held = pop(), key = pop();
        set_items({key, held});
        break;
      }
      case kSetItems: {
        set_items(pop_marked());
        break;
      }
      case kBinPut:
        remember(number<uint8_t>());
        break;
      case kLongBinPut:
        remember(number<uint32_t>());
        break;
      case kMemoize:
        remember(static_cast<uint32_t>(memo_.size()));
        break;
      case kBinGet:
        recall(number<uint8_t>());
        break;
      case kLongBinGet:
        recall(number<uint32_t>());
        break;
      case kGlobal: {
        const std::string_view module = line();
        push_global(module, line());
        break;
      }
      case kStackGlobal: {
        const Value name = pop(Kind::text), module = pop(Kind::text);
        push_global(module.text, name.text);
        break;
      }
      case kBinPersId:
        push_storage();
        break;
      case kReduce:
        reduce();
        break;
      case kBuild:  // attributes of the dictionary: versions of modules
        pop(Kind::dict);
        top(Kind::dict);
        break;
      default:
        refuse(code);
    }
    return false;
  }

  Bytes rest_;
  size_t size_;
  const std::string& where_;
  std::vector<Value> values_;
  std::vector<Id> stack_;
  std::vector<size_t> marks_;  // how high the stack was
  std::unordered_map<uint32_t, Id> memo_;
  std::vector<Id> items_;  // of all tuples
  std::vector<std::vector<std::pair<Id, Id>>> dicts_;
  std::vector<Storage> storages_;
  std::vector<PickledTensor> tensors_;
};

}  // namespace

std::vector<PickledTensor> read_tensor_pickle(std::span<const std::byte> bytes, const std::string& where) {
  return Machine(bytes, where).run();
}

}  // namespace tessera
