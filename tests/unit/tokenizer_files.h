// Small tokenizer files for the tokenizer tests.
#pragma once

#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <bit>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "engine/tokenizer/byte_alphabet.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/utf8.h"

namespace tokenizer_files {

// A folder with the given files, which the destructor removes.
class Folder {
 public:
  explicit Folder(const std::vector<std::pair<std::string, std::string>>& files) {
    static std::atomic<unsigned> count{0};
    path_ =
        std::filesystem::temp_directory_path() / fmt::format("tessera-tokenizer-{}-{}", ::getpid(), count++);
    std::filesystem::create_directories(path_);
    for (const auto& [name, content] : files) std::ofstream(path_ / name, std::ios::binary) << content;
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

inline tessera::Tokenizer load(const std::vector<std::pair<std::string, std::string>>& files) {
  return tessera::Tokenizer::from_folder(Folder(files).path());
}

// Bytes as a vocabulary file spells them.
inline std::string spell(const std::string& bytes) {
  std::string text;
  for (const char c : bytes)
    tessera::append_utf8(text, tessera::byte_character(static_cast<unsigned char>(c)));
  return text;
}

// A byte-level tokenizer.json: the 256 bytes as ids 0 … 255, then one piece per merge, then the added tokens.
inline nlohmann::json byte_level_document(const std::vector<std::pair<std::string, std::string>>& merges,
                                          const std::vector<std::string>& special = {"<|end|>"}) {
  nlohmann::json vocabulary = nlohmann::json::object();
  for (uint32_t byte = 0; byte < 256; ++byte)
    vocabulary[spell(std::string(1, static_cast<char>(static_cast<unsigned char>(byte))))] = byte;
  nlohmann::json list = nlohmann::json::array();
  for (const auto& [left, right] : merges) {
    const std::string joined = spell(left + right);
    if (!vocabulary.contains(joined)) {
      const size_t id = vocabulary.size();
      vocabulary[joined] = id;
    }
    list.push_back({spell(left), spell(right)});
  }
  nlohmann::json added = nlohmann::json::array();
  for (const std::string& content : special)
    added.push_back({{"id", vocabulary.size() + added.size()},
                     {"content", content},
                     {"special", true},
                     {"normalized", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"single_word", false}});
  return {{"version", "1.0"},
          {"added_tokens", added},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}},
          {"post_processor", nullptr},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", list}}}};
}

// Protocol buffer pieces of a SentencePiece model.
inline std::string varint(uint64_t value) {
  std::string bytes;
  while (value >= 0x80) {
    bytes += static_cast<char>(static_cast<unsigned char>(value | 0x80));
    value >>= 7;
  }
  return bytes + static_cast<char>(static_cast<unsigned char>(value));
}
inline std::string number_field(uint32_t field, uint64_t value) {
  return varint(uint64_t{field} << 3) + varint(value);
}
inline std::string bytes_field(uint32_t field, const std::string& bytes) {
  return varint(uint64_t{field} << 3 | 2) + varint(bytes.size()) + bytes;
}
inline std::string float_field(uint32_t field, float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  std::string bytes = varint(uint64_t{field} << 3 | 5);
  for (uint32_t shift = 0; shift < 32; shift += 8)
    bytes += static_cast<char>(static_cast<unsigned char>(bits >> shift));
  return bytes;
}

enum PieceType : uint64_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

struct Piece {
  std::string text;
  float score = 0;
  PieceType type = kNormal;
};

struct ModelOptions {
  bool byte_fallback = true;
  bool dummy_prefix = true;
  bool remove_extra_whitespaces = false;
  bool escape_whitespaces = true;
};

inline std::string piece_field(const Piece& piece) {
  return bytes_field(1,
                     bytes_field(1, piece.text) + float_field(2, piece.score) + number_field(3, piece.type));
}

inline std::string sentencepiece_model(const std::vector<Piece>& pieces, const ModelOptions& options = {}) {
  std::string model;
  for (const Piece& piece : pieces) model += piece_field(piece);
  model += bytes_field(2, number_field(3, 2) + number_field(35, options.byte_fallback) + number_field(40, 0) +
                              number_field(41, 1) + number_field(42, 2));
  model += bytes_field(3, number_field(3, options.dummy_prefix) +
                              number_field(4, options.remove_extra_whitespaces) +
                              number_field(5, options.escape_whitespaces));
  return model;
}

// The pieces with which every such model begins: <unk>, <s>, </s> and, for byte fallback, the 256 bytes.
inline std::vector<Piece> first_pieces(bool bytes = true) {
  std::vector<Piece> pieces{{"<unk>", 0, kUnknown}, {"<s>", 0, kControl}, {"</s>", 0, kControl}};
  for (unsigned byte = 0; bytes && byte < 256; ++byte)
    pieces.push_back({fmt::format("<0x{:02X}>", byte), 0, kByte});
  return pieces;
}

}  // namespace tokenizer_files
