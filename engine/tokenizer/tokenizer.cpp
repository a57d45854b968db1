#include "engine/tokenizer/tokenizer.h"

#include <fmt/format.h>

#include <filesystem>
#include <unordered_map>
#include <utility>

#include "engine/tokenizer/added_tokens.h"
#include "engine/tokenizer/bpe_encoder.h"
#include "engine/tokenizer/normalizer.h"
#include "engine/tokenizer/pre_tokenizer.h"
#include "engine/tokenizer/stored_tokenizer.h"
#include "engine/tokenizer/tokenizer_definition.h"
#include "gguf-like-format/file_error.h"
#include "gguf-like-format/strict_json.h"

namespace tessera {

namespace {

constexpr size_t kMostFileBytes = size_t{256} << 20;

template <typename Word>
StoredTensor vector_tensor(const std::string& name, Scheme scheme, const std::vector<Word>& values) {
  StoredTensor tensor;
  tensor.name = name;
  tensor.scheme = scheme;
  tensor.shape = {values.size()};
  tensor.bytes = std::as_bytes(std::span<const Word>(values));
  return tensor;
}

std::vector<StoredTensor> tensors_of(const TokenizerArrays& arrays) {
  std::vector<StoredTensor> tensors;
  for (const auto& [name, values] : arrays.byte_tensors)
    tensors.push_back(vector_tensor(name, Scheme::u8, values));
  for (const auto& [name, values] : arrays.word_tensors)
    tensors.push_back(vector_tensor(name, Scheme::u32, values));
  return tensors;
}

TokenizerDefinition load_folder(const std::string& folder, const TokenizerConfig& config) {
  const std::filesystem::path base(folder);
  const auto has = [&](const char* name) { return std::filesystem::exists(base / name); };
  const auto path = [&](const char* name) { return (base / name).string(); };
  const auto read = [&](const char* name) { return read_text_file(path(name), kMostFileBytes); };
  if (has("tokenizer.json"))
    return load_tokenizer_json(read("tokenizer.json"), path("tokenizer.json"), config);
  if (has("tokenizer.model")) {
    const std::string bytes = read("tokenizer.model");
    // A SentencePiece model begins with the field tag of its first piece, a byte that is not base64.
    const bool protobuf = !bytes.empty() && bytes.front() == '\n';
    return protobuf ? load_sentencepiece_model(bytes, path("tokenizer.model"), config)
                    : load_tiktoken(bytes, path("tokenizer.model"), config, llama3_tiktoken());
  }
  if (has("qwen.tiktoken"))
    return load_tiktoken(read("qwen.tiktoken"), path("qwen.tiktoken"), config, qwen_tiktoken());
  if (has("vocab.json") && has("merges.txt"))
    return load_vocab_merges(read("vocab.json"), path("vocab.json"), read("merges.txt"), path("merges.txt"),
                             config);
  if (has("encoder.json") && has("vocab.bpe"))
    return load_vocab_merges(read("encoder.json"), path("encoder.json"), read("vocab.bpe"), path("vocab.bpe"),
                             config);
  throw FileError(
      fmt::format("{}: expected tokenizer.json, tokenizer.model, qwen.tiktoken, vocab.json with merges.txt "
                  "or encoder.json with "
                  "vocab.bpe, found none of them",
                  folder));
}

}  // namespace

struct Tokenizer::State {
  TokenizerArrays arrays;  // owns the bytes, unless they belong to a file
  TokenizerSettings settings;
  StoredTokenizer stored;
  AddedTokenFinder raw_tokens;         // found in the text as it is
  AddedTokenFinder normalized_tokens;  // found in normalized text
  PreTokenizer pre_tokenizer;
  std::unordered_map<uint32_t, const AddedToken*> added_by_id;
  std::unordered_map<std::string_view, uint32_t> added_by_text;

  State(TokenizerSettings from, StoredTokenizer checked)
      : settings(std::move(from)),
        stored(std::move(checked)),
        raw_tokens(stored.rules.added, false),
        normalized_tokens(stored.rules.added, true),
        pre_tokenizer(stored.rules.pre_tokenizer, "tokenizer: pre_tokenizer") {
    for (const AddedToken& token : stored.rules.added) {
      added_by_id.emplace(token.id, &token);
      added_by_text.emplace(token.content, token.id);
    }
  }

  std::vector<uint32_t> encode(std::string_view text, const Quotes& quotes) const {
    std::vector<uint32_t> ids;
    BpeEncoder encoder(stored);
    for (const TextSegment& segment : raw_tokens.split(text, quotes)) {
      if (segment.token != nullptr) {
        ids.push_back(segment.token->id);
      } else {
        const auto begin = static_cast<size_t>(segment.text.data() - text.data());
        encode_segment(segment.text, quotes, begin, encoder, ids);
      }
    }
    return ids;
  }

  // Encodes a segment between added tokens. It begins at byte `begin` of the text to which the quotes belong.
  void encode_segment(std::string_view segment, const Quotes& quotes, size_t begin, BpeEncoder& encoder,
                      std::vector<uint32_t>& ids) const {
    bool at_start = begin == 0;
    if (stored.rules.normalizer.empty() && normalized_tokens.empty()) {
      encode_words(segment, at_start, encoder, ids);
      return;
    }
    QuotedText text = as_unquoted(std::string(segment));
    text.quotes.add(quotes, begin, begin + segment.size(), 0);
    text = normalize(stored.rules.normalizer, std::move(text), at_start);
    for (const TextSegment& part : normalized_tokens.split(text.text, text.quotes)) {
      if (part.token != nullptr) {
        ids.push_back(part.token->id);
      } else {
        encode_words(part.text, at_start, encoder, ids);
      }
      at_start = false;
    }
  }

