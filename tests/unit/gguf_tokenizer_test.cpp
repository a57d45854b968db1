// Tokenizers from GGUF metadata: against the same tokenizer from files of other formats, and every refusal.
#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <iostream>
#include <random>

#include "engine/tokenizer/gguf_pre_tokenizer.h"
#include "engine/tokenizer/pre_tokenizer.h"
#include "engine/tokenizer/tokenizer_definition.h"
#include "gguf-like-format/gguf/gguf_file.h"
#include "tests/unit/crafted_files.h"
#include "tests/unit/gguf_models.h"

using namespace tessera;
using namespace tessera::crafted;

namespace {

Tokenizer tokenizer_of(const GgufWriter& file) {
  const std::string content = file.file();
  return Tokenizer::from_gguf(parse_gguf(std::as_bytes(std::span(content)), "crafted.gguf").metadata);
}

GgufWriter byte_level() {
  GgufWriter file;
  add_byte_level(file, {{"t", "h"}, {"th", "e"}, {" ", "the"}, {"1", "2"}});
  return file;
}

// A SentencePiece vocabulary as a GGUF file and as the library's own.
struct SentencePieces {
  std::vector<tokenizer_files::Piece> pieces = tokenizer_files::first_pieces();

  GgufWriter gguf() const {
    std::vector<std::string> tokens;
    std::vector<float> scores;
    std::vector<int32_t> types;
    for (const auto& piece : pieces) {
      tokens.push_back(piece.text);
      scores.push_back(piece.score);
      types.push_back(static_cast<int32_t>(piece.type));
    }
    GgufWriter file;
    file.text("tokenizer.ggml.model", "llama");
    file.texts("tokenizer.ggml.tokens", tokens);
    file.numbers("tokenizer.ggml.scores", scores);
    file.integers("tokenizer.ggml.token_type", types);
    file.u32("tokenizer.ggml.bos_token_id", 1);
    file.u32("tokenizer.ggml.eos_token_id", 2);
    file.u32("tokenizer.ggml.unknown_token_id", 0);
    return file;
  }
  Tokenizer library() const {
    return tokenizer_files::load({{"tokenizer.model", tokenizer_files::sentencepiece_model(pieces)}});
  }
};

SentencePieces random_pieces(std::mt19937_64& random) {
  SentencePieces made;
  std::vector<std::string> texts{"\u2581", "a", "b", "c", "\u00e9", "\u4e16"};
  for (size_t i = 0; i < 60; ++i) {
    const std::string joined = texts[random() % texts.size()] + texts[random() % texts.size()];
    if (std::find(texts.begin(), texts.end(), joined) == texts.end() && joined.size() < 20)
      texts.push_back(joined);
  }
  for (const std::string& text : texts)
    made.pieces.push_back({text, -static_cast<float>(random() % 50), tokenizer_files::kNormal});
  return made;
}

std::string fault_of(const GgufWriter& file) {
  const std::string line = refusal([&] { tokenizer_of(file); });
  CAPTURE(line);
  CHECK(well_formed(line, "crafted.gguf"));
  return line;
}

std::string fault_with(const std::function<void(GgufWriter&)>& spoil) {
  GgufWriter file = byte_level();
  spoil(file);
  return fault_of(file);
}

std::string sentencepiece_fault(const std::function<void(SentencePieces&)>& spoil,
                                const std::function<void(GgufWriter&)>& then = {}) {
  SentencePieces made;
  made.pieces.push_back({"a", -1, tokenizer_files::kNormal});
  spoil(made);
  GgufWriter file = made.gguf();
  if (then) then(file);
  return fault_of(file);
}

std::vector<std::string> cut(std::string_view name, std::string_view text) {
  const GgufPreTokenizer* row = find_gguf_pre_tokenizer(name);
  REQUIRE(row != nullptr);
  std::vector<PreTokenizerStep> steps;
  for (const std::string_view pattern : row->patterns)
    steps.push_back(
        {PreTokenizerStep::Kind::split_regex, std::string(pattern), "", SplitBehavior::isolated, false});
  const PreTokenizer pre_tokenizer(steps, "test");
  std::vector<std::string> words;
  const WordList list = pre_tokenizer.split(text, true);
  for (const WordList::Word& word : list.words) words.emplace_back(word.text);
  return words;
}

// Lines of words, numbers, punctuation, other scripts, white space and special tokens' texts, at random.
std::string varied_line(std::mt19937_64& random) {
  static const std::vector<std::string> parts{"The",
                                              "capital",
                                              "of",
                                              "France",
                                              "is",
                                              "don't",
                                              "WE'LL",
                                              "it's",
                                              "I'm",
                                              "12",
                                              "2026",
                                              "3.14159",
                                              "1,000",
                                              "0x1F",
                                              "42nd",
                                              "v2.0",
                                              "...",
                                              "?!",
                                              "--",
                                              "(a)",
                                              "[b]",
                                              "{c: d}",
                                              "==",
                                              "->",
                                              "\"q\"",
                                              "`code`",
                                              "#include",
                                              "int main()",
                                              "return",
                                              "\n",
                                              "\n\n",
                                              "\t",
                                              "  ",
                                              "    ",
                                              " \n ",
                                              "\r\n",
                                              "caf\u00e9",
                                              "na\u00efve",
                                              "\u00fcber",
                                              "Stra\u00dfe",
                                              "\u4e16\u754c",
                                              "\u3053\u3093\u306b\u3061\u306f",
                                              "\u043f\u0440\u0438\u0432\u0435\u0442",
                                              "\u0645\u0631\u062d\u0628\u0627",
                                              "\u0939\u093f\u0928\u094d\u0926\u0940",
                                              "\U0001f600",
                                              "\U0001f468\u200d\U0001f469\u200d\U0001f467",
                                              "e\u0301",
                                              "\u00bd",
                                              "\u0663\u0664",
                                              "\u2167",
                                              "<|im_start|>",
                                              "<|im_end|>",
                                              "<|endoftext|>",
                                              "user",
                                              "assistant",
                                              "supercalifragilistic",
                                              "aaaaaaaaaa",
                                              "https://example.org/a?b=c&d=%20e",
                                              "foo_bar",
                                              "fooBar",
                                              "FOOBAR",
                                              "$9.99",
                                              "\u20ac5",
                                              "100%",
                                              "\xff",
                                              "\x01"};
  std::string line;
  for (size_t i = 0; i < 1 + random() % 14; ++i) {
    if (random() % 3 != 0) line += ' ';
    line += parts[random() % parts.size()];
  }
  return line;
}

}  // namespace

