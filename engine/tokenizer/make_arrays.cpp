// Makes the arrays of a .tess file from the definition of a tokenizer.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <unordered_map>

#include "engine/tokenizer/bpe_merges.h"
#include "engine/tokenizer/tokenizer_definition.h"
#include "engine/tokenizer/utf8.h"
#include "gguf-like-format/file_error.h"

namespace tessera {

namespace {

using nlohmann::json;

constexpr size_t kMostPieceBytes = 1024;  // merges_from_pieces tries every way to split a piece

json settings_of(const TokenizerDefinition& definition) {
  const TokenizerRules& rules = definition.rules;
  json settings;
  settings["vocabulary"] = definition.pieces.size();
  settings["ignore_merges"] = rules.ignore_merges;
  settings["fuse_unknown"] = rules.fuse_unknown;
  settings["independent_words"] = rules.independent_words;
  settings["strip_leading_space"] = rules.strip_leading_space;
  settings["adds_bos"] = rules.adds_bos;
  if (rules.unknown) settings["unknown"] = *rules.unknown;
  if (rules.bos) settings["bos"] = *rules.bos;
  if (rules.eos) settings["eos"] = *rules.eos;
  settings["roles"] = rules.roles;
  settings["added"] = json::array();
  for (const AddedToken& token : rules.added) {
    json entry{{"id", token.id}, {"content", token.content}};
    if (token.pattern != token.content) entry["pattern"] = token.pattern;
    if (token.special) entry["special"] = true;
    if (token.normalized) entry["normalized"] = true;
    if (token.left_strip) entry["left_strip"] = true;
    if (token.right_strip) entry["right_strip"] = true;
    if (token.single_word) entry["single_word"] = true;
    settings["added"].push_back(std::move(entry));
  }
  settings["normalizer"] = json::array();
  for (const NormalizerStep& step : rules.normalizer) {
    json entry{{"kind", kNormalizerNames[static_cast<size_t>(step.kind)]}};
    if (!step.text.empty()) entry["text"] = step.text;
    if (step.kind == NormalizerStep::Kind::replace) entry["replacement"] = step.replacement;
    settings["normalizer"].push_back(std::move(entry));
  }
  settings["pre_tokenizer"] = json::array();
  for (const PreTokenizerStep& step : rules.pre_tokenizer) {
    json entry{{"kind", kPreTokenizerNames[static_cast<size_t>(step.kind)]}};
    if (!step.text.empty()) entry["text"] = step.text;
    if (step.kind == PreTokenizerStep::Kind::replace) entry["replacement"] = step.replacement;
    if (step.kind <= PreTokenizerStep::Kind::split_digits) {
      entry["behavior"] = kSplitBehaviorNames[static_cast<size_t>(step.behavior)];
      if (step.invert) entry["invert"] = true;
    }
    settings["pre_tokenizer"].push_back(std::move(entry));
  }
  return settings;
}

// Whether words can be merged separately: no merge joins the end of a word with the U+2581 that begins the
// next one (in decoded pieces it is a space).
bool words_are_independent(const TokenizerDefinition& definition) {
  if (definition.rules.byte_level) return false;
  const size_t vocabulary = definition.pieces.size();
  for (const auto& [codepoint, symbol] : definition.characters)
    if (codepoint == 0x2581 && symbol >= vocabulary)
      return false;  // not a piece, so merges cannot be checked
  const auto piece = [&](uint32_t symbol) {
    return symbol < vocabulary ? std::string_view(definition.pieces[symbol]) : std::string_view("?");
  };
  const auto begins_word = [](std::string_view text) {
    return text.substr(0, 1) == " " || text.substr(0, 3) == "\u2581";
  };
  const auto ends_in_space = [](std::string_view text) {
    return !text.empty() &&
           (text.back() == ' ' || (text.size() >= 3 && text.substr(text.size() - 3) == "\u2581"));
  };
  return std::all_of(definition.merges.begin(), definition.merges.end(), [&](const MergeRule& merge) {
    return !begins_word(piece(merge.right)) || ends_in_space(piece(merge.left));
  });
}

}  // namespace

void merges_from_pieces(TokenizerDefinition& definition, const std::vector<std::string>& texts,
                        const std::vector<uint32_t>& ranks) {
  std::unordered_map<std::string_view, uint32_t> symbols;
  size_t longest = 0;
  for (size_t id = 0; id < texts.size(); ++id) {
    if (ranks[id] == kNoSymbol) continue;
    if (texts[id].size() > kMostPieceBytes)
      throw FileError(fmt::format("{}: piece {}: expected at most {} bytes, found {}", definition.where, id,
                                  kMostPieceBytes, texts[id].size()));
    const auto [entry, inserted] = symbols.emplace(texts[id], static_cast<uint32_t>(id));
    if (!inserted)
      throw FileError(fmt::format("{}: piece {}: \"{}\" is also piece {}", definition.where, id,
                                  printable(texts[id]), entry->second));
    longest = std::max(longest, texts[id].size());
  }
  const bool bytes = definition.rules.byte_level;
  const auto character_length = [&](std::string_view text, size_t at) {
    return bytes ? size_t{1} : size_t{read_utf8(text, at).length};
  };
  const auto codepoint = [&](std::string_view text) {
    return bytes ? uint32_t{static_cast<unsigned char>(text[0])} : read_utf8(text, 0).codepoint;
  };
  for (size_t id = 0; id < texts.size(); ++id) {
    if (ranks[id] == kNoSymbol || texts[id].empty()) continue;
    const std::string_view text = texts[id];
    if (character_length(text, 0) == text.size())
      definition.characters.emplace_back(codepoint(text), static_cast<uint32_t>(id));
  }
  for (size_t id = 0; id < texts.size() && !bytes; ++id) {
    if (ranks[id] == kNoSymbol) continue;
    const std::string_view text = texts[id];
    for (size_t at = 0; at < text.size(); at += character_length(text, at)) {
      const std::string_view character = text.substr(at, character_length(text, at));
      const auto symbol = static_cast<uint32_t>(definition.pieces.size() + definition.extra_symbols);
      if (!symbols.emplace(character, symbol).second) continue;
      definition.characters.emplace_back(codepoint(character), symbol);
      ++definition.extra_symbols;
    }
  }
  for (size_t id = 0; id < texts.size(); ++id) {
    if (ranks[id] == kNoSymbol) continue;
    const std::string_view text = texts[id];
    for (size_t cut = 0; (cut += text.empty() ? 1 : character_length(text, cut)) < text.size();) {
      const auto left = symbols.find(text.substr(0, cut));
      if (left == symbols.end()) continue;
      const auto right = symbols.find(text.substr(cut));
      if (right == symbols.end()) continue;
      definition.merges.push_back({left->second, right->second, ranks[id], static_cast<uint32_t>(id)});
    }
  }
}

TokenizerArrays make_arrays(TokenizerDefinition definition) {
  definition.rules.independent_words = words_are_independent(definition);
  TokenizerArrays arrays;
  arrays.settings.kind = definition.rules.byte_level ? "byte-bpe" : "sentencepiece-bpe";
  arrays.settings.settings_json = settings_of(definition).dump();

  std::vector<uint8_t> pieces;
  std::vector<uint32_t> offsets{0};
  offsets.reserve(definition.pieces.size() + 1);
  for (const std::string& piece : definition.pieces) {
    pieces.insert(pieces.end(), piece.begin(), piece.end());
    if (pieces.size() > kNoSymbol / 2) throw FileError("vocabulary: expected at most 2 GiB of text");
    offsets.push_back(static_cast<uint32_t>(pieces.size()));
  }
  if (pieces.empty()) throw FileError("vocabulary: no piece has any text");

  const size_t symbols = definition.pieces.size() + definition.extra_symbols;
  auto& merges = definition.merges;
  std::stable_sort(merges.begin(), merges.end(), [](const MergeRule& a, const MergeRule& b) {
    return a.left != b.left ? a.left < b.left : a.right < b.right;
  });
  std::vector<uint32_t> merge_first(symbols + 1, 0);
  std::vector<uint32_t> entries;
  entries.reserve(3 * merges.size());
  for (size_t i = 0; i < merges.size(); ++i) {
    const MergeRule& merge = merges[i];
    if (i + 1 < merges.size() && merges[i + 1].left == merge.left && merges[i + 1].right == merge.right)
      continue;
    entries.insert(entries.end(), {merge.right, merge.rank, merge.result});
    ++merge_first[merge.left + 1];
  }
  for (size_t i = 1; i < merge_first.size(); ++i) merge_first[i] += merge_first[i - 1];

  std::vector<uint32_t> characters;
  if (definition.rules.byte_level) {
    characters.assign(256, kNoSymbol);
    for (const auto& [byte, symbol] : definition.characters) characters[byte] = symbol;
  } else {
    std::sort(definition.characters.begin(), definition.characters.end());
    for (const auto& [codepoint, symbol] : definition.characters)
      characters.insert(characters.end(), {codepoint, symbol});
  }
  std::vector<uint32_t> words;
  if (definition.rules.ignore_merges) {
    words = std::move(definition.whole_words);
    std::sort(words.begin(), words.end(),
              [&](uint32_t a, uint32_t b) { return definition.pieces[a] < definition.pieces[b]; });
  }

  arrays.byte_tensors.emplace_back("tokenizer.pieces", std::move(pieces));
  const auto add = [&](const char* name, std::vector<uint32_t> values) {  // a tensor cannot be empty
    if (!values.empty()) arrays.word_tensors.emplace_back(name, std::move(values));
  };
  add("tokenizer.offsets", std::move(offsets));
  if (!entries.empty()) add("tokenizer.merge_first", std::move(merge_first));
  add("tokenizer.merges", std::move(entries));
  add("tokenizer.characters", std::move(characters));
  add("tokenizer.byte_tokens", std::move(definition.byte_tokens));
  add("tokenizer.sorted_words", std::move(words));
  return arrays;
}

}  // namespace tessera
