// Added tokens: the files that list them, and how text that contains them is encoded.
#include <doctest/doctest.h>

#include "engine/tokenizer/tokenizer.h"
#include "tests/unit/tokenizer_files.h"

namespace {

using namespace tokenizer_files;
using nlohmann::json;
using tessera::Tokenizer;

using Ids = std::vector<uint32_t>;

}  // namespace

TEST_CASE("an added token that the model does not know is no symbol of its characters") {
  // Where the token's text is ordinary text, its only character is encoded as if there were no such token.
  const json vocabulary = {{"<unk>", 0}, {"<0xC3>", 1}, {"<0xA8>", 2}, {"a", 3}};
  const json document = {
      {"added_tokens", {{{"id", 4}, {"content", "\u00E8"}, {"special", true}}}},
      {"decoder", {{"type", "Sequence"}, {"decoders", {{{"type", "ByteFallback"}}, {{"type", "Fuse"}}}}}},
      {"model",
       {{"type", "BPE"},
        {"unk_token", "<unk>"},
        {"byte_fallback", true},
        {"vocab", vocabulary},
        {"merges", json::array()}}}};
  const Tokenizer characters = load({{"tokenizer.json", document.dump()}});
  CHECK(characters.encode("a\u00E8a", true) == Ids{3, 4, 3});
  CHECK(characters.encode("a\u00E8a", false) == Ids{3, 1, 2, 3});
  json bytes = byte_level_document({}, {});
  bytes["model"]["vocab"].erase("\u00A7");  // how vocabularies spell the byte 0xA7
  bytes["added_tokens"] = {{{"id", 0xA7}, {"content", "\u00A7"}, {"special", true}}};
  const Tokenizer incomplete = load({{"tokenizer.json", bytes.dump()}});
  CHECK(incomplete.encode("\u00A7", true) == Ids{0xA7});
  CHECK(incomplete.encode("\u00A7", false) == Ids{0xC2});  // a byte without a piece and without unk_token
}

TEST_CASE("tokens are added behind pieces whose characters are no pieces") {
  std::vector<Piece> pieces = first_pieces();
  pieces.insert(pieces.end(), {{"\u2581", -9}, {"bcb", -1}, {"bc", -2}});
  const auto next = static_cast<uint32_t>(pieces.size());
  const uint32_t mark = next - 3;
  const std::string model = sentencepiece_model(pieces);
  const std::string config =
      fmt::format(R"({{"added_tokens_decoder": {{"{}": {{"content": "<pad>", "special": true}}}}}})", next);
  const Tokenizer tokenizer = load({{"tokenizer.model", model}, {"tokenizer_config.json", config}});
  CHECK(tokenizer.encode("bcb<pad>", true) == Ids{mark, next - 2, next});
  CHECK(tokenizer.encode("bcbc", true) == Ids{mark, next - 2, 3 + 'c'});
  CHECK(tokenizer.encode("bc<pad>", true) == Ids{mark, next - 1, next});
  const Tokenizer plain = load({{"tokenizer.model", model}});
  CHECK(tokenizer.encode("bcbc cb bcb", false) == plain.encode("bcbc cb bcb", false));
}

TEST_CASE("tokens of folders that are older than added_tokens_decoder") {
  std::vector<Piece> pieces = first_pieces();
  pieces.insert(pieces.end(), {{"\u2581", -9}, {"a", -9}, {"\u2581a", -1}});
  const auto next = static_cast<uint32_t>(pieces.size());
  const uint32_t a = next - 1;  // with the space that precedes every part
  const std::string model = sentencepiece_model(pieces);
  // <s> is already known to be special, and this file does not change that.
  const std::string added = json{{"<end>", next + 1}, {"<im>", next}, {"<s>", 1}, {"<pad>", next + 2}}.dump();
  const std::string map =
      R"({"additional_special_tokens": ["<im>", {"content": "<x>"}], "pad_token": {"content": "<pad>"}})";
  const Tokenizer tokenizer =
      load({{"tokenizer.model", model}, {"added_tokens.json", added}, {"special_tokens_map.json", map}});
  CHECK(tokenizer.vocabulary() == next + 3);
  CHECK(tokenizer.encode("a<im>a<end><pad><s>", true) == Ids{a, next, a, next + 1, next + 2, 1});
  for (const uint32_t id : {next, next + 2, 1u}) CHECK(tokenizer.is_special(id));
  CHECK_FALSE(tokenizer.is_special(next + 1));
  CHECK(tokenizer.encode("<end>", false) == Ids{next + 1});
  CHECK(tokenizer.encode("<im>", false).size() == 1 + 4);
  CHECK(tokenizer.special_text("pad") == "<pad>");
  CHECK(tokenizer.decode(Ids{next + 1}, false) == "<end>");
  // Tokens beyond the model's vocabulary are left out.
  const Tokenizer narrow = load({{"tokenizer.model", model},
                                 {"added_tokens.json", added},
                                 {"special_tokens_map.json", map},
                                 {"config.json", fmt::format(R"({{"vocab_size": {}}})", next + 1)}});
  CHECK(narrow.vocabulary() == next + 1);
  CHECK(narrow.encode("a<im>", true) == Ids{a, next});
  // Where the newer list exists, the older one is ignored.
  const Tokenizer newer = load({{"tokenizer.model", model},
                                {"added_tokens.json", added},
                                {"tokenizer_config.json", R"({"added_tokens_decoder": {}})"}});
  CHECK(newer.vocabulary() == next);
}

TEST_CASE("a token of blanks is gone where the one before takes white space along") {
  // As in tokenizers 0.23, which leaves out a token of which nothing remains.
  json document = byte_level_document({}, {});
  document["added_tokens"] = {
      {{"id", 256}, {"content", "<x>"}, {"rstrip", true}, {"normalized", false}},
      {{"id", 257}, {"content", "\t\t"}, {"lstrip", true}, {"normalized", false}},
      {{"id", 258}, {"content", "\n"}, {"lstrip", true}, {"rstrip", true}, {"normalized", false}}};
  const Tokenizer tokenizer = load({{"tokenizer.json", document.dump()}});
  CHECK(tokenizer.encode("<x>  \t\th", true) == Ids{256, 'h'});
  CHECK(tokenizer.encode("a  \t\th", true) == Ids{'a', 257, 'h'});
  CHECK(tokenizer.encode("a\n \n\nb", true) == Ids{'a', 258, 'b'});
  CHECK(tokenizer.encode("<x>\n<x>", true) == Ids{256, 256});
}
