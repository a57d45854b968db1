// A tokenizer as arrays. Opening a .tess file checks them; encode and decode read them where they are mapped.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "engine/tokenizer/bpe_merges.h"
#include "engine/tokenizer/tokenizer_definition.h"

namespace tessera {

// 32-bit words of a file: a view of the bytes when they are aligned, otherwise a copy.
class WordArray {
 public:
  WordArray() = default;
  explicit WordArray(std::span<const std::byte> bytes);
  WordArray(WordArray&&) noexcept = default;
  WordArray& operator=(WordArray&&) noexcept = default;
  std::span<const uint32_t> words() const { return words_; }

 private:
  std::vector<uint32_t> copy_;
  std::span<const uint32_t> words_;
};

struct StoredTokenizer {
  TokenizerRules rules;
  size_t vocabulary = 0;
  std::string_view pieces;  // "tokenizer.pieces": the bytes of all pieces in order of id
  WordArray offsets;        // "tokenizer.offsets" [vocabulary + 1]: the first byte of each piece, and the end
  WordArray merge_first;    // "tokenizer.merge_first" [symbols + 1]
  WordArray merges;         // "tokenizer.merges" [3 · merges]: right, rank, result
  WordArray characters;     // "tokenizer.characters": [256] symbols by byte, or pairs (code point, symbol)
  WordArray byte_tokens;    // "tokenizer.byte_tokens" [256], absent without byte fallback
  WordArray sorted_words;   // "tokenizer.sorted_words": ids in the order of their bytes (ignore_merges)

  std::vector<uint32_t> extra_codepoints;  // code points of the symbols that follow the last piece

  std::string_view piece(uint32_t id) const {  // id < vocabulary
    const auto at = offsets.words();
    return pieces.substr(at[id], at[id + 1] - at[id]);
  }
  MergeTable merge_table() const { return {merge_first.words(), merges.words()}; }
};

// Reads a stored tokenizer and checks the sizes and ranges of all arrays and settings. The result points into
// the tensors' bytes. Throws FileError naming the field.
StoredTokenizer read_stored_tokenizer(const TokenizerSettings& settings,
                                      std::span<const StoredTensor> tensors);

}  // namespace tessera
