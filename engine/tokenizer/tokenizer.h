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
  std::vector<std::pair<std::string, std::vector<uint8_t>>> byte_tensors;  // "tokenizer.pieces", …
  std::vector<std::pair<std::string, std::vector<uint32_t>>>
      word_tensors;  // "tokenizer.offsets", "tokenizer.merges", …
};

class Tokenizer {
 public:
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  // Reads tokenizer.json, tokenizer.model (SentencePiece or tiktoken) or vocab/merges files of a checkpoint
  // folder, with tokenizer_config.json beside it. Throws FileError.
  static Tokenizer from_folder(const std::string& folder);
  // Reads the tokenizer.ggml.* keys of a GGUF file. Throws FileError.
  static Tokenizer from_gguf(const GgufMetadata& metadata);
  // Rebuilds from what store() made; views into tensors are kept, so their bytes must outlive the tokenizer.
  // Throws FileError naming the field when ids, offsets or sizes are out of range.
  static Tokenizer from_stored(const TokenizerSettings& settings, std::span<const StoredTensor> tensors);
  TokenizerArrays store() const;

  size_t vocabulary() const;  // ids are 0 … vocabulary() - 1
  std::optional<uint32_t> bos() const;
  std::optional<uint32_t> eos() const;
  bool adds_bos() const;  // whether plain text starts with bos
  // The text of a special token such as bos, eos, unk, pad as the chat template wants it; empty when there is
  // none.
  std::string special_text(std::string_view role) const;
  std::optional<uint32_t> find(std::string_view piece) const;  // id of an added or special token's exact text
  bool is_special(uint32_t id) const;

  // Text to ids. parse_special turns the text of special tokens into their ids; otherwise such text is
  // ordinary. Malformed UTF-8 is encoded, never refused. bos is not added here. Throws FileError only when
  // the model's rules make far too much of the text, or a regular expression takes far too long.
  std::vector<uint32_t> encode(std::string_view text, bool parse_special) const;
  // The same for a text in which the text of special tokens is ordinary where any of its bytes is quoted.
  std::vector<uint32_t> encode(const QuotedText& text) const;

  // Raw bytes of one token as they appear in text; special tokens give their text when asked, else nothing.
  std::string token_bytes(uint32_t id, bool show_special) const;
  // Bytes of all tokens, without the space that SentencePiece puts before a text. As raw as what was encoded:
  // only StreamDecoder replaces malformed UTF-8. Ids beyond the vocabulary have no text.
  std::string decode(std::span<const uint32_t> ids, bool show_special) const;

 private:
  struct State;
  explicit Tokenizer(std::unique_ptr<const State> state);
  static Tokenizer from_definition(TokenizerDefinition definition);
  std::unique_ptr<const State> state_;
};

// Turns a stream of ids into printable text: bytes are held back until a UTF-8 character is complete; bytes
// that can never complete come out as U+FFFD.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool show_special = false);
  std::string push(uint32_t id);  // text that became certain with this token, possibly empty
  std::string finish();           // what is left at the end of the stream

 private:
  const Tokenizer* tokenizer_;
  bool show_special_;
  bool at_start_ = true;
  std::string pending_;
};

}  // namespace tessera
