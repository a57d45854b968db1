// Reads the tokenizer that a GGUF file carries in its metadata: byte-level BPE ("gpt2") or SentencePiece BPE
// ("llama").
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "engine/tokenizer/bpe_merges.h"
#include "engine/tokenizer/byte_alphabet.h"
#include "engine/tokenizer/gguf_pre_tokenizer.h"
#include "engine/tokenizer/normalizer.h"
#include "engine/tokenizer/tokenizer_definition.h"
#include "engine/tokenizer/utf8.h"
#include "gguf-like-format/gguf/gguf_metadata.h"

namespace tessera {

namespace {

constexpr size_t kMostWordBytes = 256;
constexpr const char* kSpaceMark = "\u2581";
constexpr std::string_view kTokens = "tokenizer.ggml.tokens";
constexpr std::string_view kTokenTypes = "tokenizer.ggml.token_type";

enum class TokenType : uint64_t {
  normal = 1,
  unknown = 2,
  control = 3,
  user_defined = 4,
  unused = 5,
  byte = 6
};

struct Token {
  std::string_view text;
  TokenType type = TokenType::normal;
};

std::vector<Token> read_tokens(const GgufMetadata& metadata) {
  const std::vector<std::string_view> texts = metadata.texts(kTokens);
  if (texts.empty() || texts.size() > kMostPieces)
    metadata.refuse(kTokens, fmt::format("1 to {} tokens", kMostPieces), fmt::format("{}", texts.size()));
  std::vector<uint64_t> types(texts.size(), static_cast<uint64_t>(TokenType::normal));
  if (metadata.has(kTokenTypes)) types = metadata.integers(kTokenTypes, 1, 6);
  if (types.size() != texts.size())
    metadata.refuse(kTokenTypes, fmt::format("{} items, one for each token", texts.size()),
                    fmt::format("{}", types.size()));
  std::vector<Token> tokens;
  tokens.reserve(texts.size());
  for (size_t id = 0; id < texts.size(); ++id) {
    if (!is_utf8(texts[id]))
      metadata.refuse(fmt::format("{}[{}]", kTokens, id), "text in UTF-8",
                      fmt::format("\"{}\"", printable(texts[id])));
    tokens.push_back({texts[id], static_cast<TokenType>(types[id])});
  }
  return tokens;
}

// Ids by text, and the tokens that are found in text as a whole: control tokens on request, user-defined ones
// always. shown: how user-defined ones read in text.
template <class Shown>
void read_added(const GgufMetadata& metadata, const std::vector<Token>& tokens, Shown shown,
                TokenizerDefinition& definition) {
  for (uint32_t id = 0; id < tokens.size(); ++id) {
    const Token& token = tokens[id];
    const auto [entry, inserted] = definition.ids.emplace(token.text, id);
    if (!inserted)
      metadata.refuse(fmt::format("{}[{}]", kTokens, id), "a text that appears once",
                      fmt::format("\"{}\", which is also token {}", printable(token.text), entry->second));
    const bool special = token.type == TokenType::control || token.type == TokenType::unknown;
    if ((!special && token.type != TokenType::user_defined) || token.text.empty()) continue;
    if (token.text.size() > kMostAddedTokenBytes)
      metadata.refuse(fmt::format("{}[{}]", kTokens, id),
                      fmt::format("at most {} bytes", kMostAddedTokenBytes),
                      fmt::format("{}", token.text.size()));
    AddedToken added;
    added.id = id;
    added.content = added.pattern = special ? std::string(token.text) : shown(token.text);
    added.special = special;
    definition.rules.added.push_back(std::move(added));
  }
}

// A token with a role becomes special, so that its text no longer means itself. Some writers give roles to
// ordinary pieces, "!" for padding, which have to stay what they are; others leave "<s>" without a type.
bool may_have_role(const Token& token) {
  if (token.text.empty()) return false;
  return token.type != TokenType::normal || token.text.front() == '<' || token.text.front() == '[';
}

// Names the tokens that have a role, and whether plain text begins with the first of them.
void set_roles(const GgufMetadata& metadata, const std::vector<Token>& tokens, bool default_adds_bos,
               TokenizerDefinition& definition) {
  constexpr std::string_view kAddsEos = "tokenizer.ggml.add_eos_token";
  TokenizerConfig config;
  config.where = metadata.where();
  config.names_roles = true;
  constexpr std::array<std::pair<const char*, const char*>, 4> kRoleKeys{
      std::pair{"bos", "bos"}, {"eos", "eos"}, {"unk", "unknown"}, {"pad", "padding"}};
  for (const auto& [role, name] : kRoleKeys) {
    const auto id =
        metadata.optional_integer(fmt::format("tokenizer.ggml.{}_token_id", name), 0, tokens.size() - 1);
    if (id && may_have_role(tokens[*id])) config.roles.emplace(role, tokens[*id].text);
  }
  config.adds_bos = metadata.optional_boolean("tokenizer.ggml.add_bos_token");
  if (metadata.optional_boolean(kAddsEos).value_or(false))
    definition.notes.push_back(fmt::format("{}: {}: no end token is put behind texts, so that they can go on",
                                           metadata.where(), kAddsEos));
  apply_config(definition, config, default_adds_bos);
}

void read_merges(const GgufMetadata& metadata, TokenizerDefinition& definition) {
  constexpr std::string_view kMerges = "tokenizer.ggml.merges";
  const std::vector<std::string_view> merges = metadata.texts(kMerges);
  if (merges.size() >= kNoSymbol) metadata.refuse(kMerges, "fewer than 2^32 - 1 merges", "more");
  for (size_t i = 0; i < merges.size(); ++i) {
    const std::string_view merge = merges[i];
    const auto refuse = [&](std::string_view expected) {
      metadata.refuse(fmt::format("{}[{}]", kMerges, i), expected, fmt::format("\"{}\"", printable(merge)));
    };
    const size_t space = merge.find(' ', 1);  // a piece has a character at least, which may be a space
    if (space == std::string_view::npos) refuse("two pieces");
    const auto id = [&](const std::string& piece) {
      const auto found = definition.ids.find(piece);
      if (found == definition.ids.end()) refuse("pieces of the vocabulary");
      return found->second;
    };
    const std::string left(merge.substr(0, space));
    const std::string right(merge.substr(space + 1));
    definition.merges.push_back({id(left), id(right), static_cast<uint32_t>(i), id(left + right)});
  }
}

TokenizerDefinition load_byte_level(const GgufMetadata& metadata, const std::vector<Token>& tokens) {
  constexpr std::string_view kPre = "tokenizer.ggml.pre";
  const std::string name = metadata.optional_text(kPre, kMostWordBytes).value_or("default");
  const GgufPreTokenizer* pre_tokenizer = find_gguf_pre_tokenizer(name);
  if (pre_tokenizer == nullptr)
    metadata.refuse(kPre, fmt::format("one of {}", known_gguf_pre_tokenizers()),
                    fmt::format("\"{}\"", printable(name)));
  TokenizerDefinition definition;
  definition.where = metadata.where();
  TokenizerRules& rules = definition.rules;
  rules.byte_level = true;
  rules.ignore_merges = pre_tokenizer->ignore_merges;
  if (pre_tokenizer->composes) rules.normalizer.push_back({NormalizerStep::Kind::nfc, "", ""});
  if (metadata.optional_boolean("tokenizer.ggml.add_space_prefix").value_or(false))
    rules.pre_tokenizer.push_back(
        {PreTokenizerStep::Kind::prefix_to_first, " ", "", SplitBehavior::isolated, false});
  for (const std::string_view pattern : pre_tokenizer->patterns)
    rules.pre_tokenizer.push_back(
        {PreTokenizerStep::Kind::split_regex, std::string(pattern), "", SplitBehavior::isolated, false});
  read_added(
      metadata, tokens, [](std::string_view text) { return std::string(text); }, definition);
  for (uint32_t id = 0; id < tokens.size(); ++id) {
    const Token& token = tokens[id];
    const auto bytes = token.type == TokenType::normal ? bytes_of_piece(token.text) : std::nullopt;
    definition.pieces.push_back(bytes.value_or(std::string(token.text)));
    if (!bytes) continue;
    if (bytes->size() == 1) definition.characters.emplace_back(static_cast<unsigned char>((*bytes)[0]), id);
    if (rules.ignore_merges) definition.whole_words.push_back(id);
  }
  read_merges(metadata, definition);
  set_roles(metadata, tokens, pre_tokenizer->adds_bos, definition);
  return definition;
}

// The byte of "<0x41>".
std::optional<size_t> byte_of(std::string_view text) {
  if (text.size() != 6 || text.substr(0, 3) != "<0x" || text[5] != '>') return std::nullopt;
  size_t value = 0;
  const auto [end, error] = std::from_chars(text.data() + 3, text.data() + 5, value, 16);
  if (error != std::errc() || end != text.data() + 5) return std::nullopt;
  return value;
}

std::vector<std::optional<float>> read_scores(const GgufMetadata& metadata,
                                              const std::vector<Token>& tokens) {
  constexpr std::string_view kScores = "tokenizer.ggml.scores";
  const std::vector<float> scores = metadata.numbers(kScores);
  if (scores.size() != tokens.size())
    metadata.refuse(kScores, fmt::format("{} items, one for each token", tokens.size()),
                    fmt::format("{}", scores.size()));
  std::vector<std::optional<float>> out;
  for (size_t id = 0; id < scores.size(); ++id) {
    if (!std::isfinite(scores[id]))
      metadata.refuse(fmt::format("{}[{}]", kScores, id), "a finite number", fmt::format("{}", scores[id]));
    const bool merges = tokens[id].type == TokenType::normal && !tokens[id].text.empty();
    out.push_back(merges ? std::optional(scores[id]) : std::nullopt);
  }
  return out;
}

// Pieces as they appear in text, and the tokens of single bytes.
void read_pieces(const GgufMetadata& metadata, const std::vector<Token>& tokens,
                 TokenizerDefinition& definition) {
  std::vector<uint32_t> byte_tokens(256, kNoSymbol);
  size_t bytes = 0;
  for (uint32_t id = 0; id < tokens.size(); ++id) {
    const Token& token = tokens[id];
    if (token.type == TokenType::byte) {
      const auto byte = byte_of(token.text);
      if (!byte)
        metadata.refuse(fmt::format("{}[{}]", kTokens, id), "a byte such as <0x41>",
                        fmt::format("\"{}\"", printable(token.text)));
      if (byte_tokens[*byte] == kNoSymbol) ++bytes;
      byte_tokens[*byte] = id;
      definition.pieces.emplace_back(1, static_cast<char>(static_cast<unsigned char>(*byte)));
    } else if (token.type == TokenType::normal || token.type == TokenType::user_defined) {
      definition.pieces.push_back(replace_all(std::string(token.text), kSpaceMark, " "));
    } else {
      definition.pieces.emplace_back(token.text);
    }
  }
  if (bytes != 0 && bytes != 256)
    metadata.refuse(kTokens, "a token for each of the 256 bytes, or for none", fmt::format("{}", bytes));
  if (bytes != 0) definition.byte_tokens = std::move(byte_tokens);
}

TokenizerDefinition load_sentencepiece(const GgufMetadata& metadata, const std::vector<Token>& tokens) {
  TokenizerDefinition definition;
  definition.where = metadata.where();
  TokenizerRules& rules = definition.rules;
  if (metadata.optional_boolean("tokenizer.ggml.add_space_prefix").value_or(true)) {
    rules.normalizer.push_back({NormalizerStep::Kind::prepend, kSpaceMark, ""});
    rules.strip_leading_space = true;
  }
  rules.normalizer.push_back({NormalizerStep::Kind::replace, " ", kSpaceMark});
  rules.fuse_unknown = true;
  read_added(
      metadata, tokens, [](std::string_view text) { return replace_all(std::string(text), kSpaceMark, " "); },
      definition);
  read_pieces(metadata, tokens, definition);
  const auto unknown = std::find_if(tokens.begin(), tokens.end(),
                                    [](const Token& token) { return token.type == TokenType::unknown; });
  if (unknown != tokens.end()) rules.unknown = static_cast<uint32_t>(unknown - tokens.begin());
  if (const auto id = metadata.optional_integer("tokenizer.ggml.unknown_token_id", 0, tokens.size() - 1))
    rules.unknown = static_cast<uint32_t>(*id);
  if (!rules.unknown && definition.byte_tokens.empty())
    metadata.refuse(kTokens, "tokens for bytes or an unknown token", "neither");
  const std::vector<std::optional<float>> scores = read_scores(metadata, tokens);
  set_roles(metadata, tokens, true, definition);
  std::vector<std::string> texts;
  texts.reserve(tokens.size());
  for (const Token& token : tokens) texts.emplace_back(token.text);
  merges_from_pieces(definition, texts, rank_by_score(scores));
  return definition;
}

}  // namespace

TokenizerDefinition load_gguf_vocabulary(const GgufMetadata& metadata) {
  constexpr std::string_view kModel = "tokenizer.ggml.model";
  const std::string model = metadata.text(kModel, kMostWordBytes);
  if (model != "gpt2" && model != "llama")
    metadata.refuse(kModel, "gpt2 or llama", fmt::format("\"{}\"", printable(model)));
  const std::vector<Token> tokens = read_tokens(metadata);
  return model == "gpt2" ? load_byte_level(metadata, tokens) : load_sentencepiece(metadata, tokens);
}

}  // namespace tessera
