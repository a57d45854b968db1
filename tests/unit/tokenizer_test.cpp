// Small tokenizers that the tests create: merging, segments, malformed text, streaming and SentencePiece
// rules.
#include "engine/tokenizer/tokenizer.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <map>
#include <random>
#include <set>

#include "gguf-like-format/file_error.h"
#include "tests/unit/tokenizer_files.h"

namespace {

using namespace tokenizer_files;
using nlohmann::json;
using tessera::FileError;
using tessera::StreamDecoder;
using tessera::Tokenizer;

using Ids = std::vector<uint32_t>;
using Merges = std::vector<std::pair<std::string, std::string>>;

std::mt19937 seeded() {
  const auto seed = std::random_device{}();
  std::cout << "seed " << seed << "\n";
  return std::mt19937(seed);
}

std::string random_text(std::mt19937& random, const std::string& letters, size_t length) {
  std::string text;
  for (size_t i = 0; i < length; ++i) text += letters[random() % letters.size()];
  return text;
}

// BPE by its definition: merges the neighbours of lowest rank, leftmost first, until no neighbours can be
// merged.
std::vector<std::string> merge_slowly(std::vector<std::string> parts,
                                      const std::map<std::pair<std::string, std::string>, size_t>& ranks) {
  while (true) {
    size_t best = parts.size();
    size_t best_rank = ranks.size();
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto found = ranks.find({parts[i], parts[i + 1]});
      if (found != ranks.end() && found->second < best_rank) {
        best = i;
        best_rank = found->second;
      }
    }
    if (best == parts.size()) return parts;
    parts[best] += parts[best + 1];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

// Random merges of existing pieces, over few letters, so that many merges compete.
Merges random_merges(std::mt19937& random, const std::string& letters, size_t count) {
  std::vector<std::string> pieces;
  for (const char c : letters) pieces.emplace_back(1, c);
  std::set<std::pair<std::string, std::string>> seen;
  Merges merges;
  for (size_t tries = 0; merges.size() < count && tries < 20 * count; ++tries) {
    std::pair<std::string, std::string> merge{pieces[random() % pieces.size()],
                                              pieces[random() % pieces.size()]};
    if (merge.first.size() + merge.second.size() > 12 || !seen.insert(merge).second) continue;
    const std::string joined = merge.first + merge.second;
    if (std::find(pieces.begin(), pieces.end(), joined) == pieces.end()) pieces.push_back(joined);
    merges.push_back(std::move(merge));
  }
  return merges;
}

std::string stream(const Tokenizer& tokenizer, const Ids& ids, bool show_special = true) {
  StreamDecoder decoder(tokenizer, show_special);
  std::string text;
  for (const uint32_t id : ids) {
    const std::string more = decoder.push(id);
    CHECK(tessera::is_utf8(more));
    text += more;
  }
  return text + decoder.finish();
}

Tokenizer byte_tokenizer(const Merges& merges = {}) {
  return load({{"tokenizer.json", byte_level_document(merges).dump()}});
}

}  // namespace

TEST_CASE("merging equals the definition for short and long words") {
  auto random = seeded();
  for (int round = 0; round < 30; ++round) {
    const std::string letters = std::string("abcdefgh").substr(0, 2 + random() % 6);
    const Merges merges = random_merges(random, letters, 1 + random() % 60);
    std::map<std::pair<std::string, std::string>, size_t> ranks;
    for (size_t i = 0; i < merges.size(); ++i) ranks.emplace(merges[i], i);
    const Tokenizer tokenizer = byte_tokenizer(merges);
    for (int text_number = 0; text_number < 20; ++text_number) {
      const std::string text = random_text(random, letters, random() % (text_number % 2 == 0 ? 45 : 400));
      CAPTURE(text);
      std::vector<std::string> parts;
      for (const char c : text) parts.emplace_back(1, c);
      const auto expected = merge_slowly(parts, ranks);
      const Ids ids = tokenizer.encode(text, false);
      std::vector<std::string> got;
      for (const uint32_t id : ids) got.push_back(tokenizer.token_bytes(id, true));
      CHECK(got == expected);
    }
  }
}

TEST_CASE("a word of a million letters takes no quadratic time") {
  auto random = seeded();
  const Tokenizer tokenizer = byte_tokenizer(random_merges(random, "ab", 200));
  for (const std::string& text : {std::string(1'000'000, 'a'), random_text(random, "ab", 1'000'000)}) {
    const auto begin = std::chrono::steady_clock::now();
    const Ids ids = tokenizer.encode(text, true);
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
    CHECK(tokenizer.decode(ids, true) == text);
    CHECK(taken.count() < 60.0);  // a quadratic algorithm takes many minutes
  }
}

TEST_CASE("long runs of combining marks are composed without quadratic time") {
  json document = byte_level_document({});
  document["normalizer"] = {{"type", "NFC"}};
  const Tokenizer tokenizer = load({{"tokenizer.json", document.dump()}});
  std::string text = "e";
  for (int i = 0; i < 200'000; ++i) text += i % 2 == 0 ? "\u0301" : "\u0323";
  const auto begin = std::chrono::steady_clock::now();
  const std::string composed = tokenizer.decode(tokenizer.encode(text, true), true);
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
  CHECK(taken.count() < 60.0);
  CHECK(composed.substr(0, 5) ==
        "\u1EB9\u0323");  // e with the first dot below, then the other dots, then accents
  CHECK(composed.substr(composed.size() - 2) == "\u0301");
}

TEST_CASE("malformed UTF-8 round trips through byte-level tokenizers") {
  auto random = seeded();
  json document = byte_level_document({{"a", "b"}, {"\xc3", "\xa9"}, {"\xff", "\xff"}, {" ", "a"}});
  document["pre_tokenizer"]["use_regex"] = true;
  const Tokenizer tokenizer = load({{"tokenizer.json", document.dump()}});
  const std::vector<std::string> cases{"\xff",
                                       "\xc3",
                                       "\xc3(",
                                       "a\x80 b",
                                       "\xed\xa0\x80",      // a surrogate
                                       "\xf4\x90\x80\x80",  // above U+10FFFF
                                       "\xc0\xaf",          // overlong
                                       "\xf0\x9f\x98",      // cut short
                                       "\xf0\x9f\x98\xf0\x9f\x98\x80",
                                       "\xe2\x82\xc3\xa9",
                                       std::string("\0\xfe\0", 3),
                                       "ab\xff"
                                       "ab\xff\xff ab"};
  for (const std::string& text : cases) {
    CAPTURE(text);
    CHECK(tokenizer.decode(tokenizer.encode(text, true), true) == text);
  }
  // Every malformed byte is a piece of its own, whatever the merges say.
  CHECK(tokenizer.encode("\xff\xff", true) == Ids{0xff, 0xff});
  CHECK(tokenizer.encode("\xe2\x82\xc3\xa9", true) == Ids{0xe2, 0x82, 257});
  for (int round = 0; round < 500; ++round) {
    std::string text;
    for (size_t i = random() % 40; i > 0; --i) text += static_cast<char>(random() % 256);
    const Ids ids = tokenizer.encode(text, round % 2 == 0);
    CHECK(tokenizer.decode(ids, true) == text);
  }
}

TEST_CASE("streams never hold half a character and add up to the whole text") {
  auto random = seeded();
  const Tokenizer tokenizer = byte_tokenizer();  // one id per byte: the hardest case
  const std::vector<std::string> characters{"a",      " ",          "\n",     "\u00e9", "\u20ac",
                                            "\u4e16", "\U0001F600", "\u200d", "\u0301"};
  for (int round = 0; round < 100; ++round) {
    std::string text;
    for (size_t i = random() % 20; i > 0; --i) text += characters[random() % characters.size()];
    const Ids ids = tokenizer.encode(text, true);
    CHECK(stream(tokenizer, ids) == text);
    CHECK(tokenizer.decode(ids, true) == text);
  }
  StreamDecoder decoder(tokenizer);
  CHECK(decoder.push(0xF0).empty());
  CHECK(decoder.push(0x9F).empty());
  CHECK(decoder.push(0x98).empty());
  CHECK(decoder.push(0x80) == "\U0001F600");
  CHECK(decoder.push(0xE2).empty());
  CHECK(decoder.push(0x82).empty());
  CHECK(decoder.push('a') == "\uFFFDa");  // the two bytes cannot be a character: one U+FFFD replaces them
  CHECK(decoder.push(0xFF) == "\uFFFD");
  CHECK(decoder.push(0xC3).empty());
  CHECK(decoder.finish() == "\uFFFD");
  CHECK(decoder.finish().empty());
  CHECK(decoder.push(0xFFFFFF).empty());  // an id beyond the vocabulary has no text
}

TEST_CASE("special tokens are matched only on request and hidden unless asked for") {
  json document = byte_level_document({}, {"<|end|>", "<|end|>x", "<|e"});
  document["added_tokens"][2]["special"] = false;
  const Tokenizer tokenizer = load({{"tokenizer.json", document.dump()}});
  CHECK(tokenizer.vocabulary() == 259);
  CHECK(tokenizer.encode("a<|end|>b", true) == Ids{'a', 256, 'b'});
  CHECK(tokenizer.encode("<|end|>xy", true) == Ids{257, 'y'});  // the longest wins
  CHECK(tokenizer.encode("<|end", true) == Ids{258, 'n', 'd'});
  CHECK(tokenizer.encode("<|end|>", false) == Ids{'<', '|', 'e', 'n', 'd', '|', '>'});
  CHECK(tokenizer.encode("<|e", false) == Ids{258});  // added, but not special
  CHECK(tokenizer.find("<|end|>") == 256u);
  CHECK_FALSE(tokenizer.find("a").has_value());
  CHECK(tokenizer.is_special(256));
  CHECK_FALSE(tokenizer.is_special(258));
  CHECK_FALSE(tokenizer.is_special(70000));
  CHECK(tokenizer.decode(Ids{'a', 256, 258}, false) == "a<|e");
  CHECK(tokenizer.decode(Ids{'a', 256, 258}, true) == "a<|end|><|e");
  CHECK(tokenizer.token_bytes(256, false).empty());
  CHECK(tokenizer.token_bytes(256, true) == "<|end|>");
  CHECK(tokenizer.decode(Ids{1u << 30}, true).empty());
  CHECK(stream(tokenizer, {256, 'a'}, false) == "a");
}

TEST_CASE("roles come from the files beside the tokenizer") {
  const std::string document = byte_level_document({}, {"<b>", "<e>", "<p>"}).dump();
  SUBCASE("tokenizer_config.json") {
    const Tokenizer tokenizer = load(
        {{"tokenizer.json", document},
         {"tokenizer_config.json",
          R"({"bos_token": "<b>", "eos_token": {"content": "<e>"}, "pad_token": "<p>", "add_bos_token": true})"}});
    CHECK(tokenizer.bos() == 256u);
    CHECK(tokenizer.eos() == 257u);
    CHECK(tokenizer.adds_bos());
    CHECK(tokenizer.special_text("bos") == "<b>");
    CHECK(tokenizer.special_text("eos_token") == "<e>");
    CHECK(tokenizer.special_text("pad") == "<p>");
    CHECK(tokenizer.special_text("unk").empty());
  }
  SUBCASE("config.json") {
    const Tokenizer tokenizer =
        load({{"tokenizer.json", document},
              {"config.json", R"({"bos_token_id": 256, "eos_token_id": [257, 258]})"}});
    CHECK(tokenizer.bos() == 256u);
    CHECK(tokenizer.eos() == 257u);
    CHECK_FALSE(tokenizer.adds_bos());
    CHECK(tokenizer.special_text("bos") == "<b>");
    CHECK(tokenizer.special_text("eos") == "<e>");
  }
  SUBCASE("config.json beside a tokenizer_config.json without bos, as Qwen2 has it") {
    const Tokenizer tokenizer = load({{"tokenizer.json", document},
                                      {"tokenizer_config.json", R"({"bos_token": null, "eos_token": "<e>"})"},
                                      {"config.json", R"({"bos_token_id": 256, "eos_token_id": 258})"}});
    CHECK(tokenizer.bos() == 256u);
    CHECK(tokenizer.eos() == 257u);
    CHECK_FALSE(tokenizer.adds_bos());
    CHECK(tokenizer.special_text("bos").empty());  // templates print nothing for it
    CHECK(tokenizer.special_text("eos") == "<e>");
  }
  SUBCASE("post-processor") {
    json with_template = json::parse(document);
    with_template["post_processor"] =
        json::parse(R"({"type": "Sequence", "processors": [{"type": "ByteLevel"},
      {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<b>", "type_id": 0}},
      {"Sequence": {"id": "A", "type_id": 0}}]}]})");
    const Tokenizer tokenizer = load({{"tokenizer.json", with_template.dump()}});
    CHECK(tokenizer.bos() == 256u);
    CHECK(tokenizer.adds_bos());
    CHECK(tokenizer.special_text("bos") == "<b>");
    CHECK_FALSE(tokenizer.eos().has_value());
    const Tokenizer without = load(
        {{"tokenizer.json", with_template.dump()}, {"tokenizer_config.json", R"({"add_bos_token": false})"}});
    CHECK_FALSE(without.adds_bos());
    CHECK(without.bos() == 256u);
    CHECK(without.special_text("bos").empty());
  }
}

