#include "engine/tokenizer/stored_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <set>

#include "gguf-like-format/file_error.h"
#include "gguf-like-format/strict_json.h"

namespace tessera {

static_assert(std::endian::native == std::endian::little, "stored words are little-endian");

namespace {

using nlohmann::json;

constexpr size_t kMostRuleBytes = 65536;
constexpr const char* kWhere = "tokenizer";

[[noreturn]] void refuse(const std::string& field, const std::string& fault) {
  throw FileError(fmt::format("{}: {}: {}", kWhere, field, fault));
}

template <size_t count>
size_t index_of_name(const JsonFields& fields, std::string_view field,
                     const std::array<std::string_view, count>& names) {
  const std::string name = fields.text(field, 64);
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) fields.refuse_value(field, "a name this version knows");
  return static_cast<size_t>(found - names.begin());
}

std::string optional_text(const JsonFields& fields, std::string_view field, size_t most) {
  return fields.find(field) == nullptr ? std::string() : fields.text(field, most);
}

std::vector<AddedToken> read_added(const JsonFields& settings, size_t vocabulary) {
  std::vector<AddedToken> added;
  std::set<uint32_t> ids;
  std::set<std::string> contents;
  const json& list = settings.array("added");
  for (size_t i = 0; i < list.size(); ++i) {
    const JsonFields entry(list[i], kWhere, fmt::format("added[{}]", i));
    AddedToken token;
    token.id = static_cast<uint32_t>(entry.integer("id", 0, vocabulary - 1));
    token.content = entry.text("content", kMostAddedTokenBytes);
    token.pattern = entry.find("pattern") == nullptr ? token.content : entry.text("pattern", kMostRuleBytes);
    token.special = entry.boolean_or("special", false);
    token.normalized = entry.boolean_or("normalized", false);
    token.left_strip = entry.boolean_or("left_strip", false);
    token.right_strip = entry.boolean_or("right_strip", false);
    token.single_word = entry.boolean_or("single_word", false);
    if (token.content.empty()) entry.refuse("content", "some text", "none");
    if (!ids.insert(token.id).second) entry.refuse_value("id", "an id that appears once");
    if (!contents.insert(token.content).second) entry.refuse_value("content", "a text that appears once");
    added.push_back(std::move(token));
  }
  return added;
}

TokenizerRules read_rules(const JsonFields& settings, size_t vocabulary) {
  TokenizerRules rules;
  rules.ignore_merges = settings.boolean("ignore_merges");
  rules.fuse_unknown = settings.boolean("fuse_unknown");
  rules.independent_words = settings.boolean("independent_words");
  rules.strip_leading_space = settings.boolean("strip_leading_space");
  rules.adds_bos = settings.boolean("adds_bos");
  const auto id = [&](std::string_view field) -> std::optional<uint32_t> {
    const auto value = settings.optional_integer(field, 0, vocabulary - 1);
    if (!value) return std::nullopt;
    return static_cast<uint32_t>(*value);
  };
  rules.unknown = id("unknown");
  rules.bos = id("bos");
  rules.eos = id("eos");
  const JsonFields roles = settings.object("roles");
  for (const auto& [role, text] : settings.require("roles").items())
    rules.roles[role] = roles.text(role, kMostAddedTokenBytes);
  rules.added = read_added(settings, vocabulary);
  const json& normalizer = settings.array("normalizer");
  for (size_t i = 0; i < normalizer.size(); ++i) {
    const JsonFields entry(normalizer[i], kWhere, fmt::format("normalizer[{}]", i));
    NormalizerStep step;
    step.kind = static_cast<NormalizerStep::Kind>(index_of_name(entry, "kind", kNormalizerNames));
    step.text = optional_text(entry, "text", kMostRuleBytes);
    step.replacement = optional_text(entry, "replacement", kMostRuleBytes);
    if (step.kind == NormalizerStep::Kind::replace && step.text.empty())
      entry.refuse("text", "some text", "none");
    rules.normalizer.push_back(std::move(step));
  }
  const json& pre_tokenizer = settings.array("pre_tokenizer");
  for (size_t i = 0; i < pre_tokenizer.size(); ++i) {
    const JsonFields entry(pre_tokenizer[i], kWhere, fmt::format("pre_tokenizer[{}]", i));
    PreTokenizerStep step;
    step.kind = static_cast<PreTokenizerStep::Kind>(index_of_name(entry, "kind", kPreTokenizerNames));
    step.text = optional_text(entry, "text", kMostRuleBytes);
    step.replacement = optional_text(entry, "replacement", kMostRuleBytes);
    if (entry.find("behavior") != nullptr)
      step.behavior = static_cast<SplitBehavior>(index_of_name(entry, "behavior", kSplitBehaviorNames));
    step.invert = entry.boolean_or("invert", false);
    const bool needs_text =
        step.kind == PreTokenizerStep::Kind::split_text || step.kind == PreTokenizerStep::Kind::replace;
    if (needs_text && step.text.empty()) entry.refuse("text", "some text", "none");
    rules.pre_tokenizer.push_back(std::move(step));
  }
  return rules;
}

const StoredTensor* find_tensor(std::span<const StoredTensor> tensors, std::string_view name, Scheme scheme) {
  for (const StoredTensor& tensor : tensors) {
    if (tensor.name != name) continue;
    if (tensor.scheme != scheme || tensor.shape.size() != 1)
      refuse(std::string(name),
             fmt::format("expected a vector of {}, found {} of rank {}", scheme_name(scheme),
                         scheme_name(tensor.scheme), tensor.shape.size()));
    return &tensor;
  }
  return nullptr;
}

// The words of a tensor; empty when it is absent.
WordArray words_of(std::span<const StoredTensor> tensors, std::string_view name) {
  const StoredTensor* tensor = find_tensor(tensors, name, Scheme::u32);
  return tensor == nullptr ? WordArray() : WordArray(tensor->bytes);
}

void expect_size(const char* field, const WordArray& array, size_t expected) {
  if (array.words().size() != expected)
    refuse(field, fmt::format("expected {} words, found {}", expected, array.words().size()));
}

// Throws FileError unless the words ascend from 0 to end.
void check_ascending(const char* field, std::span<const uint32_t> words, size_t end) {
  if (words.front() != 0) refuse(field, fmt::format("expected to begin with 0, found {}", words.front()));
  for (size_t i = 1; i < words.size(); ++i)
    if (words[i] < words[i - 1])
      refuse(field,
             fmt::format("expected ascending values, found {} before {} at {}", words[i - 1], words[i], i));
  if (words.back() != end) refuse(field, fmt::format("expected to end with {}, found {}", end, words.back()));
}

void check_merges(const StoredTokenizer& stored, size_t symbols) {
  const auto entries = stored.merges.words();
  const auto first = stored.merge_first.words();
  if (entries.empty() && first.empty()) return;
  if (entries.size() % 3 != 0)
    refuse("tokenizer.merges", fmt::format("expected a multiple of 3 words, found {}", entries.size()));
  expect_size("tokenizer.merge_first", stored.merge_first, symbols + 1);
  check_ascending("tokenizer.merge_first", first, entries.size() / 3);
  for (size_t left = 0; left < symbols; ++left) {
    for (size_t i = first[left]; i < first[left + 1]; ++i) {
      const uint32_t right = entries[3 * i];
      const uint32_t rank = entries[3 * i + 1];
      const uint32_t result = entries[3 * i + 2];
      if (right >= symbols || result >= symbols)
        refuse("tokenizer.merges", fmt::format("entry {}: expected symbols below {}, found {}", i, symbols,
                                               std::max(right, result)));
      if (rank == kNoSymbol)
        refuse("tokenizer.merges", fmt::format("entry {}: rank {} is out of range", i, rank));
      if (i > first[left] && entries[3 * (i - 1)] >= right)
        refuse("tokenizer.merges", fmt::format("entry {}: right symbols do not ascend", i));
    }
  }
}

void check_symbol(const char* field, size_t index, uint32_t symbol, size_t symbols) {
  if (symbol != kNoSymbol && symbol >= symbols)
    refuse(field, fmt::format("entry {}: expected less than {}, found {}", index, symbols, symbol));
}

// Checks the character table and stores the code points of symbols that are not pieces.
void check_characters(StoredTokenizer& stored, size_t symbols) {
  constexpr const char* field = "tokenizer.characters";
  const auto words = stored.characters.words();
  if (stored.rules.byte_level) {
    expect_size(field, stored.characters, 256);
    for (size_t i = 0; i < words.size(); ++i) check_symbol(field, i, words[i], stored.vocabulary);
    return;
  }
  if (words.size() % 2 != 0)
    refuse(field, fmt::format("expected an even number of words, found {}", words.size()));
  for (size_t i = 0; i < words.size(); i += 2) {
    if (words[i] > 0x10FFFF || (i > 0 && words[i - 2] >= words[i]))
      refuse(field, fmt::format("entry {}: code point {} is out of range or order", i / 2, words[i]));
    check_symbol(field, i / 2, words[i + 1], symbols);
    if (words[i + 1] == kNoSymbol || words[i + 1] < stored.vocabulary) continue;
    const size_t extra = words[i + 1] - stored.vocabulary;
    if (stored.extra_codepoints.size() <= extra) stored.extra_codepoints.resize(extra + 1, 0xFFFD);
    stored.extra_codepoints[extra] = words[i];
  }
  // Merging can produce every symbol of the merge table, so each needs a text.
  const size_t table = stored.merge_first.words().size();
  if (table > stored.vocabulary + 1 + stored.extra_codepoints.size())
    refuse("tokenizer.merge_first",
           fmt::format("expected at most {} words, found {}",
                       stored.vocabulary + 1 + stored.extra_codepoints.size(), table));
}

}  // namespace

