// What a tokenizer is, as the loaders of the various file formats read it and before it is laid out in
// arrays.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/tokenizer/added_tokens.h"
#include "engine/tokenizer/text_rules.h"
#include "engine/tokenizer/tokenizer.h"

namespace tessera {

class GgufMetadata;

inline constexpr size_t kMostPieces = size_t{1} << 24;
inline constexpr size_t kMostAddedTokenBytes = 4096;

// The small settings, stored as JSON.
struct TokenizerRules {
  bool byte_level = false;           // symbols are bytes; otherwise characters, with bytes as a fallback
  bool ignore_merges = false;        // a word that is a piece as a whole is not taken apart (byte level only)
  bool fuse_unknown = false;         // neighbouring unknown characters become one unknown token
  bool independent_words = false;    // no merge crosses from another character to U+2581, see encode
  bool strip_leading_space = false;  // decoding drops one space at the start of the text
  bool adds_bos = false;
  std::optional<uint32_t> unknown, bos, eos;
  std::map<std::string, std::string> roles;  // "bos", "eos", "unk", "pad" … -> text
  std::vector<AddedToken> added;
  std::vector<NormalizerStep> normalizer;
  std::vector<PreTokenizerStep> pre_tokenizer;
};

struct MergeRule {
  uint32_t left;
  uint32_t right;
  uint32_t rank;
  uint32_t result;
};

struct TokenizerDefinition {
  std::string where;  // the file, for errors
  TokenizerRules rules;
  std::vector<std::string> pieces;    // by id: bytes as they appear in text
  std::vector<uint32_t> whole_words;  // ids that ignore_merges looks for
  uint32_t extra_symbols = 0;         // characters that only occur inside pieces: symbols beyond the last id
  std::vector<std::pair<uint32_t, uint32_t>> characters;  // byte or code point -> symbol
  std::vector<MergeRule> merges;                          // of equal pairs the last one counts
  std::vector<uint32_t> byte_tokens;                      // empty, or for each byte its id or kNoSymbol
  std::unordered_map<std::string, uint32_t> ids;          // text in the file -> id, added tokens included
};

// tokenizer_config.json, special_tokens_map.json, added_tokens.json and config.json beside a tokenizer; all
// are optional.
struct TokenizerConfig {
  std::string where;
  std::string tokenizer_class;
  std::optional<bool> adds_bos, legacy, adds_prefix_space;
  std::map<std::string, std::string> roles;  // "bos" -> "<s>"
  // A file that names roles is there. One that it does not name has no text for templates, even where the id
  // is known from elsewhere: so do templates find it that come with such a file.
  bool names_roles = false;
  std::vector<AddedToken> added;  // ascending by id
  std::string added_where;        // the file that lists them
  // That file is added_tokens.json, from before there was added_tokens_decoder: it has texts and ids and does
  // not say anything about a token that another file describes.
  bool added_by_text = false;
  std::optional<uint32_t> bos_id, eos_id;  // config.json
  std::string model_type;                  // config.json
};

TokenizerConfig read_tokenizer_config(const std::string& folder);

// Loaders: where names the file in errors. All throw FileError naming file and field.
TokenizerDefinition load_tokenizer_json(std::string_view text, const std::string& where,
                                        const TokenizerConfig& config);
TokenizerDefinition load_sentencepiece_model(std::string_view bytes, const std::string& where,
                                             const TokenizerConfig& config);
TokenizerDefinition load_tiktoken(std::string_view text, const std::string& where,
                                  const TokenizerConfig& config);
TokenizerDefinition load_vocab_merges(std::string_view vocabulary, const std::string& vocabulary_where,
                                      std::string_view merges, const std::string& merges_where,
                                      const TokenizerConfig& config);
// The tokenizer.ggml.* keys of a GGUF file.
TokenizerDefinition load_gguf_vocabulary(const GgufMetadata& metadata);

// Gives added tokens of the configuration their place after the last piece (or checks the one they have) and
// sets the roles. default_adds_bos is for tokenizers whose files do not say. Call once pieces, ids and rules
// are set. Throws FileError.
void apply_config(TokenizerDefinition& definition, const TokenizerConfig& config, bool default_adds_bos);

// Ranks for merging: the pieces with the best score merge first, those with equal scores are equal. kNoSymbol
// where there is no score.
std::vector<uint32_t> rank_by_score(const std::vector<std::optional<float>>& scores);

// Every way to cut a piece into two symbols makes a merge; ranks[id] orders them (kNoSymbol: the piece takes
// no part). texts are the pieces in the form the symbols have; characters outside the pieces become extra
// symbols where the definition has single characters as symbols (not byte level): these come after the last
// piece, so apply_config goes first. Throws FileError.
void merges_from_pieces(TokenizerDefinition& definition, const std::vector<std::string>& texts,
                        const std::vector<uint32_t>& ranks);

// Lays a definition out in arrays. Throws FileError, which does not name the file.
TokenizerArrays make_arrays(TokenizerDefinition definition);

}  // namespace tessera