TEST_CASE("SentencePiece merging equals the definition on random models") {
  auto random = seeded();
  const std::vector<std::string> letters{"a", "b", "c", "\u00e9", "\u2581"};
  for (int round = 0; round < 40; ++round) {
    // Any string can be a piece; its parts need not be pieces, and scores can be equal.
    std::map<std::string, float> scores;
    const bool all_letters = round % 2 == 0;
    for (const std::string& letter : letters)
      if (all_letters || random() % 2 == 0) scores[letter] = -50.0f;
    for (size_t i = 2 + random() % 40; i > 0; --i) {
      std::string piece;
      for (size_t length = 2 + random() % 4; length > 0; --length)
        piece += letters[random() % letters.size()];
      scores[piece] = -static_cast<float>(random() % 20);
    }
    const bool fallback = random() % 2 == 0;
    std::vector<Piece> pieces = first_pieces(fallback);
    std::map<std::string, uint32_t> ids;
    for (const auto& [text, score] : scores) {
      ids[text] = static_cast<uint32_t>(pieces.size());
      pieces.push_back({text, score, kNormal});
    }
    ModelOptions options;
    options.byte_fallback = fallback;
    const Tokenizer tokenizer = load({{"tokenizer.model", sentencepiece_model(pieces, options)}});
    for (int text_number = 0; text_number < 30; ++text_number) {
      std::string text;
      std::vector<std::string> parts{"\u2581"};
      for (size_t i = 1 + random() % 60; i > 0; --i) {
        const std::string letter = letters[random() % letters.size()];
        parts.push_back(letter);
        text += letter == "\u2581" ? " " : letter;
      }
      CAPTURE(text);
      while (true) {  // the two neighbours whose joint piece has the best score, leftmost
        size_t best = parts.size();
        float best_score = -1e9f;
        for (size_t i = 0; i + 1 < parts.size(); ++i) {
          const auto found = scores.find(parts[i] + parts[i + 1]);
          if (found == scores.end() || found->second <= best_score) continue;
          best = i;
          best_score = found->second;
        }
        if (best == parts.size()) break;
        parts[best] += parts[best + 1];
        parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(best) + 1);
      }
      Ids expected;
      bool unknown_before = false;
      for (const std::string& part : parts) {
        const auto found = ids.find(part);
        if (found != ids.end()) {
          expected.push_back(found->second);
        } else if (fallback) {
          for (const char c : part) expected.push_back(3 + static_cast<unsigned char>(c));
        } else if (!unknown_before) {
          expected.push_back(0);  // consecutive unknown characters become one token
        }
        unknown_before = found == ids.end() && !fallback;
      }
      CHECK(tokenizer.encode(text, false) == expected);
    }
  }
}