TEST_CASE("byte-level tokens, merges, special and added tokens") {
  const Tokenizer tokenizer = tokenizer_of(byte_level());
  CHECK(tokenizer.vocabulary() == 264);
  CHECK(tokenizer.bos() == 260u);
  CHECK(tokenizer.eos() == 261u);
  CHECK_FALSE(tokenizer.adds_bos());
  CHECK(tokenizer.special_text("bos") == "<s>");
  CHECK(tokenizer.encode(" the12", false) == std::vector<uint32_t>{258, 259});
  CHECK(tokenizer.encode("the</s>", true) == std::vector<uint32_t>{257, 261});
  CHECK(tokenizer.encode("</s>", false).size() == 4);
  CHECK(tokenizer.encode("<tool>the", false) == std::vector<uint32_t>{262, 257});  // matched in any text
  CHECK(tokenizer.encode("[PAD]", true).size() == 5);                              // never matched
  CHECK(tokenizer.is_special(260));
  CHECK_FALSE(tokenizer.is_special(262));
  GgufWriter padded = byte_level();
  padded.u32("tokenizer.ggml.padding_token_id", '!');
  CHECK_FALSE(tokenizer_of(padded).is_special('!'));
  CHECK(tokenizer_of(padded).special_text("pad").empty());
  GgufWriter untyped = byte_level();
  untyped.remove("tokenizer.ggml.token_type");
  CHECK(tokenizer_of(untyped).eos() == 261u);
  CHECK(tokenizer_of(untyped).encode("the</s>", true) == std::vector<uint32_t>{257, 261});
  GgufWriter digits = byte_level();
  digits.text("tokenizer.ggml.pre", "smollm");  // digits are words of their own
  CHECK(tokenizer_of(digits).encode("12", false) == std::vector<uint32_t>{'1', '2'});
  GgufWriter llama3 = byte_level();
  llama3.text("tokenizer.ggml.pre", "llama-bpe");
  CHECK(tokenizer_of(llama3).adds_bos());
  llama3.boolean("tokenizer.ggml.add_bos_token", false);
  CHECK_FALSE(tokenizer_of(llama3).adds_bos());
  GgufWriter composed = byte_level();
  CHECK(tokenizer_of(composed).encode("e\u0301", false).size() == 3);
  composed.text("tokenizer.ggml.pre", "qwen2");
  CHECK(tokenizer_of(composed).encode("e\u0301", false) == std::vector<uint32_t>{0xC3, 0xA9});
  GgufWriter whole = byte_level();
  whole.texts("tokenizer.ggml.merges", {});
  CHECK(tokenizer_of(whole).encode("the", false).size() == 3);
  whole.text("tokenizer.ggml.pre", "llama-bpe");  // a word that is a piece needs no merges
  CHECK(tokenizer_of(whole).encode("the", false) == std::vector<uint32_t>{257});
  GgufWriter spaced = byte_level();
  spaced.boolean("tokenizer.ggml.add_space_prefix", true);
  CHECK(tokenizer_of(spaced).encode("the", false) == std::vector<uint32_t>{258});
}

