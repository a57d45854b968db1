// The complete description of a tokenizer, as the loaders of the various file formats produce it and from
// which the stored arrays are made.
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
  bool ignore_merges = false;        // a word that is a piece becomes that piece (byte level only)
  bool fuse_unknown = false;         // consecutive unknown characters become one unknown token
  bool independent_words = false;    // no merge crosses from another character to U+2581: BpeEncoder::encode
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

// Symbols below pieces.size() are the pieces themselves.
struct TokenizerDefinition {
  std::string where;  // the file, for errors
  TokenizerRules rules;
  std::vector<std::string> pieces;    // by id: bytes as they appear in text
  std::vector<uint32_t> whole_words;  // ids that may become a whole word with ignore_merges
  uint32_t extra_symbols = 0;  // symbols beyond the last id, for characters that only occur inside pieces
  std::vector<std::pair<uint32_t, uint32_t>> characters;  // byte or code point -> symbol
  std::vector<MergeRule> merges;                          // of equal pairs, the last one counts
  std::vector<uint32_t> byte_tokens;                      // empty, or for each byte its id or kNoSymbol
  std::unordered_map<std::string, uint32_t> ids;          // text in the file -> id, added tokens included
  std::vector<std::string> notes;  // a line for everything that the files say and the tokenizer does not
};

// The settings of tokenizer_config.json, special_tokens_map.json, added_tokens.json and config.json beside a
// tokenizer. All these files are optional.
struct TokenizerConfig {
  std::string where;
  std::string tokenizer_class;
  std::optional<bool> adds_bos, legacy, adds_prefix_space;
  std::map<std::string, std::string> roles;  // "bos" -> "<s>"
  // Whether there is a file that names roles. Roles that it does not name then have no text for templates,
  // even when their ids are known from another file: templates that come with such a file rely on that.
  bool names_roles = false;
  std::vector<AddedToken> added;  // ascending by id
  std::string added_where;        // the file that lists them
  // Whether that file is added_tokens.json, which older checkpoints have instead of added_tokens_decoder. It
  // holds texts and ids only, so that a description of the same token in another file has precedence.
  bool added_by_text = false;
  std::optional<uint32_t> bos_id, eos_id;  // config.json
  std::string model_type;                  // config.json
  std::optional<uint64_t> vocabulary;      // config.json: the ids for which the model has embeddings
  std::vector<std::string> notes;          // as in TokenizerDefinition
};

// Throws FileError naming file and field.
TokenizerConfig read_tokenizer_config(const std::string& folder);

// Removes tokens that the model has no embedding for, as fine-tunes add them that never widened the model,
// and adds a line that says so. where: the file that lists them. Does nothing where the vocabulary is not
// known.
void leave_out_beyond(const TokenizerConfig& config, const std::string& where, std::vector<AddedToken>& added,
                      std::vector<std::string>& notes);

// The loaders, one for each format. where: the file, for errors. All throw FileError naming file and field.
TokenizerDefinition load_tokenizer_json(std::string_view text, const std::string& where,
                                        const TokenizerConfig& config);
TokenizerDefinition load_sentencepiece_model(std::string_view bytes, const std::string& where,
                                             const TokenizerConfig& config);
// What vocabularies of lines "BASE64 RANK" leave to the program that reads them.
struct TiktokenRules {
  std::string_view pattern;           // that cuts texts into words
  bool composes = false;              // whether texts are put into normalization form C first
  bool begins_texts = true;           // whether texts begin with bos unless the configuration says otherwise
  std::vector<std::string> specials;  // tokens behind the last piece
  std::map<std::string, std::string> roles;  // of these, as in TokenizerConfig
};
TiktokenRules llama3_tiktoken();
TiktokenRules qwen_tiktoken();  // of the first Qwen's qwen.tiktoken
TokenizerDefinition load_tiktoken(std::string_view text, const std::string& where,
                                  const TokenizerConfig& config, const TiktokenRules& files);
TokenizerDefinition load_vocab_merges(std::string_view vocabulary, const std::string& vocabulary_where,
                                      std::string_view merges, const std::string& merges_where,
                                      const TokenizerConfig& config);
// The tokenizer.ggml.* keys of a GGUF file.
TokenizerDefinition load_gguf_vocabulary(const GgufMetadata& metadata);

// Appends the added tokens of the configuration after the last piece (or checks the ids of those that exist)
// and sets the roles. default_adds_bos: for tokenizers whose files do not say whether texts begin with bos.
// Pieces, ids and rules must be set. Throws FileError.
void apply_config(TokenizerDefinition& definition, const TokenizerConfig& config, bool default_adds_bos);

// Ranks for merging: the pieces with the best score merge first, those with equal scores are equal. kNoSymbol
// where there is no score.
std::vector<uint32_t> rank_by_score(const std::vector<std::optional<float>>& scores);

// Adds a merge for every way to split a piece into two symbols, with the piece's rank: for formats that store
// pieces but no merges. texts[id]: the piece, spelled in bytes (byte level) or characters. ranks[id]: its
// rank, kNoSymbol to leave the piece out. Without byte level, characters that are not pieces become extra
// symbols after the last piece, so call apply_config before. Throws FileError.
void merges_from_pieces(TokenizerDefinition& definition, const std::vector<std::string>& texts,
                        const std::vector<uint32_t>& ranks);

// Makes the stored arrays of a definition. Throws FileError that does not name the file.
TokenizerArrays make_arrays(TokenizerDefinition definition);

}  // namespace tessera
