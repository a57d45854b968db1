// Text to token ids and back. One class serves byte-level BPE (GPT-2, Llama 3, Qwen2, tessera-tiny) and
// SentencePiece BPE with byte fallback (Llama 2). Immutable after construction; encode and decode may run on
// several threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/chat_template/quoted_text.h"
#include "gguf-like-format/model_header.h"
#include "gguf-like-format/stored_tensor.h"

namespace tessera {

class GgufMetadata;
struct TokenizerDefinition;

// A tokenizer as stored in a .tess file: small settings as JSON text and arrays that need no parsing.
struct TokenizerArrays {
  TokenizerSettings settings;
  // By name: "tokenizer.pieces".
  std::vector<std::pair<std::string, std::vector<uint8_t>>> byte_tensors;
  // By name: "tokenizer.offsets", "tokenizer.merges", …
  std::vector<std::pair<std::string, std::vector<uint32_t>>> word_tensors;
};

class Tokenizer {
 public:
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  // Reads tokenizer.json, tokenizer.model (SentencePiece or tiktoken) or vocab/merges files of a checkpoint
  // folder, with tokenizer_config.json beside it. notes: where not null, a line is appended for everything
  // that is read as something else than the files say and is harmless. Throws FileError.
  static Tokenizer from_folder(const std::string& folder, std::vector<std::string>* notes = nullptr);
  // Reads the tokenizer.ggml.* keys of a GGUF file; notes as above. Throws FileError.
  static Tokenizer from_gguf(const GgufMetadata& metadata, std::vector<std::string>* notes = nullptr);
  // Restores a tokenizer from what store() returned. It points into the tensors, so their bytes must outlive
  // it. Throws FileError naming the field when ids, offsets or sizes are out of range.
  static Tokenizer from_stored(const TokenizerSettings& settings, std::span<const StoredTensor> tensors);
  TokenizerArrays store() const;

  size_t vocabulary() const;  // ids are 0 … vocabulary() - 1
  std::optional<uint32_t> bos() const;
  std::optional<uint32_t> eos() const;
  bool adds_bos() const;  // whether plain text starts with bos
  // The text of the special token with a role ("bos" or "bos_token", eos, unk, pad, …), for chat templates;
  // empty when there is none.
  std::string special_text(std::string_view role) const;
  // The id of the added or special token with exactly this text.
  std::optional<uint32_t> find(std::string_view piece) const;
  bool is_special(uint32_t id) const;

  // Encodes a text. parse_special: the text of special tokens becomes their ids; otherwise it is ordinary
  // text. Malformed UTF-8 is encoded, never an error. Does not add bos. Throws FileError only when the
  // tokenizer's rules make the text far too long, or a regular expression takes far too long.
  std::vector<uint32_t> encode(std::string_view text, bool parse_special) const;
  // The same, but the text of a special token is ordinary where any of its bytes is quoted.
  std::vector<uint32_t> encode(const QuotedText& text) const;

  // The bytes of one token as they appear in text. show_special: a special token gives its text, otherwise
  // nothing.
  std::string token_bytes(uint32_t id, bool show_special) const;
  // The bytes of all tokens, without the space that SentencePiece puts before a text. Malformed UTF-8 remains
  // as it is. Ids beyond the vocabulary have no text.
  std::string decode(std::span<const uint32_t> ids, bool show_special) const;

 private:
  struct State;
  explicit Tokenizer(std::unique_ptr<const State> state);
  static Tokenizer from_definition(TokenizerDefinition definition);
  std::unique_ptr<const State> state_;
};

// Turns a stream of ids into well-formed UTF-8: bytes are held back until their character is complete, and
// bytes that cannot be part of a character become U+FFFD. The tokenizer must outlive it.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool show_special = false);
  // The text that is complete with this token; possibly empty.
  std::string push(uint32_t id);
  // The rest at the end of the stream. The decoder can then be used for another one.
  std::string finish();

 private:
  const Tokenizer* tokenizer_;
  bool show_special_;
  bool at_start_ = true;
  std::string pending_;
};

}  // namespace tessera