TEST_CASE("names of pre-tokenizers cut words as their models do") {
  using Words = std::vector<std::string>;
  const std::string text = "I'LL pay 12345 FooBAR's";
  CHECK(cut("gpt-2", text) == Words{"I", "'", "LL", " pay", " 12345", " FooBAR", "'s"});
  CHECK(cut("llama-bpe", text) == Words{"I", "'LL", " pay", " ", "123", "45", " FooBAR", "'s"});
  CHECK(cut("qwen2", text) == Words{"I", "'LL", " pay", " ", "1", "2", "3", "4", "5", " FooBAR", "'s"});
  CHECK(cut("smollm", text) == Words{"I", "'", "LL", " pay", " ", "1", "2", "3", "4", "5", " FooBAR", "'s"});
  CHECK(cut("tekken", text) == Words{"I", "'LL", " pay", " ", "1", "2", "3", "4", "5", " Foo", "BAR", "'s"});
  CHECK(cut("gpt-4o", text) == Words{"I'LL", " pay", " ", "123", "45", " Foo", "BAR's"});
  CHECK(cut("falcon", "ab`c 12345") == Words{"ab", "`", "c", " ", "123", "45"});
  CHECK(cut("default", "ab`c 12345") == Words{"ab", "`", "c", " ", "123", "45"});
  CHECK(cut("default", "a+b") == Words{"a", "+", "b"});
  for (const char* name :
       {"llama3", "llama-v3", "falcon3", "pixtral", "dbrx", "smaug-bpe", "chatglm-bpe", "glm4"})
    CHECK(cut(name, text) == cut("llama-bpe", text));
  for (const char* name : {"deepseek-r1-qwen", "stablelm2"}) CHECK(cut(name, text) == cut("qwen2", text));
  for (const char* name : {"phi-2", "mpt", "olmo"}) CHECK(cut(name, text) == cut("gpt-2", text));
  for (const char* name : {"starcoder", "refact", "command-r", "codeshell"})
    CHECK(cut(name, text) == cut("smollm", text));
}