WordArray::WordArray(std::span<const std::byte> bytes) {
  const size_t count = bytes.size() / sizeof(uint32_t);
  if (reinterpret_cast<uintptr_t>(bytes.data()) % alignof(uint32_t) == 0) {
    words_ = {reinterpret_cast<const uint32_t*>(bytes.data()), count};
    return;
  }
  copy_.resize(count);
  std::memcpy(copy_.data(), bytes.data(), count * sizeof(uint32_t));
  words_ = copy_;
}

StoredTokenizer read_stored_tokenizer(const TokenizerSettings& settings,
                                      std::span<const StoredTensor> tensors) {
  StoredTokenizer stored;
  if (settings.kind != "byte-bpe" && settings.kind != "sentencepiece-bpe")
    refuse("kind",
           fmt::format("expected byte-bpe or sentencepiece-bpe, found \"{}\"", printable(settings.kind)));
  const json document = parse_strict_json(settings.settings_json, kWhere);
  const JsonFields fields(document, kWhere, "");
  stored.vocabulary = static_cast<size_t>(fields.integer("vocabulary", 1, kMostPieces));
  stored.rules = read_rules(fields, stored.vocabulary);
  stored.rules.byte_level = settings.kind == "byte-bpe";

  const StoredTensor* pieces = find_tensor(tensors, "tokenizer.pieces", Scheme::u8);
  if (pieces == nullptr) refuse("tokenizer.pieces", "missing");
  stored.pieces = {reinterpret_cast<const char*>(pieces->bytes.data()), pieces->bytes.size()};
  stored.offsets = words_of(tensors, "tokenizer.offsets");
  stored.merge_first = words_of(tensors, "tokenizer.merge_first");
  stored.merges = words_of(tensors, "tokenizer.merges");
  stored.characters = words_of(tensors, "tokenizer.characters");
  stored.byte_tokens = words_of(tensors, "tokenizer.byte_tokens");
  stored.sorted_words = words_of(tensors, "tokenizer.sorted_words");

  expect_size("tokenizer.offsets", stored.offsets, stored.vocabulary + 1);
  check_ascending("tokenizer.offsets", stored.offsets.words(), stored.pieces.size());
  // Each character that is not a piece has a symbol of its own after those of the pieces.
  const size_t symbols =
      stored.vocabulary + (stored.rules.byte_level ? 0 : stored.characters.words().size() / 2);
  check_characters(stored, symbols);
  const size_t table = stored.merge_first.words().size();
  if (table != 0 && (table < stored.vocabulary + 1 || table > symbols + 1))
    refuse("tokenizer.merge_first",
           fmt::format("expected {} to {} words, found {}", stored.vocabulary + 1, symbols + 1, table));
  if (table != 0 || !stored.merges.words().empty()) check_merges(stored, table == 0 ? 0 : table - 1);
  if (!stored.byte_tokens.words().empty()) {
    expect_size("tokenizer.byte_tokens", stored.byte_tokens, 256);
    for (size_t i = 0; i < 256; ++i)
      check_symbol("tokenizer.byte_tokens", i, stored.byte_tokens.words()[i], stored.vocabulary);
  }
  if (stored.rules.ignore_merges && !stored.rules.byte_level)
    refuse("ignore_merges", "expected false for this kind, found true");
  for (size_t i = 0; i < stored.sorted_words.words().size(); ++i)
    if (stored.sorted_words.words()[i] >= stored.vocabulary)
      refuse("tokenizer.sorted_words", fmt::format("entry {}: expected less than {}, found {}", i,
                                                   stored.vocabulary, stored.sorted_words.words()[i]));
  return stored;
}

}  // namespace tessera