TEST_CASE("SentencePiece spaces, special tokens and bytes") {
  std::vector<Piece> pieces = first_pieces();
  const auto add = [&](const std::string& text, float score, PieceType type = kNormal) {
    pieces.push_back({text, score, type});
    return static_cast<uint32_t>(pieces.size() - 1);
  };
  const uint32_t mark = add("\u2581", -90);
  const uint32_t a = add("a", -91);
  const uint32_t mark_a = add("\u2581a", -1);
  const uint32_t user = add("[TAG]", 0, kUserDefined);
  const uint32_t control = add("<ctl>", 0, kControl);
  const std::string model = sentencepiece_model(pieces);
  const uint32_t s = 1;

  SUBCASE("every part begins with a space when legacy") {
    const Tokenizer tokenizer = load({{"tokenizer.model", model}});
    CHECK(tokenizer.encode("a", true) == Ids{mark_a});
    CHECK(tokenizer.encode(" a", true) == Ids{mark, mark_a});
    CHECK(tokenizer.encode("<s>a", true) == Ids{s, mark_a});
    CHECK(tokenizer.encode("a<s>a", true) == Ids{mark_a, s, mark_a});
    CHECK(tokenizer.encode("", true).empty());
    CHECK(tokenizer.adds_bos());
    CHECK(tokenizer.bos() == 1u);
    CHECK(tokenizer.eos() == 2u);
    CHECK(tokenizer.special_text("unk") == "<unk>");
  }
  SUBCASE("only the first part does otherwise") {
    const Tokenizer tokenizer =
        load({{"tokenizer.model", model}, {"tokenizer_config.json", R"({"legacy": false})"}});
    CHECK(tokenizer.encode("<s>a", true) == Ids{s, a});
    CHECK(tokenizer.encode("a<s>a a", true) == Ids{mark_a, s, a, mark_a});
    CHECK(tokenizer.encode(" <s>", true) == Ids{mark, mark, s});
  }
  SUBCASE("or none at all") {
    const Tokenizer tokenizer =
        load({{"tokenizer.model", model}, {"tokenizer_config.json", R"({"add_prefix_space": false})"}});
    CHECK(tokenizer.encode("a a", true) == Ids{a, mark_a});
    CHECK(tokenizer.decode(Ids{mark_a}, true) == " a");
  }
  SUBCASE("control pieces are special, user-defined ones are always matched") {
    const Tokenizer tokenizer = load({{"tokenizer.model", model}});
    CHECK(tokenizer.encode("a<ctl>", true) == Ids{mark_a, control});
    CHECK(tokenizer.is_special(control));
    CHECK(tokenizer.encode("a[TAG]a", false) == Ids{mark_a, user, a});
    CHECK_FALSE(tokenizer.is_special(user));
    CHECK(tokenizer.decode(Ids{mark_a, user, control}, false) == "a[TAG]");
    const Ids literal = tokenizer.encode("<s>", false);
    CHECK(literal.size() == 4);  // the space and three bytes
    CHECK(tokenizer.decode(literal, false) == "<s>");
  }
  SUBCASE("malformed bytes and unknown characters use byte pieces") {
    const Tokenizer tokenizer = load({{"tokenizer.model", model}});
    CHECK(tokenizer.encode("\xff", true) == Ids{mark, 3 + 0xff});
    CHECK(tokenizer.encode("a\xe2\x82", true) == Ids{mark_a, 3 + 0xe2, 3 + 0x82});
    CHECK(tokenizer.encode("\u00e9", true) == Ids{mark, 3 + 0xc3, 3 + 0xa9});
    CHECK(tokenizer.decode(tokenizer.encode("a\xff\u00e9", true), true) == "a\xff\u00e9");
    CHECK(stream(tokenizer, tokenizer.encode("\U0001F600 a", true)) == "\U0001F600 a");
    auto random = seeded();
    for (int round = 0; round < 200; ++round) {
      std::string text;
      for (size_t i = random() % 30; i > 0; --i)
        text += static_cast<char>(random() % 4 == 0 ? 'a' : random() % 256);
      if (text.find("\u2581") != std::string::npos) continue;  // stands for a space
      CHECK(tokenizer.decode(tokenizer.encode(text, false), true) == text);
    }
  }
  SUBCASE("the first space goes at the start of a stream only") {
    const Tokenizer tokenizer = load({{"tokenizer.model", model}});
    StreamDecoder decoder(tokenizer);
    CHECK(decoder.push(s).empty());  // hidden, so the text has not begun
    CHECK(decoder.push(mark_a) == "a");
    CHECK(decoder.push(mark_a) == " a");
    StreamDecoder shown(tokenizer, true);
    CHECK(shown.push(s) == "<s>");
    CHECK(shown.push(mark_a) == " a");
    StreamDecoder only_space(tokenizer);
    CHECK(only_space.push(mark).empty());
    CHECK(only_space.push(mark) == " ");
  }
  SUBCASE("extra spaces are removed where the model asks for it") {
    ModelOptions options;
    options.remove_extra_whitespaces = true;
    const Tokenizer tokenizer = load({{"tokenizer.model", sentencepiece_model(pieces, options)}});
    CHECK(tokenizer.encode("  a   a ", true) == Ids{mark_a, mark_a});
    CHECK(tokenizer.encode("   ", true).empty());
  }
  SUBCASE("spaces stay spaces where the model asks for it") {
    ModelOptions options;
    options.escape_whitespaces = false;
    const Tokenizer tokenizer = load({{"tokenizer.model", sentencepiece_model(pieces, options)}});
    CHECK(tokenizer.encode("a a", true) == Ids{3 + ' ', a, 3 + ' ', a});
    CHECK(tokenizer.decode(tokenizer.encode(" a", true), true) == " a");
  }
}

