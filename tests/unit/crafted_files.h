// Small model files for tests of readers: a valid one, the parts to craft broken ones from, and folders that
// vanish when a test ends.
#pragma once

#include <fmt/format.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gguf-like-format/file_error.h"
#include "gguf-like-format/model_header.h"
#include "gguf-like-format/scheme.h"
#include "gguf-like-format/tess/tess_file.h"
#include "gguf-like-format/tess/tess_writer.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera::crafted {

// A new folder below the system's temporary one, removed with all it holds.
class Folder {
 public:
  Folder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "tessera-test-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no temporary folder");
    path_ = pattern;
  }
  ~Folder() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(std::string_view name) const { return path_ + "/" + std::string(name); }
  size_t entries() const {
    return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(path_), {}));
  }

 private:
  std::string path_;
};

inline void write_file(const std::string& path, std::string_view content) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(content.data(), static_cast<std::streamsize>(content.size()));
  if (!out) throw std::runtime_error("cannot write " + path);
}

inline std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// The line of the FileError that action throws; empty when it throws none.
template <typename Action>
std::string refusal(Action&& action) {
  try {
    action();
  } catch (const FileError& error) {
    return error.what();
  }
  return {};
}

inline bool contains(const std::string& line, std::string_view part) {
  return line.find(part) != std::string::npos;
}

// One line without control characters that names the file.
inline bool well_formed(const std::string& line, std::string_view file) {
  return contains(line, file) &&
         std::none_of(line.begin(), line.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20; });
}

// Bytes at an address that from_memory accepts.
class AlignedBytes {
 public:
  explicit AlignedBytes(std::string_view content) : lines_(content.size() / 64 + 1), size_(content.size()) {
    if (size_ != 0) std::memcpy(lines_.data(), content.data(), size_);
  }
  std::span<const std::byte> bytes() const { return std::as_bytes(std::span(lines_)).first(size_); }

 private:
  struct alignas(64) Line {
    std::array<char, 64> bytes;
  };
  std::vector<Line> lines_;
  size_t size_;
};

inline ModelHeader small_header() {
  ModelHeader header;
  header.name = "small";
  Hyperparameters& h = header.hyperparameters;
  h.family = "llama";
  h.vocabulary = 40;
  h.hidden = 24;
  h.layers = 1;
  h.query_heads = 2;
  h.kv_heads = 1;
  h.head_dim = 8;
  h.ffn = 20;
  h.context = 128;
  h.tied_head = true;
  h.qkv_bias = true;
  h.output_bias = true;
  h.rope_scaling = {RopeScalingKind::llama3, 8.0, 1.0, 4.0, 64};
  header.quantization = {"w4a8-g128", "w8a8", 8, "", "0.1.0", "tessera quantize small"};
  header.tokenizer = {"byte-bpe", R"({"bos":1})"};
  header.chat = {"{{ messages[0].content }}", {1, 39}};
  header.generation.temperature = 0.7;
  header.generation.top_k = 40;
  header.generation.do_sample = true;
  return header;
}

inline std::vector<PlannedTensor> small_tensors() {
  return {{"token_embedding", Scheme::w8a8, {40, 24}},    {"output_norm", Scheme::f32, {24}},
          {"layers.0.attention_norm", Scheme::f32, {24}}, {"layers.0.q", Scheme::w4a8, {16, 24}},
          {"layers.0.k", Scheme::w4a8_g128, {8, 24}},     {"layers.0.v", Scheme::f16, {8, 24}},
          {"layers.0.o", Scheme::bf16, {24, 16}},         {"layers.0.q_bias", Scheme::f32, {16}},
          {"layers.0.k_bias", Scheme::f32, {8}},          {"layers.0.v_bias", Scheme::f32, {8}},
          {"layers.0.o_bias", Scheme::f32, {24}},         {"layers.0.ffn_norm", Scheme::f32, {24}},
          {"layers.0.gate", Scheme::f32, {20, 24}},       {"layers.0.up", Scheme::w4a8_g128, {20, 24}},
          {"layers.0.down", Scheme::w8a8, {24, 20}},      {"tokenizer.offsets", Scheme::u32, {41}},
          {"tokenizer.pieces", Scheme::u8, {99}}};
}

