// Writes GGUF files for tests, right ones and, with other numbers in their places, wrong ones.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gguf-like-format/gguf/blocks.h"
#include "gguf-like-format/gguf/gguf_metadata.h"

namespace tessera::crafted {

template <class T>
std::string raw(T value) {
  std::string bytes(sizeof(T), '\0');
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}

inline std::string gguf_string(std::string_view text) {
  return raw(uint64_t{text.size()}) + std::string(text);
}

// The bytes of a value with its type.
inline std::string typed(GgufType type, std::string_view bytes) {
  return raw(static_cast<uint32_t>(type)) + std::string(bytes);
}

struct GgufText {
  std::string key;
  std::string value;  // typed
};

struct GgufTensorText {
  std::string name;
  std::vector<uint64_t> dimensions;  // columns first, as in files
  uint32_t type = 0;
  std::string data;
  std::optional<uint64_t> offset;  // where it is said to lie; otherwise where it does
};

class GgufWriter {
 public:
  uint32_t version = 3;
  uint64_t alignment = 32;
  std::optional<uint64_t> tensor_count, key_count;  // said instead of the right ones
  std::vector<GgufText> keys;
  std::vector<GgufTensorText> tensors;

  void set(const std::string& key, std::string value) {
    for (GgufText& each : keys) {
      if (each.key != key) continue;
      each.value = std::move(value);
      return;
    }
    keys.push_back({key, std::move(value)});
  }
  void u32(const std::string& key, uint32_t value) { set(key, typed(GgufType::u32, raw(value))); }
  void f32(const std::string& key, float value) { set(key, typed(GgufType::f32, raw(value))); }
  void boolean(const std::string& key, bool value) { set(key, typed(GgufType::boolean, raw(value))); }
  void text(const std::string& key, std::string_view value) {
    set(key, typed(GgufType::string, gguf_string(value)));
  }
  void texts(const std::string& key, const std::vector<std::string>& values) {
    std::string items;
    for (const std::string& value : values) items += gguf_string(value);
    set(key, array(GgufType::string, values.size(), items));
  }
  void integers(const std::string& key, const std::vector<int32_t>& values) {
    std::string items;
    for (const int32_t value : values) items += raw(value);
    set(key, array(GgufType::i32, values.size(), items));
  }
  void numbers(const std::string& key, const std::vector<float>& values) {
    std::string items;
    for (const float value : values) items += raw(value);
    set(key, array(GgufType::f32, values.size(), items));
  }
  void remove(const std::string& key) {
    std::erase_if(keys, [&](const GgufText& each) { return each.key == key; });
  }
  void remove_tensor(const std::string& name) {
    std::erase_if(tensors, [&](const GgufTensorText& each) { return each.name == name; });
  }
  GgufTensorText* find_tensor(const std::string& name) {
    for (GgufTensorText& each : tensors)
      if (each.name == name) return &each;
    return nullptr;
  }

  static std::string array(GgufType type, uint64_t count, std::string_view items) {
    return typed(GgufType::array, raw(static_cast<uint32_t>(type)) + raw(count) + std::string(items));
  }

  std::string file() const {
    std::string out = "GGUF" + raw(version) + raw(tensor_count.value_or(tensors.size())) +
                      raw(key_count.value_or(keys.size()));
    for (const GgufText& each : keys) out += gguf_string(each.key) + each.value;
    std::string data;
    for (const GgufTensorText& each : tensors) {
      data.resize((data.size() + alignment - 1) / alignment * alignment, '\0');
      out += gguf_string(each.name) + raw(static_cast<uint32_t>(each.dimensions.size()));
      for (const uint64_t dimension : each.dimensions) out += raw(dimension);
      out += raw(each.type) + raw(each.offset.value_or(data.size()));
      data += each.data;
    }
    out.resize((out.size() + alignment - 1) / alignment * alignment, '\0');
    return out + data;
  }
};

}  // namespace tessera::crafted