TEST_CASE("tiktoken vocabularies take whole words first") {
  std::string file;
  static constexpr char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  size_t rank = 0;
  const auto add = [&](const std::string& piece) {
    std::string line;
    for (size_t i = 0; i < piece.size(); i += 3) {
      uint32_t bits = 0;
      for (size_t j = 0; j < 3; ++j)
        bits = bits << 8 | (i + j < piece.size() ? static_cast<unsigned char>(piece[i + j]) : 0U);
      for (size_t j = 0; j < 4; ++j) line += i + j > piece.size() ? '=' : digits[bits >> (18 - 6 * j) & 63];
    }
    file += fmt::format("{} {}\n", line, rank++);
  };
  for (unsigned byte = 0; byte < 256; ++byte)
    add(std::string(1, static_cast<char>(static_cast<unsigned char>(byte))));
  add("ab");
  add("abcd");  // no merge produces it, so it is found only by ignoring merges
  add("bc");
  const Tokenizer tokenizer =
      load({{"tokenizer.model", file}, {"tokenizer_config.json", R"({"bos_token": "<b>",
    "added_tokens_decoder": {"259": {"content": "<b>", "special": true}}})"}});
  CHECK(tokenizer.encode("abcd", true) == Ids{257});
  CHECK(tokenizer.encode("abc", true) == Ids{256, 'c'});
  CHECK(tokenizer.encode("abcde", true) == Ids{256, 'c', 'd', 'e'});
  CHECK(tokenizer.encode("<b>bc", true) == Ids{259, 258});
  CHECK(tokenizer.adds_bos());

  // The first Qwen's file: special tokens that no file lists lie behind its pieces, texts are composed.
  const Tokenizer qwen = load({{"qwen.tiktoken", file}});
  CHECK(qwen.vocabulary() == 259 + 3 + 205);
  CHECK(qwen.encode("abcd<|im_start|>", true) == Ids{257, 260});
  CHECK(qwen.encode("<|im_end|><|extra_204|>", true) == Ids{261, 466});
  CHECK(qwen.encode("<|im_end|>", false).size() > 1);
  CHECK(qwen.encode("e\xcc\x81", true) == Ids{0xc3, 0xa9});
  CHECK(qwen.eos() == 259);
  CHECK_FALSE(qwen.adds_bos());
}

TEST_CASE("catastrophic regular expressions are given up, not waited for") {
  json document = byte_level_document({});
  document["pre_tokenizer"] = json::parse(R"({"type": "Sequence", "pretokenizers": [
    {"type": "Split", "pattern": {"Regex": "(a+)+$|(?:x|x)*y"}, "behavior": "Isolated", "invert": false},
    {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]})");
  const Tokenizer tokenizer = load({{"tokenizer.json", document.dump()}});
  CHECK(tokenizer.encode("aaaa", true) == Ids{'a', 'a', 'a', 'a'});
  const auto begin = std::chrono::steady_clock::now();
  CHECK_THROWS_WITH_AS(tokenizer.encode(std::string(60, 'a') + "b", true),
                       doctest::Contains("regular expression"), FileError);
  CHECK_THROWS_WITH_AS(tokenizer.encode(std::string(60, 'x'), true), doctest::Contains("match limit"),
                       FileError);
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
  CHECK(taken.count() < 30.0);
}

