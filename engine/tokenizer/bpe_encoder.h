// Encodes one word: its bytes or characters become symbols, symbols are merged, and what the vocabulary lacks
// becomes byte tokens or the unknown token.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/tokenizer/bpe_merges.h"
#include "engine/tokenizer/stored_tokenizer.h"

namespace tessera {

// Encodes the words of one text. It caches words, so that each is merged once, and points into the text: call
// forget() before the text is destroyed. The tokenizer must outlive it. Not for use by several threads at
// once.
class BpeEncoder {
 public:
  explicit BpeEncoder(const StoredTokenizer& stored);
  // Appends the ids of a word as the pre-tokenizer cut it. Malformed UTF-8 is encoded byte by byte.
  void encode(std::string_view word, std::vector<uint32_t>& ids);
  // Empties the cache and frees its table. clear() would keep the table as large as one long text made it,
  // and would then take long for every short text.
  void forget() { KnownWords().swap(known_); }

 private:
  // From a part of a word to the first and last + 1 position of its ids in the output.
  using KnownWords = std::unordered_map<std::string_view, std::pair<size_t, size_t>>;

  void encode_part(std::string_view part, std::vector<uint32_t>& ids);
  void encode_bytes(std::string_view part, std::vector<uint32_t>& ids);
  void encode_characters(std::string_view part, std::vector<uint32_t>& ids);
  void append_bytes(std::string_view bytes);
  void emit(std::vector<uint32_t>& ids);
  void emit_unknown(std::vector<uint32_t>& ids);
  uint32_t character_symbol(uint32_t codepoint) const;
  uint32_t whole_word(std::string_view word) const;

  const StoredTokenizer* stored_;
  MergeTable table_;
  BpeMerger merger_;
  std::vector<uint32_t> symbols_;
  bool met_unknown_ = false;    // the part being encoded contains an unknown character
  bool after_unknown_ = false;  // the last id of this word so far is the unknown token
  KnownWords known_;
};

}  // namespace tessera
