// One word in, token ids out: symbols for its bytes or characters, merging, and what stands in for the
// unknown.
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

// Encodes the words of one text. Remembers words it has met, so that common ones are merged once; forget()
// before the text they point into goes away. For one thread; the tokenizer is only read and must outlive it.
class BpeEncoder {
 public:
  explicit BpeEncoder(const StoredTokenizer& stored);
  // Appends the ids of a word as the pre-tokenizer cut it. Malformed UTF-8 is encoded byte by byte.
  void encode(std::string_view word, std::vector<uint32_t>& ids);
  // Lets the table go, too: cleared, it would keep the size that one long text gave it, and clearing it would
  // take as long for every short one after that.
  void forget() { KnownWords().swap(known_); }

 private:
  // part -> its ids' range in the output
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
  bool met_unknown_ = false;    // the part being encoded holds an unknown character
  bool after_unknown_ = false;  // the last id given for this word was the unknown token
  KnownWords known_;
};

}  // namespace tessera