TEST_CASE("regular expressions that look at all of the text at every place are given up") {
  json document = byte_level_document({});
  document["pre_tokenizer"] = json::parse(R"({"type": "Sequence", "pretokenizers": [
    {"type": "Split", "pattern": {"Regex": ".{0,1500}.{0,1500}\\x{0}|."}, "behavior": "Isolated", "invert": false},
    {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]})");
  const Tokenizer tokenizer = load({{"tokenizer.json", document.dump()}});
  CHECK(tokenizer.encode("aa", true) == Ids{'a', 'a'});
  CHECK_THROWS_WITH_AS(tokenizer.encode(std::string(20'000, 'a'), true),
                       doctest::Contains("gave up on a text of 20000 bytes: it takes too long"), FileError);
}

TEST_CASE("rules that make a long text of a short one are refused when they are used") {
  const json doubled = json::parse(R"({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"})");
  json document = byte_level_document({});
  document["normalizer"] = {{"type", "Sequence"}, {"normalizers", json(std::vector<json>(40, doubled))}};
  const Tokenizer tokenizer = load({{"tokenizer.json", document.dump()}});
  CHECK(tokenizer.encode("b", true) == Ids{'b'});
  CHECK_THROWS_WITH_AS(tokenizer.encode("a", true), doctest::Contains("longer than 1048640 bytes"),
                       FileError);
  document["normalizer"]["normalizers"] = std::vector<json>(4, doubled);
  CHECK(load({{"tokenizer.json", document.dump()}}).encode("a", true) == Ids(16, 'a'));
}

