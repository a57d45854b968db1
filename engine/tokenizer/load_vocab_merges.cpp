// Reads byte-level BPE from a vocabulary file and a merges file: vocab.json with merges.txt, or encoder.json
// with vocab.bpe as GPT-2 was published.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "engine/tokenizer/byte_alphabet.h"
#include "engine/tokenizer/normalizer.h"
#include "engine/tokenizer/tokenizer_definition.h"
#include "gguf-like-format/file_error.h"
#include "gguf-like-format/strict_json.h"

namespace tessera {

namespace {

using nlohmann::json;

constexpr JsonLimits kLimits{size_t{256} << 20, 4};

// Whether the files belong to Qwen2, otherwise to GPT-2: their pre-tokenizers differ, and the files do not
// name them.
bool is_qwen2(const TokenizerConfig& config) {
  const std::string& name = config.tokenizer_class;
  if (name == "Qwen2Tokenizer" || name == "Qwen2TokenizerFast") return true;
  if (name == "GPT2Tokenizer" || name == "GPT2TokenizerFast") return false;
  if (!name.empty())
    throw FileError(
        fmt::format("{}: tokenizer_class: expected Qwen2Tokenizer or GPT2Tokenizer for a vocabulary with "
                    "merges, found \"{}\"",
                    config.where, printable(name)));
  return config.model_type.substr(0, 4) == "qwen";
}

void read_vocabulary(std::string_view text, const std::string& where, const TokenizerConfig& config,
                     TokenizerDefinition& definition) {
  json document = parse_strict_json(text, where, kLimits);
  const JsonFields fields(document, where, "");  // throws unless it is an object
  auto& entries = document.get_ref<json::object_t&>();
  // Pieces that the model has no embedding for are left out; a merge that makes one is refused later.
  std::vector<AddedToken> beyond;
  for (const auto& [piece, value] : entries) {
    if (!config.vocabulary || !value.is_number_unsigned() || value.get<uint64_t>() < *config.vocabulary)
      continue;
    beyond.emplace_back().id = kMostPieces;
    beyond.back().content = piece;
  }
  for (const AddedToken& token : beyond) entries.erase(token.content);
  leave_out_beyond(config, where, beyond, definition.notes);
  if (entries.empty())
    throw FileError(fmt::format("{}: vocabulary: expected at least one piece, found none", where));
  definition.pieces.resize(entries.size());
  std::vector<const std::string*> owners(entries.size(), nullptr);
  for (const auto& [piece, value] : entries) {
    const uint64_t id = fields.element(value, fmt::format("\"{}\"", printable(piece)), 0, kMostPieces - 1);
    if (id >= entries.size())
      throw FileError(fmt::format("{}: \"{}\": ids have a gap: expected less than {}, found {}", where,
                                  printable(piece), entries.size(), id));
    if (owners[id] != nullptr)
      throw FileError(fmt::format("{}: id {} belongs to \"{}\" and to \"{}\"", where, id,
                                  printable(*owners[id]), printable(piece)));
    owners[id] = &piece;
    const auto symbol = static_cast<uint32_t>(id);
    const auto bytes = bytes_of_piece(piece);
    definition.pieces[id] = bytes.value_or(piece);
    definition.ids.emplace(piece, symbol);
    if (bytes && bytes->size() == 1)
      definition.characters.emplace_back(static_cast<unsigned char>((*bytes)[0]), symbol);
  }
}

void read_merges(std::string_view text, const std::string& where, TokenizerDefinition& definition) {
  size_t number = 0;
  uint32_t rank = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = text.substr(at, end - at);
    at = end + 1;
    ++number;
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (line.empty() || line.substr(0, 8) == "#version") continue;
    const size_t space = line.find(' ');
    if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos)
      throw FileError(
          fmt::format("{}: line {}: expected two pieces, found \"{}\"", where, number, printable(line)));
    const auto id = [&](const std::string& piece) {
      const auto found = definition.ids.find(piece);
      if (found == definition.ids.end())
        throw FileError(fmt::format("{}: line {}: expected pieces of the vocabulary, found \"{}\"", where,
                                    number, printable(piece)));
      return found->second;
    };
    const std::string left(line.substr(0, space));
    const std::string right(line.substr(space + 1));
    definition.merges.push_back({id(left), id(right), rank++, id(left + right)});
  }
}

}  // namespace

TokenizerDefinition load_vocab_merges(std::string_view vocabulary, const std::string& vocabulary_where,
                                      std::string_view merges, const std::string& merges_where,
                                      const TokenizerConfig& config) {
  TokenizerDefinition definition;
  definition.where = vocabulary_where;
  TokenizerRules& rules = definition.rules;
  rules.byte_level = true;
  const bool qwen2 = is_qwen2(config);
  if (qwen2) rules.normalizer.push_back({NormalizerStep::Kind::nfc, "", ""});
  if (config.adds_prefix_space.value_or(false))
    rules.pre_tokenizer.push_back({PreTokenizerStep::Kind::prefix, " ", "", SplitBehavior::isolated, false});
  rules.pre_tokenizer.push_back({PreTokenizerStep::Kind::split_regex,
                                 std::string(qwen2 ? kQwen2Pattern : kGpt2Pattern), "",
                                 SplitBehavior::isolated, false});
  read_vocabulary(vocabulary, vocabulary_where, config, definition);
  read_merges(merges, merges_where, definition);

  TokenizerConfig named = config;
  // GPT-2's files name no special tokens, although the model has one that begins and ends texts.
  if (const std::string text = "<|endoftext|>"; !qwen2 && definition.ids.count(text) != 0) {
    named.roles.emplace("bos", text);
    named.roles.emplace("eos", text);
    named.roles.emplace("unk", text);
  }
  apply_config(definition, named, false);
  for (AddedToken& token : rules.added)
    if (token.normalized) token.pattern = normalize(rules.normalizer, as_unquoted(token.content), false).text;
  return definition;
}

}  // namespace tessera