  void encode_words(std::string_view text, bool at_start, BpeEncoder& encoder,
                    std::vector<uint32_t>& ids) const {
    const WordList list = pre_tokenizer.split(text, at_start);
    for (const WordList::Word& word : list.words) encoder.encode(word.text, ids);
    encoder.forget();
  }
};

Tokenizer::Tokenizer(std::unique_ptr<const State> state) : state_(std::move(state)) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

Tokenizer Tokenizer::from_folder(const std::string& folder, std::vector<std::string>* notes) {
  const TokenizerConfig config = read_tokenizer_config(folder);
  TokenizerDefinition definition = load_folder(folder, config);
  if (notes != nullptr)
    for (const auto& lines : {config.notes, definition.notes})
      notes->insert(notes->end(), lines.begin(), lines.end());
  return from_definition(std::move(definition));
}

Tokenizer Tokenizer::from_gguf(const GgufMetadata& metadata, std::vector<std::string>* notes) {
  TokenizerDefinition definition = load_gguf_vocabulary(metadata);
  if (notes != nullptr) notes->insert(notes->end(), definition.notes.begin(), definition.notes.end());
  return from_definition(std::move(definition));
}

Tokenizer Tokenizer::from_definition(TokenizerDefinition definition) {
  const std::string where = definition.where;
  try {
    TokenizerArrays arrays = make_arrays(std::move(definition));
    StoredTokenizer stored = read_stored_tokenizer(arrays.settings, tensors_of(arrays));
    auto state = std::make_unique<State>(arrays.settings, std::move(stored));
    state->arrays = std::move(arrays);  // moving a vector does not move its elements, so the views stay valid
    return Tokenizer(std::move(state));
  } catch (const FileError& error) {  // these errors do not name the file
    throw FileError(fmt::format("{}: {}", where, error.what()));
  }
}

Tokenizer Tokenizer::from_stored(const TokenizerSettings& settings, std::span<const StoredTensor> tensors) {
  return Tokenizer(std::make_unique<State>(settings, read_stored_tokenizer(settings, tensors)));
}

TokenizerArrays Tokenizer::store() const {
  const StoredTokenizer& stored = state_->stored;
  TokenizerArrays arrays;
  arrays.settings = state_->settings;
  arrays.byte_tensors.emplace_back("tokenizer.pieces",
                                   std::vector<uint8_t>(stored.pieces.begin(), stored.pieces.end()));
  const auto add = [&](const char* name, const WordArray& array) {
    const auto words = array.words();
    if (!words.empty())
      arrays.word_tensors.emplace_back(name, std::vector<uint32_t>(words.begin(), words.end()));
  };
  add("tokenizer.offsets", stored.offsets);
  add("tokenizer.merge_first", stored.merge_first);
  add("tokenizer.merges", stored.merges);
  add("tokenizer.characters", stored.characters);
  add("tokenizer.byte_tokens", stored.byte_tokens);
  add("tokenizer.sorted_words", stored.sorted_words);
  return arrays;
}

size_t Tokenizer::vocabulary() const { return state_->stored.vocabulary; }
std::optional<uint32_t> Tokenizer::bos() const { return state_->stored.rules.bos; }
std::optional<uint32_t> Tokenizer::eos() const { return state_->stored.rules.eos; }
bool Tokenizer::adds_bos() const { return state_->stored.rules.adds_bos; }

std::string Tokenizer::special_text(std::string_view role) const {
  constexpr std::string_view suffix = "_token";
  if (role.size() > suffix.size() && role.substr(role.size() - suffix.size()) == suffix)
    role.remove_suffix(suffix.size());
  const auto found = state_->stored.rules.roles.find(std::string(role));
  return found == state_->stored.rules.roles.end() ? std::string() : found->second;
}

std::optional<uint32_t> Tokenizer::find(std::string_view piece) const {
  const auto found = state_->added_by_text.find(piece);
  if (found == state_->added_by_text.end()) return std::nullopt;
  return found->second;
}

bool Tokenizer::is_special(uint32_t id) const {
  const auto found = state_->added_by_id.find(id);
  return found != state_->added_by_id.end() && found->second->special;
}

std::vector<uint32_t> Tokenizer::encode(std::string_view text, bool parse_special) const {
  Quotes quotes;
  if (!parse_special) quotes.add(0, text.size());
  return state_->encode(text, quotes);
}

std::vector<uint32_t> Tokenizer::encode(const QuotedText& text) const {
  return state_->encode(text.text, text.quotes);
}

std::string Tokenizer::token_bytes(uint32_t id, bool show_special) const {
  if (id >= state_->stored.vocabulary) return {};
  if (!show_special && is_special(id)) return {};
  return std::string(state_->stored.piece(id));
}

std::string Tokenizer::decode(std::span<const uint32_t> ids, bool show_special) const {
  std::string text;
  for (const uint32_t id : ids) {
    if (id >= state_->stored.vocabulary || (!show_special && is_special(id))) continue;
    text += state_->stored.piece(id);
  }
  if (state_->stored.rules.strip_leading_space && !text.empty() && text.front() == ' ') text.erase(0, 1);
  return text;
}

}  // namespace tessera