TEST_CASE("SentencePiece vocabularies tokenize as the library's own files do") {
  const uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  for (size_t round = 0; round < 10; ++round) {
    const SentencePieces made = random_pieces(random);
    const Tokenizer ours = tokenizer_of(made.gguf());
    const Tokenizer theirs = made.library();
    CHECK(ours.adds_bos());
    CHECK(ours.bos() == 1u);
    CHECK(ours.eos() == 2u);
    CHECK(ours.special_text("unk") == "<unk>");
    for (size_t line = 0; line < 40; ++line) {
      std::string text;
      for (size_t i = 0; i < 1 + random() % 20; ++i) {
        static const std::vector<std::string> parts{"a",  "b",      "c",      "ab", " ",
                                                    "  ", "\u00e9", "\u4e16", "z",  "</s>"};
        text += parts[random() % parts.size()];
      }
      CAPTURE(text);
      for (const bool parse_special : {false, true}) {
        const auto ids = ours.encode(text, parse_special);
        CHECK(ids == theirs.encode(text, parse_special));
        CHECK(ours.decode(ids, true) == theirs.decode(ids, true));
      }
    }
    GgufWriter plain = made.gguf();
    plain.boolean("tokenizer.ggml.add_space_prefix", false);
    plain.boolean("tokenizer.ggml.add_bos_token", false);
    const Tokenizer without = tokenizer_of(plain);
    CHECK_FALSE(without.adds_bos());
    CHECK(without.decode(without.encode(" a b", false), false) == " a b");
  }
}