// Random bytes with scales, zero points and offsets inside their bounds; row 0 is all zero with scale 0.
inline std::string tensor_content(const PlannedTensor& tensor, std::mt19937_64& random) {
  const auto size = static_cast<size_t>(stored_bytes(tensor.scheme, tensor.shape).value());
  std::string out(size, '\0');
  for (char& c : out) c = static_cast<char>(random());
  if (tensor.shape.size() != 2 || activation_type(tensor.scheme) != ActivationType::int8) return out;
  const auto rows = static_cast<size_t>(tensor.shape[0]);
  const auto columns = static_cast<size_t>(tensor.shape[1]);
  const RowTail tail = row_tail(tensor.scheme, rows, columns);
  const size_t padded = padded_columns(tensor.scheme, columns);
  for (size_t row = 0; row < tile::round_up(rows, tile::kPanelRows); ++row) {
    const float scale = row == 0 ? 0.0f : 0.001f * static_cast<float>(1 + random() % 1000);
    std::memcpy(&out[tail.scales + 4 * row], &scale, 4);
    if (tensor.scheme == Scheme::w4a8)
      out[tail.zeros + row] = static_cast<char>(row == 0 ? 0 : random() % 16);
    if (tensor.scheme == Scheme::w4a8_g128) {
      const size_t panel = row / tile::kPanelRows * panel_bytes(tensor.scheme, columns);
      for (size_t group = 0; group < padded / tile::kGroupColumns; ++group) {
        const size_t in_panel = row % tile::kPanelRows;
        const uint64_t s1 = row == 0 ? 1 : 1 + random() % 16;
        const uint64_t most = std::min<uint64_t>(128, 255 - 15 * s1);  // no code may exceed a byte
        out[panel + tile::group_scale_byte(in_panel, group)] = static_cast<char>(s1);
        out[panel + tile::group_offset_byte(in_panel, group)] =
            static_cast<char>(row == 0 ? 128 : 1 + random() % most);
      }
    }
  }
  for (size_t column = 0; column < padded; ++column) {  // row 0
    if (tensor.scheme == Scheme::w8a8) {
      out[tile::byte_in_panel(0, column)] = static_cast<char>(128);
      continue;
    }
    const tile::Nibble nibble = tensor.scheme == Scheme::w4a8 ? tile::nibble_in_panel(0, column)
                                                              : tile::nibble_in_grouped_panel(0, column);
    char& byte = out[nibble.byte];
    byte = static_cast<char>(byte & (nibble.high ? 0x0f : 0xf0));
  }
  return out;
}

// Writes the small model and returns the content of its file.
inline std::string small_file(const std::string& path, uint64_t seed) {
  std::mt19937_64 random(seed);
  TessWriter writer(path, small_header(), small_tensors());
  for (const PlannedTensor& tensor : small_tensors()) {
    const std::string content = tensor_content(tensor, random);
    writer.write(std::as_bytes(std::span(content)));
  }
  writer.finish();
  return read_file(path);
}

template <typename T>
T get_field(const std::string& file, size_t offset) {
  T value;
  std::memcpy(&value, file.data() + offset, sizeof(T));
  return value;
}

template <typename T>
void put_field(std::string& file, size_t offset, T value) {
  std::memcpy(file.data() + offset, &value, sizeof(T));
}

// Makes the fixed fields agree with the file's size and header again, as far as there is a header.
inline void repair(std::string& file) {
  if (file.size() < 64) return;
  put_field<uint64_t>(file, 24, file.size());
  const auto header = get_field<uint64_t>(file, 16);
  if (header <= file.size() - 64) put_field<uint64_t>(file, 32, XXH64(file.data() + 64, header, 0));
}

inline nlohmann::ordered_json header_of(const std::string& file) {
  return nlohmann::ordered_json::parse(file.substr(64, get_field<uint64_t>(file, 16)));
}

// The file with another header text and everything else consistent, as long as the text ends before byte
// 4096; a longer one moves the tensors away from their offsets.
inline std::string with_header(const std::string& file, const std::string& text) {
  std::string out = file.substr(0, 64) + text;
  out.resize(tile::round_up(out.size(), 4096), '\0');
  out += file.substr(4096);
  put_field<uint64_t>(out, 16, text.size());
  repair(out);
  return out;
}

}  // namespace tessera::crafted
