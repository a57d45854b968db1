// Fuzzes tokenizers. The first byte chooses: '{' begins a tokenizer.json and a line feed a SentencePiece
// model, which must encode, store and decode when it loads; any other byte is followed by text for a small
// fixed tokenizer, which must encode and decode it without loss.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tokenizer/byte_alphabet.h"
#include "engine/tokenizer/tokenizer_definition.h"
#include "engine/tokenizer/utf8.h"
#include "gguf-like-format/file_error.h"

namespace {

using namespace tessera;

void require(bool holds) {
  if (!holds) std::abort();
}

std::vector<StoredTensor> tensors_of(const TokenizerArrays& arrays) {
  std::vector<StoredTensor> tensors;
  for (const auto& [name, values] : arrays.byte_tensors)
    tensors.push_back({name, Scheme::u8, {values.size()}, std::as_bytes(std::span(values))});
  for (const auto& [name, values] : arrays.word_tensors)
    tensors.push_back({name, Scheme::u32, {values.size()}, std::as_bytes(std::span(values))});
  return tensors;
}

void use(const Tokenizer& tokenizer, std::string_view text) {
  for (const bool parse_special : {false, true}) {
    const std::vector<uint32_t> ids = tokenizer.encode(text, parse_special);
    StreamDecoder decoder(tokenizer, true);
    std::string streamed;
    for (const uint32_t id : ids) {
      require(id < tokenizer.vocabulary());
      streamed += decoder.push(id);
    }
    streamed += decoder.finish();
    require(is_utf8(streamed));
    const std::string decoded = tokenizer.decode(ids, true);
    if (is_utf8(decoded)) require(streamed == decoded);
  }
}

void load(std::string_view file) {
  const TokenizerArrays arrays =
      make_arrays(file.front() == '{' ? load_tokenizer_json(file, "fuzz", {})
                                      : load_sentencepiece_model(file, "fuzz", {}));
  const auto tensors = tensors_of(arrays);
  const Tokenizer tokenizer = Tokenizer::from_stored(arrays.settings, tensors);
  for (const std::string_view text : {std::string_view("the cat's 12 hats"),
                                      std::string_view(" \xe4\xb8\x96\xe7\x95\x8c e\xcc\x81\n\n\t<s>x</s>"),
                                      std::string_view("\xff\x00<|end|>\xf0\x9f", 12),
                                      std::string_view("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab")})
    use(tokenizer, text);
}

// A byte-level tokenizer with a few merges and special tokens.
struct Fixed {
  TokenizerArrays arrays;
  std::vector<StoredTensor> tensors;
  Tokenizer tokenizer;

  Fixed()
      : arrays(make_arrays(define())),
        tensors(tensors_of(arrays)),
        tokenizer(Tokenizer::from_stored(arrays.settings, tensors)) {}

  static TokenizerDefinition define() {
    TokenizerDefinition definition;
    definition.where = "fixed";
    TokenizerRules& rules = definition.rules;
    rules.byte_level = true;
    std::vector<uint32_t> ranks;
    for (uint32_t byte = 0; byte < 256; ++byte)
      definition.pieces.emplace_back(1, static_cast<char>(static_cast<unsigned char>(byte)));
    for (const char* piece :
         {"th", "the", " t", "  ", "    ", "\n\n", "aa", "aaaa", "ab", "\xc3\xa9", "\xff\xff"})
      definition.pieces.emplace_back(piece);
    for (uint32_t id = 0; id < definition.pieces.size(); ++id) ranks.push_back(id);
    merges_from_pieces(definition, definition.pieces, ranks);
    rules.pre_tokenizer.push_back({PreTokenizerStep::Kind::split_regex, std::string(kLlama3Pattern), "",
                                   SplitBehavior::isolated, false});
    for (const char* content : {"<s>", "<|end|>", "<|e"}) {
      AddedToken token;
      token.id = static_cast<uint32_t>(definition.pieces.size());
      token.content = token.pattern = content;
      token.special = true;
      definition.pieces.emplace_back(content);
      rules.added.push_back(token);
    }
    return definition;
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  if (bytes.front() == '{' || bytes.front() == '\n') {
    try {
      load(bytes);
    } catch (const FileError& error) {
      require(std::string_view(error.what()).find('\n') == std::string_view::npos);
    }
  } else {
    static const Fixed fixed;
    const std::string_view text = bytes.substr(1);
    for (const bool parse_special : {false, true})
      require(fixed.tokenizer.decode(fixed.tokenizer.encode(text, parse_special), true) == text);
    use(fixed.tokenizer, text);
  }
  return 0;
}
