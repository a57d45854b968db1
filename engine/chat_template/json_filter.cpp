#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "engine/chat_template/builtins.h"
#include "engine/chat_template/characters.h"

namespace tessera::jinja {

namespace {

class JsonWriter {
 public:
  JsonWriter(Budget& budget, const JsonStyle& style) : style_(style), out_(budget) {}

  Value run(const Value& value) {
    write(value, 0);
    return std::move(out_).value();
  }

 private:
  void write(const Value& value, size_t level) {
    const Budget::Level walked(out_.budget());
    out_.budget().spend(1);
    if (const String* string = value.string()) {
      write_string(*string);
    } else if (const List* list = value.list()) {
      out_.append("[");
      for (size_t i = 0; i < list->items.size(); ++i) {
        if (i > 0) out_.append(*style_.item_separator.string());
        new_line(level + 1);
        write(list->items[i], level + 1);
      }
      if (!list->items.empty()) new_line(level);
      out_.append("]");
    } else if (const Dict* dict = value.dict()) {
      write_dict(*dict, level);
    } else {
      out_.append(scalar(value));
    }
  }

  void write_dict(const Dict& dict, size_t level) {
    std::vector<const std::pair<Value, Value>*> entries;
    for (const auto& entry : dict.entries) entries.push_back(&entry);
    if (style_.sort_keys) {
      std::stable_sort(entries.begin(), entries.end(), [this](const auto* a, const auto* b) {
        bool ordered = true;
        return compare(out_.budget(), a->first, b->first, ordered) < 0 && ordered;
      });
    }
    out_.append("{");
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) out_.append(*style_.item_separator.string());
      new_line(level + 1);
      const Value& key = entries[i]->first;
      if (const String* string = key.string()) {
        write_string(*string);
      } else if (key.list() != nullptr || key.dict() != nullptr) {
        fail(fmt::format("tojson: {} cannot be a key", described(key)));
      } else {
        out_.append("\"" + scalar(key) + "\"");
      }
      out_.append(*style_.key_separator.string());
      write(entries[i]->second, level + 1);
    }
    if (!entries.empty()) new_line(level);
    out_.append("}");
  }

  static std::string scalar(const Value& value) {
    if (value.is_none()) return "null";
    if (const bool* truth = value.get<bool>()) return *truth ? "true" : "false";
    if (const int64_t* integer = value.get<int64_t>()) return fmt::format("{}", *integer);
    if (const double* number = value.get<double>()) {
      if (std::isnan(*number)) return "NaN";
      if (std::isinf(*number)) return *number < 0 ? "-Infinity" : "Infinity";
      return float_text(*number);
    }
    fail(fmt::format("tojson: {} has no JSON form", described(value)));
  }

  void new_line(size_t level) {
    if (!style_.indent) return;
    out_.append("\n");
    for (size_t i = 0; i < level; ++i) out_.append(*style_.indent->string());
  }

  void write_string(const String& string) {
    const std::string_view text = string.text;
    out_.append("\"");
    std::string quoted;
    for (size_t position = 0; position < text.size();) {
      const Character next = character_at(text, position);
      const char first = text[position];
      if (first == '"' || first == '\\') {
        quoted += '\\';
        quoted += first;
      } else if (next.code < 0x20) {
        quoted += escape_control(next.code);
      } else if (style_.ascii && next.code >= 0x7F) {
        quoted += escape_wide(next.code);
      } else {
        quoted += text.substr(position, next.bytes);
      }
      position += next.bytes;
      if (quoted.size() > 4096) {
        out_.append_changed(string, quoted);
        quoted.clear();
      }
    }
    out_.append_changed(string, quoted);
    out_.append("\"");
  }

  static std::string escape_control(uint32_t code) {
    switch (code) {
      case '\n':
        return "\\n";
      case '\r':
        return "\\r";
      case '\t':
        return "\\t";
      case '\b':
        return "\\b";
      case '\f':
        return "\\f";
      default:
        return fmt::format("\\u{:04x}", code);
    }
  }

  static std::string escape_wide(uint32_t code) {
    if (code == kNoCharacter) code = 0xFFFD;
    if (code < 0x10000) return fmt::format("\\u{:04x}", code);
    const uint32_t rest = code - 0x10000;
    return fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (rest >> 10), 0xDC00 + (rest & 0x3FF));
  }

  const JsonStyle& style_;
  TextBuilder out_;
};

}  // namespace

Value to_json(Budget& budget, const Value& value, const JsonStyle& style) {
  return JsonWriter(budget, style).run(value);
}

}  // namespace tessera::jinja