TEST_CASE("white space of patterns is the Unicode property") {
  json document = byte_level_document({});
  document["pre_tokenizer"] = json::parse(R"({"type": "Sequence", "pretokenizers": [
    {"type": "Split", "pattern": {"Regex": "\\s"}, "behavior": "Removed", "invert": false},
    {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]})");
  const Tokenizer tokenizer = load({{"tokenizer.json", document.dump()}});
  CHECK(tokenizer.encode("a\u00a0\u0085\u3000\u2028\tb", true) == Ids{'a', 'b'});
  CHECK(tokenizer.encode("\u180e\u200b", true).size() == 6);  // neither is white space
}

TEST_CASE("a stored tokenizer equals the one it came from") {
  auto random = seeded();
  json document = byte_level_document(random_merges(random, "abc ", 50), {"<|x|>", "<y>"});
  document["added_tokens"][1]["lstrip"] = true;
  document["added_tokens"][1]["rstrip"] = true;
  document["added_tokens"][1]["normalized"] = true;
  document["normalizer"] = json::parse(R"({"type": "Sequence", "normalizers": [{"type": "NFC"},
    {"type": "Replace", "pattern": {"String": "q"}, "content": "ab"}]})");
  document["pre_tokenizer"]["use_regex"] = true;
  document["pre_tokenizer"]["add_prefix_space"] = true;
  const Tokenizer tokenizer = load({{"tokenizer.json", document.dump()}});
  const tessera::TokenizerArrays arrays = tokenizer.store();
  std::vector<tessera::StoredTensor> tensors;
  for (const auto& [name, values] : arrays.byte_tensors)
    tensors.push_back({name, tessera::Scheme::u8, {values.size()}, std::as_bytes(std::span(values))});
  // With aligned words, as files have them, and with unaligned ones, which memory may have.
  std::vector<std::vector<std::byte>> shifted;
  shifted.reserve(arrays.word_tensors.size());
  auto moved = tensors;
  for (const auto& [name, values] : arrays.word_tensors) {
    const auto bytes = std::as_bytes(std::span(values));
    tensors.push_back({name, tessera::Scheme::u32, {values.size()}, bytes});
    shifted.emplace_back(bytes.size() + 1);
    std::copy(bytes.begin(), bytes.end(), shifted.back().begin() + 1);
    moved.push_back(
        {name, tessera::Scheme::u32, {values.size()}, std::span<const std::byte>(shifted.back()).subspan(1)});
  }
  for (const auto& list : {tensors, moved}) {
    const Tokenizer restored = Tokenizer::from_stored(arrays.settings, list);
    const tessera::TokenizerArrays again = restored.store();
    CHECK(again.settings.settings_json == arrays.settings.settings_json);
    CHECK(again.byte_tensors == arrays.byte_tensors);
    CHECK(again.word_tensors == arrays.word_tensors);
    for (int round = 0; round < 100; ++round) {
      const std::string text = random_text(random, "abc qé<|x|><y>\n1", random() % 60);
      CHECK(restored.encode(text, true) == tokenizer.encode(text, true));
      CHECK(restored.encode(text, false) == tokenizer.encode(text, false));
    }
  }
}
