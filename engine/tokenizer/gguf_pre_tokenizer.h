// The names by which GGUF files call the rules that cut text into words, and what each stands for.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace tessera {

struct GgufPreTokenizer {
  std::string_view name;                       // of tokenizer.ggml.pre
  std::span<const std::string_view> patterns;  // regular expressions; each cuts what those before it left
  bool ignore_merges;                          // a word that is a piece as a whole is not taken apart
  bool adds_bos;                               // where the file does not say
  bool composes;                               // text is brought into Unicode's composed form (NFC) first
};

// nullptr for a name that is not in the table.
const GgufPreTokenizer* find_gguf_pre_tokenizer(std::string_view name);
std::string known_gguf_pre_tokenizers();  // "llama-bpe, qwen2, …"

}  // namespace tessera
