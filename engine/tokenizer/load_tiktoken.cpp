// Reads vocabularies of lines "BASE64 RANK", as Llama 3 ships its tokenizer.model and Qwen its qwen.tiktoken.
#include <fmt/format.h>

#include <charconv>

#include "engine/tokenizer/tokenizer_definition.h"
#include "gguf-like-format/file_error.h"

namespace tessera {

namespace {

int base64_digit(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  if (c == '+') return 62;
  if (c == '/') return 63;
  return -1;
}

// Decodes padded base64; nothing when it is malformed.
std::optional<std::string> decode_base64(std::string_view text) {
  if (text.empty() || text.size() % 4 != 0) return std::nullopt;
  const size_t padding = text.substr(text.size() - 2) == "==" ? 2 : text.back() == '=' ? 1 : 0;
  std::string bytes;
  uint32_t bits = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool pad = i >= text.size() - padding;
    const int digit = pad ? 0 : base64_digit(text[i]);
    if (digit < 0) return std::nullopt;
    bits = bits << 6 | static_cast<uint32_t>(digit);
    if (i % 4 != 3) continue;
    for (const uint32_t shift : {16U, 8U, 0U})
      bytes += static_cast<char>(static_cast<unsigned char>(bits >> shift));
    bits = 0;
  }
  bytes.resize(bytes.size() - padding);
  return bytes;
}

// The same configuration with the special tokens that no file lists.
TokenizerConfig with_specials(TokenizerConfig config, const std::string& where, const TiktokenRules& files,
                              TokenizerDefinition& definition) {
  std::vector<AddedToken> specials;
  for (const std::string& text : files.specials) {
    AddedToken token;
    token.id = static_cast<uint32_t>(definition.pieces.size() + specials.size());
    token.content = token.pattern = text;
    token.special = true;
    specials.push_back(std::move(token));
  }
  leave_out_beyond(config, where, specials, definition.notes);
  if (config.added.empty()) config.added = std::move(specials);
  config.roles.insert(files.roles.begin(), files.roles.end());
  return config;
}

}  // namespace

TiktokenRules llama3_tiktoken() { return {.pattern = kLlama3Pattern, .specials = {}, .roles = {}}; }

TiktokenRules qwen_tiktoken() {
  constexpr size_t kExtra = 205;
  TiktokenRules files{.pattern = kQwen2Pattern,
                      .composes = true,
                      .begins_texts = false,
                      .specials = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"},
                      .roles = {{"eos", "<|endoftext|>"}}};
  for (size_t i = 0; i < kExtra; ++i) files.specials.push_back(fmt::format("<|extra_{}|>", i));
  return files;
}

TokenizerDefinition load_tiktoken(std::string_view text, const std::string& where,
                                  const TokenizerConfig& config, const TiktokenRules& files) {
  TokenizerDefinition definition;
  definition.where = where;
  TokenizerRules& rules = definition.rules;
  rules.byte_level = true;
  rules.ignore_merges = true;
  if (files.composes) rules.normalizer.push_back({NormalizerStep::Kind::nfc, "", ""});
  rules.pre_tokenizer.push_back(
      {PreTokenizerStep::Kind::split_regex, std::string(files.pattern), "", SplitBehavior::isolated, false});
  size_t number = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = text.substr(at, end - at);
    at = end + 1;
    ++number;
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (line.empty()) continue;
    const auto refuse = [&](const std::string& fault) {
      throw FileError(fmt::format("{}: line {}: {}", where, number, fault));
    };
    const size_t space = line.find(' ');
    if (space == std::string_view::npos)
      refuse(fmt::format("expected BASE64 RANK, found \"{}\"", printable(line)));
    const auto piece = decode_base64(line.substr(0, space));
    if (!piece) refuse(fmt::format("expected base64, found \"{}\"", printable(line.substr(0, space))));
    const std::string_view digits = line.substr(space + 1);
    uint64_t rank = 0;
    const auto [stop, error] = std::from_chars(digits.data(), digits.data() + digits.size(), rank);
    if (error != std::errc() || stop != digits.data() + digits.size())
      refuse(fmt::format("expected a rank, found \"{}\"", printable(digits)));
    if (rank != definition.pieces.size())
      refuse(fmt::format("ids have a gap or repeat: expected rank {}, found {}", definition.pieces.size(),
                         rank));
    if (rank >= kMostPieces) refuse(fmt::format("expected at most {} pieces", kMostPieces));
    definition.pieces.push_back(*piece);
  }
  std::vector<uint32_t> ranks;
  for (uint32_t id = 0; id < definition.pieces.size(); ++id) {
    ranks.push_back(id);
    definition.whole_words.push_back(id);
  }
  merges_from_pieces(definition, definition.pieces, ranks);
  if (definition.characters.size() != 256)
    throw FileError(fmt::format("{}: expected a piece for each of the 256 bytes, found {}", where,
                                definition.characters.size()));
  apply_config(definition, with_specials(config, where, files, definition), files.begins_texts);
  return definition;
}

}  // namespace tessera