TEST_CASE("vocabularies that are broken or not supported are refused by key") {
  CHECK(contains(fault_with([](GgufWriter& f) { f.remove("tokenizer.ggml.model"); }),
                 "tokenizer.ggml.model: expected a value, found none"));
  CHECK(contains(fault_with([](GgufWriter& f) { f.text("tokenizer.ggml.model", "t5"); }),
                 "tokenizer.ggml.model: expected gpt2 or llama, found \"t5\""));
  CHECK(contains(fault_with([](GgufWriter& f) { f.text("tokenizer.ggml.pre", "deepseek-llm"); }),
                 "tokenizer.ggml.pre: expected one of llama-bpe"));
  CHECK(contains(fault_with([](GgufWriter& f) { f.text("tokenizer.ggml.pre", "deepseek-llm"); }),
                 "found \"deepseek-llm\""));
  CHECK(contains(fault_with([](GgufWriter& f) { f.remove("tokenizer.ggml.tokens"); }),
                 "tokenizer.ggml.tokens"));
  CHECK(contains(fault_with([](GgufWriter& f) { f.texts("tokenizer.ggml.tokens", {}); }),
                 "tokenizer.ggml.tokens: expected 1 to 16777216 tokens, found 0"));
  CHECK(contains(fault_with([](GgufWriter& f) {
                   f.texts("tokenizer.ggml.tokens", {"a", "\xff"});
                   f.remove("tokenizer.ggml.token_type");
                 }),
                 "tokenizer.ggml.tokens[1]: expected text in UTF-8"));
  CHECK(contains(
      fault_with([](GgufWriter& f) {
        f.texts("tokenizer.ggml.tokens", {"a", "a"});
        f.remove("tokenizer.ggml.token_type");
      }),
      "tokenizer.ggml.tokens[1]: expected a text that appears once, found \"a\", which is also token 0"));
  CHECK(contains(fault_with([](GgufWriter& f) { f.integers("tokenizer.ggml.token_type", {1}); }),
                 "tokenizer.ggml.token_type: expected 264 items, one for each token, found 1"));
  CHECK(contains(fault_with([](GgufWriter& f) {
                   f.integers("tokenizer.ggml.token_type", std::vector<int32_t>(264, 7));
                 }),
                 "tokenizer.ggml.token_type: expected an integer from 1 to 6, found 7"));
  CHECK(contains(fault_with([](GgufWriter& f) { f.texts("tokenizer.ggml.merges", {"th"}); }),
                 "tokenizer.ggml.merges[0]: expected two pieces, found \"th\""));
  CHECK(contains(fault_with([](GgufWriter& f) {
                   f.texts("tokenizer.ggml.merges", {"t h", "q r"});
                 }),
                 "tokenizer.ggml.merges[1]: expected pieces of the vocabulary, found \"q r\""));
  CHECK(contains(fault_with([](GgufWriter& f) { f.remove("tokenizer.ggml.merges"); }),
                 "tokenizer.ggml.merges"));
  CHECK(contains(fault_with([](GgufWriter& f) { f.u32("tokenizer.ggml.bos_token_id", 264); }),
                 "tokenizer.ggml.bos_token_id: expected an integer from 0 to 263, found 264"));

  using Pieces = SentencePieces;
  CHECK(
      contains(sentencepiece_fault([](Pieces& p) { p.pieces.erase(p.pieces.begin() + 10); }),
               "tokenizer.ggml.tokens: expected a token for each of the 256 bytes, or for none, found 255"));
  CHECK(contains(sentencepiece_fault([](Pieces& p) { p.pieces[10].text = "<0xZZ>"; }),
                 "tokenizer.ggml.tokens[10]: expected a byte such as <0x41>, found \"<0xZZ>\""));
  CHECK(contains(sentencepiece_fault([](Pieces& p) { p.pieces.back().score = std::nanf(""); }),
                 "tokenizer.ggml.scores[259]: expected a finite number, found nan"));
  CHECK(contains(
      sentencepiece_fault([](Pieces&) {}, [](GgufWriter& f) { f.numbers("tokenizer.ggml.scores", {1}); }),
      "tokenizer.ggml.scores: expected 260 items, one for each token, found 1"));
  CHECK(contains(sentencepiece_fault(
                     [](Pieces& p) {
                       p.pieces = {{"a", 0, tokenizer_files::kNormal},
                                   {"b", 0, tokenizer_files::kNormal},
                                   {"c", 0, tokenizer_files::kNormal}};
                     },
                     [](GgufWriter& f) { f.remove("tokenizer.ggml.unknown_token_id"); }),
                 "tokenizer.ggml.tokens: expected tokens for bytes or an unknown token, found neither"));
}

TEST_CASE("SmolLM2's GGUF file tokenizes as its folder does") {
  const char* folder = std::getenv("TESSERA_REAL_MODELS");  // what fetch_real.sh wrote
  const std::string file = std::string(folder == nullptr ? "" : folder) + "/smollm2-135m-instruct.gguf";
  const std::string original = TESSERA_SHARED_DIR "/tokenizers/smollm2";
  if (folder == nullptr || !std::filesystem::exists(file) || !std::filesystem::exists(original)) {
    std::cout << "skipped: no smollm2-135m-instruct.gguf in $TESSERA_REAL_MODELS\n";
    MESSAGE("skipped: no smollm2-135m-instruct.gguf in $TESSERA_REAL_MODELS");
    return;
  }
  const GgufFile gguf = GgufFile::open(file);
  const Tokenizer ours = Tokenizer::from_gguf(gguf.metadata());
  const Tokenizer theirs = Tokenizer::from_folder(original);
  CHECK(ours.vocabulary() == theirs.vocabulary());
  const uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  size_t tokens = 0;
  for (size_t i = 0; i < 1000; ++i) {
    const std::string line = varied_line(random);
    CAPTURE(line);
    for (const bool parse_special : {false, true}) {
      const auto ids = ours.encode(line, parse_special);
      REQUIRE(ids == theirs.encode(line, parse_special));
      CHECK(ours.decode(ids, true) == theirs.decode(ids, true));
      tokens += ids.size();
    }
  }
  std::cout << "1000 lines, " << tokens << " tokens\n";
}
