#include "engine/tokenizer/bpe_encoder.h"

#include <algorithm>
#include <string>

#include "engine/tokenizer/utf8.h"

namespace tessera {

namespace {

constexpr size_t kMostKnownBytes = 64;  // longer words are rarely repeated
constexpr size_t kMostKnownWords = 1 << 16;
constexpr std::string_view kSpaceMark = "\u2581";

}  // namespace

BpeEncoder::BpeEncoder(const StoredTokenizer& stored)
    : stored_(&stored), table_(stored.merge_table()), merger_(table_) {}

void BpeEncoder::encode(std::string_view word, std::vector<uint32_t>& ids) {
  after_unknown_ = false;
  if (!stored_->rules.independent_words) {
    encode_part(word, ids);
    return;
  }
  // No merge crosses from another character to a space mark, so the word can be cut there: short parts take
  // less time to merge and are often in the cache.
  size_t begin = 0;
  for (size_t at = word.find(kSpaceMark); at != std::string_view::npos; at = word.find(kSpaceMark, at)) {
    const bool run =
        at >= kSpaceMark.size() && word.substr(at - kSpaceMark.size(), kSpaceMark.size()) == kSpaceMark;
    if (!run && at > begin) {
      encode_part(word.substr(begin, at - begin), ids);
      begin = at;
    }
    at += kSpaceMark.size();
  }
  if (begin < word.size()) encode_part(word.substr(begin), ids);
}

void BpeEncoder::encode_part(std::string_view part, std::vector<uint32_t>& ids) {
  const bool memorable = part.size() <= kMostKnownBytes;
  if (memorable) {
    const auto known = known_.find(part);
    if (known != known_.end()) {
      const auto [begin, end] = known->second;
      for (size_t i = begin; i < end; ++i) ids.push_back(uint32_t{ids[i]});
      if (end > begin) after_unknown_ = false;
      return;
    }
  }
  const size_t begin = ids.size();
  met_unknown_ = false;
  if (stored_->rules.byte_level) {
    encode_bytes(part, ids);
  } else {
    encode_characters(part, ids);
  }
  if (memorable && !met_unknown_ && known_.size() < kMostKnownWords)
    known_.emplace(part, std::make_pair(begin, ids.size()));
}

void BpeEncoder::encode_bytes(std::string_view part, std::vector<uint32_t>& ids) {
  if (stored_->rules.ignore_merges) {
    const uint32_t whole = whole_word(part);
    if (whole != kNoSymbol) {
      ids.push_back(whole);
      return;
    }
  }
  const auto bytes = stored_->characters.words();
  symbols_.clear();
  for (const char c : part) {
    const uint32_t symbol = bytes[static_cast<unsigned char>(c)];
    // A byte that the vocabulary lacks becomes the unknown token, or nothing where there is no such token.
    if (symbol != kNoSymbol || stored_->rules.unknown) symbols_.push_back(symbol);
  }
  merger_.merge(symbols_);
  emit(ids);
}

void BpeEncoder::encode_characters(std::string_view part, std::vector<uint32_t>& ids) {
  symbols_.clear();
  for (size_t at = 0; at < part.size();) {
    const Utf8Character character = read_utf8(part, at);
    if (character.state == Utf8Character::State::complete) {
      const uint32_t symbol = character_symbol(character.codepoint);
      if (symbol != kNoSymbol) {
        symbols_.push_back(symbol);
      } else {
        append_bytes(part.substr(at, character.length));
      }
    } else {
      for (size_t i = 0; i < character.length; ++i) append_bytes(part.substr(at + i, 1));
    }
    at += character.length;
  }
  merger_.merge(symbols_);
  emit(ids);
}

// Appends the byte tokens of a character that has no symbol, or kNoSymbol for an unknown character when one
// is missing.
void BpeEncoder::append_bytes(std::string_view bytes) {
  const auto tokens = stored_->byte_tokens.words();
  const bool fall_back = !tokens.empty() && std::all_of(bytes.begin(), bytes.end(), [&](char c) {
    return tokens[static_cast<unsigned char>(c)] != kNoSymbol;
  });
  if (fall_back) {
    for (const char c : bytes) symbols_.push_back(tokens[static_cast<unsigned char>(c)]);
  } else if (stored_->rules.unknown) {
    symbols_.push_back(kNoSymbol);
  }
}

void BpeEncoder::emit(std::vector<uint32_t>& ids) {
  const std::vector<uint32_t>& symbols = symbols_;
  const size_t count = symbols.size();
  for (size_t i = 0; i < count; ++i) {
    const uint32_t symbol = symbols[i];
    if (symbol == kNoSymbol) {
      emit_unknown(ids);
    } else if (symbol < stored_->vocabulary) {
      ids.push_back(symbol);
      after_unknown_ = false;
    } else {  // a character that only occurs inside pieces and was not merged into one
      std::string bytes;
      append_utf8(bytes, stored_->extra_codepoints[symbol - stored_->vocabulary]);
      append_bytes(bytes);  // after the merged symbols, in the same array
      for (size_t j = count; j < symbols_.size(); ++j) {
        if (symbols_[j] == kNoSymbol) {
          emit_unknown(ids);
        } else {
          ids.push_back(symbols_[j]);
          after_unknown_ = false;
        }
      }
      symbols_.resize(count);
    }
  }
}

void BpeEncoder::emit_unknown(std::vector<uint32_t>& ids) {
  met_unknown_ = true;
  if (!(after_unknown_ && stored_->rules.fuse_unknown)) ids.push_back(*stored_->rules.unknown);
  after_unknown_ = true;
}

uint32_t BpeEncoder::character_symbol(uint32_t codepoint) const {
  const auto words = stored_->characters.words();  // pairs, ascending by code point
  size_t begin = 0;
  size_t count = words.size() / 2;
  while (count > 0) {
    const size_t half = count / 2;
    if (words[2 * (begin + half)] < codepoint) {
      begin += half + 1;
      count -= half + 1;
    } else {
      count = half;
    }
  }
  if (2 * begin >= words.size() || words[2 * begin] != codepoint) return kNoSymbol;
  return words[2 * begin + 1];
}

uint32_t BpeEncoder::whole_word(std::string_view word) const {
  const auto ids = stored_->sorted_words.words();
  const auto found =
      std::lower_bound(ids.begin(), ids.end(), word,
                       [&](uint32_t id, std::string_view wanted) { return stored_->piece(id) < wanted; });
  return found != ids.end() && stored_->piece(*found) == word ? *found : kNoSymbol;
}

}  // namespace tessera
