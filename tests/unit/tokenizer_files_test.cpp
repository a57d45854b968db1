// Faulty tokenizer files and stored arrays: each is refused with one line that names the fault.
#include <doctest/doctest.h>

#include <limits>

#include "engine/tokenizer/tokenizer.h"
#include "gguf-like-format/file_error.h"
#include "tests/unit/tokenizer_files.h"

namespace {

using namespace tokenizer_files;
using nlohmann::json;
using tessera::FileError;
using tessera::Tokenizer;

using Files = std::vector<std::pair<std::string, std::string>>;

// Checks that loading the files fails with one line that contains every part.
void check_refused(const Files& files, const std::vector<std::string>& parts) {
  std::string line;
  try {
    load(files);
  } catch (const FileError& error) {
    line = error.what();
  }
  CAPTURE(line);
  CHECK_FALSE(line.empty());
  CHECK(line.find('\n') == std::string::npos);
  for (const std::string& part : parts) {
    CAPTURE(part);
    CHECK(line.find(part) != std::string::npos);
  }
}

template <typename Change>
void check_json(const std::vector<std::string>& parts, Change change) {
  json document = byte_level_document({{"a", "b"}, {"ab", "c"}});
  change(document);
  check_refused({{"tokenizer.json", document.dump()}}, parts);
}

json parsed(const char* text) { return json::parse(text); }

}  // namespace

TEST_CASE("the documents these tests spoil are sound") {
  CHECK(load({{"tokenizer.json", byte_level_document({{"a", "b"}, {"ab", "c"}}).dump()}}).vocabulary() ==
        259);
  auto pieces = first_pieces();
  pieces.push_back({"a", -1, kNormal});
  CHECK(load({{"tokenizer.model", sentencepiece_model(pieces)}}).vocabulary() == 260);
  CHECK(load({{"vocab.json", R"({"a": 0, "b": 1, "ab": 2})"}, {"merges.txt", "#version: 0.2\na b\n"}})
            .vocabulary() == 3);
}

TEST_CASE("folders without a tokenizer") {
  check_refused({}, {"expected tokenizer.json", "found none"});
  check_refused({{"vocab.json", "{}"}}, {"found none"});
}

TEST_CASE("tokenizer.json: syntax") {
  const std::string good = byte_level_document({}).dump();
  check_refused({{"tokenizer.json", ""}}, {"tokenizer.json"});
  check_refused({{"tokenizer.json", good.substr(0, good.size() / 2)}}, {"tokenizer.json", "malformed"});
  check_refused({{"tokenizer.json", "[]"}}, {"tokenizer.json", "object"});
  check_refused({{"tokenizer.json", R"({"model": {"type": "BPE", "type": "BPE"}})"}}, {"twice"});
  check_refused({{"tokenizer.json", std::string(100000, '[')}}, {"nested deeper"});
  check_refused({{"tokenizer.json", "{\"model\": \"\xff\"}"}}, {"malformed"});
}

TEST_CASE("tokenizer.json: vocabulary") {
  check_json({"model", "missing"}, [](json& d) { d.erase("model"); });
  check_json({"model.vocab", "missing"}, [](json& d) { d["model"].erase("vocab"); });
  check_json({"model.vocab", "object"}, [](json& d) { d["model"]["vocab"] = parsed("[]"); });
  check_json({"model.vocab", "at least one"}, [](json& d) {
    d["model"]["vocab"] = json::object();
    d["model"]["merges"] = json::array();
    d["added_tokens"] = json::array();
  });
  check_json({"model.vocab", "\"a\"", "4294967295"}, [](json& d) { d["model"]["vocab"]["a"] = 4294967295u; });
  check_json({"model.vocab", "\"a\"", "-1"}, [](json& d) { d["model"]["vocab"]["a"] = -1; });
  check_json({"model.vocab", "\"a\"", "1.5"}, [](json& d) { d["model"]["vocab"]["a"] = 1.5; });
  check_json({"model.vocab", "gap", "5000"}, [](json& d) { d["model"]["vocab"]["a"] = 5000; });
  check_json({"model.vocab", "id 98", "\"a\"", "\"b\""}, [](json& d) { d["model"]["vocab"]["a"] = 98; });
}

TEST_CASE("tokenizer.json: merges") {
  check_json({"model.merges", "missing"}, [](json& d) { d["model"].erase("merges"); });
  check_json({"merges[1]", "pieces of the vocabulary", "\"zq\""},
             [](json& d) { d["model"]["merges"][1] = "zq a"; });
  check_json({"merges[0]", "pieces of the vocabulary", "\"xy\""},
             [](json& d) { d["model"]["merges"][0] = "x y"; });
  check_json({"merges[0]", "two pieces"}, [](json& d) { d["model"]["merges"][0] = "a b c"; });
  check_json({"merges[0]", "two pieces"}, [](json& d) { d["model"]["merges"][0] = "ab"; });
  check_json({"merges[0]", "two pieces"}, [](json& d) { d["model"]["merges"][0] = parsed(R"(["a"])"); });
  check_json({"merges[1]", "two pieces"}, [](json& d) { d["model"]["merges"][1] = 7; });
}

TEST_CASE("tokenizer.json: unsupported components") {
  check_json({"model.type", "BPE", "Unigram"}, [](json& d) { d["model"]["type"] = "Unigram"; });
  check_json({"model.dropout", "0.1"}, [](json& d) { d["model"]["dropout"] = 0.1; });
  check_json({"model.end_of_word_suffix", "</w>"},
             [](json& d) { d["model"]["end_of_word_suffix"] = "</w>"; });
  check_json({"model.continuing_subword_prefix", "##"},
             [](json& d) { d["model"]["continuing_subword_prefix"] = "##"; });
  check_json({"model.unk_token", "<none>"}, [](json& d) { d["model"]["unk_token"] = "<none>"; });
  check_json({"normalizer.type", "Lowercase"}, [](json& d) { d["normalizer"] = {{"type", "Lowercase"}}; });
  check_json({"normalizer.pattern", "String"}, [](json& d) {
    d["normalizer"] = parsed(R"({"type": "Replace", "pattern": {"Regex": "a"}, "content": ""})");
  });
  check_json({"pre_tokenizer.pretokenizers[0].type", "Whitespace"}, [](json& d) {
    d["pre_tokenizer"] = parsed(R"({"type": "Sequence", "pretokenizers": [{"type": "Whitespace"}]})");
  });
  check_json({"pre_tokenizer.pretokenizers[1].type", "nothing after ByteLevel"}, [](json& d) {
    d["pre_tokenizer"] =
        parsed(R"({"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}, {"type": "Digits"}]})");
  });
  check_json({"pre_tokenizer.behavior", "Sideways"}, [](json& d) {
    d["pre_tokenizer"] = parsed(R"({"type": "Split", "pattern": {"String": "a"}, "behavior": "Sideways"})");
  });
  check_json({"decoder.type", "WordPiece"}, [](json& d) { d["decoder"] = {{"type", "WordPiece"}}; });
  check_json({"decoder"}, [](json& d) { d["decoder"] = nullptr; });
  check_json({"post_processor.cls", "missing"}, [](json& d) {
    d["post_processor"] = {{"type", "BertProcessing"}};
  });
  check_json({"post_processor.single[1].SpecialToken", "one token before the text"}, [](json& d) {
    d["post_processor"] = parsed(R"({"type": "TemplateProcessing", "single":
      [{"SpecialToken": {"id": "<|end|>"}}, {"SpecialToken": {"id": "<|end|>"}}, {"Sequence": {"id": "A"}}]})");
  });
  check_json({"post_processor", "<none>"}, [](json& d) {
    d["post_processor"] = parsed(R"({"type": "TemplateProcessing", "single":
      [{"SpecialToken": {"id": "<none>"}}, {"Sequence": {"id": "A"}}]})");
  });
}

TEST_CASE("tokenizer.json: regular expressions") {
  const auto with_pattern = [](const std::string& pattern) {
    return [pattern](json& d) {
      d["pre_tokenizer"] = parsed(R"({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": ""}, "behavior": "Isolated"}, {"type": "ByteLevel"}]})");
      d["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = pattern;
    };
  };
  check_json({"tokenizer.json", "pre_tokenizer", "regular expression", "does not compile"},
             with_pattern("(unclosed"));
  check_json({"pre_tokenizer", "regular expression", "does not compile"}, with_pattern("[a"));
  check_json({"regular expression", "does not compile"}, with_pattern("a{2,1}"));
  check_json({"regular expression", "does not compile"}, with_pattern("\\p{Nonsense}"));
  check_json({"regular expression", "does not compile"}, with_pattern("(((a{9999}){9999}){9999}){9999}"));
  check_json({"regular expression", "does not compile"},
             with_pattern(std::string(5000, '(') + std::string(5000, ')')));
  check_json({"regular expression", "\\h"}, with_pattern("\\h"));
  check_json({"regular expression", "character class"}, with_pattern("[a[b]]"));
  check_json({"regular expression", "intersection"}, with_pattern("[a-z&&b]"));
  check_json({"pattern.Regex", "at most"}, with_pattern(std::string(70000, 'a')));
}

TEST_CASE("tokenizer.json: added tokens") {
  const auto token = [](const char* content, uint64_t id) { return json{{"content", content}, {"id", id}}; };
  check_json({"added_tokens[0].content", "some text"},
             [&](json& d) { d["added_tokens"][0] = token("", 258); });
  check_json({"added_tokens[0].id", "99999999999"},
             [&](json& d) { d["added_tokens"][0] = token("x!", 99999999999); });
  check_json({"added_tokens", "gap", "400"}, [&](json& d) { d["added_tokens"][0] = token("<|end|>", 400); });
  check_json({"added_tokens", "id 97", "\"a\"", "<|end|>"},
             [&](json& d) { d["added_tokens"][0] = token("<|end|>", 97); });
  check_json({"added_tokens", "\"a\"", "expected id 97", "found 258"},
             [&](json& d) { d["added_tokens"][0] = token("a", 258); });
  check_json({"added_tokens[1]", "once"},
             [&](json& d) { d["added_tokens"].push_back(token("<|end|>", 259)); });
  check_json({"added_tokens[1]", "once"}, [&](json& d) { d["added_tokens"].push_back(token("<|x|>", 258)); });
  check_json({"added_tokens[0].content", "at most"},
             [&](json& d) { d["added_tokens"][0] = token(std::string(5000, 'x').c_str(), 258); });
}

TEST_CASE("harmless oddities of fine-tunes are read with a note") {
  // 256 bytes, two merges and the added tokens from 258 on.
  const json plain = byte_level_document({{"a", "b"}, {"ab", "c"}});
  const std::vector<uint32_t> abc{257};
  const auto read = [&](json document, const std::vector<std::pair<std::string, std::string>>& beside,
                        const std::vector<std::string>& parts) {
    std::vector<std::pair<std::string, std::string>> files = beside;
    files.emplace_back("tokenizer.json", document.dump());
    files.emplace_back("config.json", R"({"vocab_size": 259})");
    const Folder folder(files);
    std::vector<std::string> notes;
    const Tokenizer tokenizer = Tokenizer::from_folder(folder.path(), &notes);
    REQUIRE(notes.size() == 1);
    for (const std::string& part : parts) CHECK_MESSAGE(notes[0].find(part) != std::string::npos, notes[0]);
    CHECK(tokenizer.encode("abc", true) == abc);
    CHECK(tokenizer.vocabulary() == 259);
    return tokenizer.adds_bos() && tokenizer.bos() == 258u;
  };
  const auto token = [](const char* text, uint32_t id) {
    return json{{"id", id}, {"content", text}, {"special", true}};
  };

  json document = plain;
  document["added_tokens"].push_back(token("<pad>", 259));
  read(document, {}, {"tokenizer.json", "\"<pad>\" lies beyond the model's 259 tokens: left out"});
  document["added_tokens"].push_back(token("<more>", 300));
  read(document, {}, {"\"<pad>\" and 1 more lie beyond"});
  read(plain,
       {{"tokenizer_config.json",
         R"({"added_tokens_decoder": {"259": {"content": "<pad>"}}, "pad_token": "<pad>"})"}},
       {"tokenizer_config.json", "\"<pad>\" lies beyond"});
  document = plain;
  document["model"]["vocab"]["<pad>"] = 259;
  read(document, {}, {"tokenizer.json", "\"<pad>\" lies beyond"});
  document["model"]["merges"].push_back("abc a");
  document["model"]["vocab"]["abca"] = 260;
  check_refused({{"tokenizer.json", document.dump()}, {"config.json", R"({"vocab_size": 259})"}},
                {"merges[2]", "\"abca\""});

  document = plain;
  document["added_tokens"].push_back(document["added_tokens"][0]);
  read(document, {}, {"added_tokens[1].content", "\"<|end|>\" is listed twice"});

  document = plain;
  document["post_processor"] = parsed(R"({"type": "TemplateProcessing", "single":
      [{"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "<|end|>"}}]})");
  CHECK_FALSE(read(document, {}, {"post_processor", "\"<|end|>\" is not put behind texts"}));
  document["post_processor"] =
      parsed(R"({"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<|end|>", 258]})");
  CHECK(read(document, {}, {"post_processor", "\"</s>\" is not put behind texts"}));

  read(plain, {{"tokenizer_config.json", R"({"add_eos_token": true})"}}, {"add_eos_token"});
  read(plain, {{"tokenizer_config.json", R"({"bos_token": "<none>"})"}},
       {"bos_token", "<none>", "not in the vocabulary"});
}

TEST_CASE("tokenizer_config.json") {
  const std::string document = byte_level_document({}).dump();
  const auto check = [&](const char* config, const std::vector<std::string>& parts) {
    check_refused({{"tokenizer.json", document}, {"tokenizer_config.json", config}}, parts);
  };
  check(R"({"bos_token": "<none>", "add_bos_token": true})",
        {"tokenizer_config.json", "bos_token", "<none>", "not in the vocabulary"});
  check(R"({"eos_token": 5})", {"tokenizer_config.json", "eos_token", "string"});
  check(R"({"add_bos_token": "yes"})", {"tokenizer_config.json", "add_bos_token", "true or false"});
  check(R"({"added_tokens_decoder": {"x": {"content": "y"}}})", {"added_tokens_decoder", "x"});
  check(R"({"added_tokens_decoder": {"300": {"content": "y!"}}})", {"added_tokens_decoder.300", "gap"});
  check(R"({"added_tokens_decoder": {"97": {"content": "y!"}}})",
        {"added_tokens_decoder.97", "another piece"});
  check(R"({"added_tokens_decoder": {"98": {"content": "a"}}})", {"added_tokens_decoder.98", "id 97"});
  check_refused({{"tokenizer.json", document}, {"config.json", R"({"bos_token_id": -3})"}},
                {"config.json", "bos_token_id", "-3"});
}

TEST_CASE("added_tokens.json") {
  const std::string model = sentencepiece_model(first_pieces());  // 259 pieces
  const auto check = [&](const std::string& added, const std::vector<std::string>& parts) {
    check_refused({{"tokenizer.model", model}, {"added_tokens.json", added}}, parts);
  };
  check("[1]", {"added_tokens.json"});
  check(R"({"<x>": "259"})", {"added_tokens.json", "\"<x>\"", "259"});
  check(R"({"<x>": -1})", {"added_tokens.json", "\"<x>\"", "-1"});
  check(R"({"<x>": null})", {"added_tokens.json", "\"<x>\""});
  check(R"({"<x>": 99999999999})", {"added_tokens.json", "99999999999"});
  check(R"({"<x>": 260})", {"added_tokens.json", "gap", "expected 259", "260"});
  check(R"({"<x>": 259, "<y>": 259})", {"added_tokens.json", "id 259 is another piece"});
  check(R"({"<x>": 5})", {"added_tokens.json", "\"<x>\"", "another piece"});
  check(R"({"<s>": 2})", {"added_tokens.json", "\"<s>\"", "id 1"});
  check(R"({"": 259})", {"added_tokens.json", "1 to 4096 bytes", "found 0"});
  check(json{{std::string(5000, 'x'), 259}}.dump(), {"added_tokens.json", "1 to 4096 bytes", "5000"});
  const auto check_map = [&](const char* map, const std::vector<std::string>& parts) {
    check_refused({{"tokenizer.model", model}, {"special_tokens_map.json", map}}, parts);
  };
  check_map(R"({"additional_special_tokens": 5})", {"special_tokens_map.json", "additional_special_tokens"});
  check_map(R"({"additional_special_tokens": ["a", 5]})", {"additional_special_tokens[1]"});
  check_map(R"({"additional_special_tokens": [{}]})", {"additional_special_tokens[0].content"});
}

TEST_CASE("tokenizer.model: SentencePiece") {
  const auto check = [](const std::vector<Piece>& pieces, const std::vector<std::string>& parts) {
    check_refused({{"tokenizer.model", sentencepiece_model(pieces)}}, parts);
  };
  const auto with = [](const Piece& piece) {
    auto pieces = first_pieces();
    pieces.push_back(piece);
    return pieces;
  };
  const std::string good = sentencepiece_model(with({"a", -1, kNormal}));
  SUBCASE("structure") {
    check_refused({{"tokenizer.model", good.substr(0, 100)}}, {"tokenizer.model", "byte", "found"});
    check_refused({{"tokenizer.model", "\n"}}, {"byte 0", "the file ends inside a number"});
    check_refused({{"tokenizer.model", "\n" + varint(uint64_t{1} << 62) + "abc"}},
                  {"4611686018427387904", "found 3"});
    check_refused({{"tokenizer.model", "\n" + std::string(11, '\xff')}}, {"longer than 10 bytes"});
    check_refused({{"tokenizer.model", good + '\x0b'}}, {"wire type 3"});
    check_refused({{"tokenizer.model", good + '\x02'}}, {"field number"});
    check_refused({{"tokenizer.model", bytes_field(1, bytes_field(1, "a") + "\x15"
                                                                            "ab") +
                                           good}},
                  {"the file ends inside a number"});
    // Every prefix is refused or, when it ends between two fields, has fewer pieces or settings.
    for (size_t length = 1; length < 400; ++length)
      check_refused({{"tokenizer.model", good.substr(0, length)}}, {"tokenizer.model"});
  }
  SUBCASE("pieces") {
    check_refused({{"tokenizer.model", bytes_field(1, "") + sentencepiece_model({})}},
                  {"pieces[0].piece", "some text"});
    check({{"a", 0, kNormal}}, {"pieces", "unknown piece", "found none"});
    check(with({"<unk>", 0, kNormal}), {"pieces[259]", "also piece 0"});
    check(with({"<unk2>", 0, kUnknown}), {"pieces[259]", "second unknown"});
    check(with({"<0xZZ>", 0, kByte}), {"pieces[259]", "<0xZZ>"});
    check(with({"a", std::numeric_limits<float>::quiet_NaN(), kNormal}), {"pieces[259].score", "finite"});
    check(with({"a", -std::numeric_limits<float>::infinity(), kNormal}), {"pieces[259].score", "finite"});
    check(with({"a\xff", 0, kNormal}), {"pieces[259].piece", "UTF-8"});
    check(with({"u", 0, kUnused}), {"pieces[259].type", "unused"});
    check(with({"u", 0, static_cast<PieceType>(9)}), {"pieces[259].type", "1 to 6", "9"});
    check(with({std::string(5000, 'x'), 0, kNormal}), {"piece 259", "at most", "5000"});
    auto missing = first_pieces();
    missing.erase(missing.begin() + 3 + 0x41);
    check(missing, {"byte_fallback", "65"});
  }
  SUBCASE("settings") {
    check_refused({{"tokenizer.model", good + bytes_field(2, number_field(3, 1))}},
                  {"trainer_spec.model_type", "found 1"});
    check_refused({{"tokenizer.model", good + bytes_field(2, number_field(24, 1))}},
                  {"treat_whitespace_as_suffix"});
    check_refused({{"tokenizer.model", good + bytes_field(3, bytes_field(2, "abc"))}},
                  {"precompiled_charsmap", "3 bytes"});
  }
}

TEST_CASE("tokenizer.model: tiktoken") {
  const auto check = [](const std::string& text, const std::vector<std::string>& parts) {
    check_refused({{"tokenizer.model", text}}, parts);
  };
  check("IQ==", {"line 1", "BASE64 RANK"});
  check("I*== 0\n", {"line 1", "base64"});
  check("IQ= 0\n", {"line 1", "base64"});
  check("==== 0\n", {"line 1", "base64"});
  check("IQ== zero\n", {"line 1", "rank", "zero"});
  check("IQ== 99999999999999999999999\n", {"line 1", "rank"});
  check("IQ== 0\nIg== 2\n", {"line 2", "gap", "expected rank 1", "found 2"});
  check("IQ== 0\nIg== 0\n", {"line 2", "repeat"});
  check("IQ== 0\nIQ== 1\n", {"piece 1", "also piece 0"});
  check("IQ== 0\nIg== 1\n", {"256 bytes", "found 2"});
  check("", {"256 bytes", "found 0"});
}

TEST_CASE("vocab.json and merges.txt") {
  const auto check = [](const char* vocabulary, const char* merges, const std::vector<std::string>& parts) {
    check_refused({{"vocab.json", vocabulary}, {"merges.txt", merges}}, parts);
  };
  check("{}", "", {"vocab.json", "at least one"});
  check("[1]", "", {"vocab.json", "object"});
  check(R"({"a": 0, "b": 0})", "", {"vocab.json", "id 0", "\"a\"", "\"b\""});
  check(R"({"a": 0, "b": 5})", "", {"vocab.json", "\"b\"", "gap", "5"});
  check(R"({"a": 0, "b": -1})", "", {"vocab.json", "\"b\"", "-1"});
  check(R"({"a": 0, "a": 1})", "", {"vocab.json", "twice"});
  check(R"({"a": 0, "b": 1})", "a b\n", {"merges.txt", "line 1", "\"ab\""});
  check(R"({"a": 0, "b": 1})", "a c\n", {"merges.txt", "line 1", "\"c\""});
  check(R"({"a": 0, "b": 1})", "#version: 0.2\n\nabc\n", {"merges.txt", "line 3", "two pieces"});
  check_refused({{"vocab.json", R"({"a": 0})"},
                 {"merges.txt", ""},
                 {"tokenizer_config.json", R"({"tokenizer_class": "RobertaTokenizer"})"}},
                {"tokenizer_class", "RobertaTokenizer"});
}

namespace {

// A stored tokenizer whose parts the tests corrupt one at a time.
struct Stored {
  tessera::TokenizerArrays arrays;

  explicit Stored(tessera::TokenizerArrays from) : arrays(std::move(from)) {}
  std::vector<uint32_t>& words(const std::string& name) {
    for (auto& [found, values] : arrays.word_tensors)
      if (found == name) return values;
    REQUIRE_MESSAGE(false, "no tensor " << name);
    return arrays.word_tensors.front().second;
  }
  Tokenizer open() const {
    std::vector<tessera::StoredTensor> tensors;
    for (const auto& [name, values] : arrays.byte_tensors)
      tensors.push_back({name, tessera::Scheme::u8, {values.size()}, std::as_bytes(std::span(values))});
    for (const auto& [name, values] : arrays.word_tensors)
      tensors.push_back({name, tessera::Scheme::u32, {values.size()}, std::as_bytes(std::span(values))});
    return Tokenizer::from_stored(arrays.settings, tensors);
  }
};

template <typename Change>
void check_stored(const tessera::TokenizerArrays& arrays, const std::vector<std::string>& parts,
                  Change change) {
  Stored stored(arrays);
  change(stored);
  std::string line;
  try {
    stored.open();
  } catch (const FileError& error) {
    line = error.what();
  }
  CAPTURE(line);
  CHECK_FALSE(line.empty());
  CHECK(line.find('\n') == std::string::npos);
  for (const std::string& part : parts) {
    CAPTURE(part);
    CHECK(line.find(part) != std::string::npos);
  }
}

template <typename Change>
void check_settings(const tessera::TokenizerArrays& arrays, const std::vector<std::string>& parts,
                    Change change) {
  check_stored(arrays, parts, [&](Stored& stored) {
    json settings = json::parse(stored.arrays.settings.settings_json);
    change(settings);
    stored.arrays.settings.settings_json = settings.dump();
  });
}

}  // namespace

TEST_CASE("stored arrays out of range") {
  json document = byte_level_document({{"a", "b"}, {"ab", "c"}});
  document["model"]["ignore_merges"] = true;
  const auto arrays = load({{"tokenizer.json", document.dump()}}).store();
  CHECK(Stored(arrays).open().encode("abc", true) == std::vector<uint32_t>{257});

  check_stored(arrays, {"kind"}, [](Stored& s) { s.arrays.settings.kind = "wordpiece"; });
  check_stored(arrays, {"tokenizer.pieces", "missing"}, [](Stored& s) { s.arrays.byte_tensors.clear(); });
  check_stored(arrays, {"tokenizer.offsets", "expected 260"},
               [](Stored& s) { s.words("tokenizer.offsets").pop_back(); });
  check_stored(arrays, {"tokenizer.offsets", "ascending"},
               [](Stored& s) { s.words("tokenizer.offsets")[5] = 900; });
  check_stored(arrays, {"tokenizer.offsets", "begin with 0"},
               [](Stored& s) { s.words("tokenizer.offsets")[0] = 1; });
  check_stored(arrays, {"tokenizer.offsets", "end with"},
               [](Stored& s) { s.arrays.byte_tensors[0].second.pop_back(); });
  check_stored(arrays, {"tokenizer.merges", "multiple of 3"},
               [](Stored& s) { s.words("tokenizer.merges").pop_back(); });
  check_stored(arrays, {"tokenizer.merges", "below 259"},
               [](Stored& s) { s.words("tokenizer.merges")[0] = 259; });
  check_stored(arrays, {"tokenizer.merges", "below 259"},
               [](Stored& s) { s.words("tokenizer.merges")[2] = 0xFFFFFFFF; });
  check_stored(arrays, {"tokenizer.merges", "rank"},
               [](Stored& s) { s.words("tokenizer.merges")[1] = 0xFFFFFFFF; });
  check_stored(arrays, {"tokenizer.merge_first", "end with"},
               [](Stored& s) { s.words("tokenizer.merge_first").back() = 9; });
  check_stored(arrays, {"tokenizer.merge_first", "ascending"},
               [](Stored& s) { s.words("tokenizer.merge_first")[3] = 77; });
  check_stored(arrays, {"tokenizer.merge_first"},
               [](Stored& s) { s.words("tokenizer.merge_first").pop_back(); });
  check_stored(arrays, {"tokenizer.characters", "expected 256"},
               [](Stored& s) { s.words("tokenizer.characters").pop_back(); });
  check_stored(arrays, {"tokenizer.characters", "less than 259"},
               [](Stored& s) { s.words("tokenizer.characters")[7] = 259; });
  check_stored(arrays, {"tokenizer.sorted_words", "less than 259"},
               [](Stored& s) { s.words("tokenizer.sorted_words")[0] = 300; });
  check_stored(arrays, {"JSON"}, [](Stored& s) { s.arrays.settings.settings_json = "{"; });
  check_settings(arrays, {"vocabulary"}, [](json& s) { s["vocabulary"] = 0; });
  check_settings(arrays, {"tokenizer.offsets", "expected 300"}, [](json& s) { s["vocabulary"] = 299; });
  check_settings(arrays, {"bos", "259"}, [](json& s) { s["bos"] = 259; });
  check_settings(arrays, {"unknown"}, [](json& s) { s["unknown"] = -1; });
  check_settings(arrays, {"added[0].id", "259"}, [](json& s) { s["added"][0]["id"] = 259; });
  check_settings(arrays, {"added[0].content", "some text"}, [](json& s) { s["added"][0]["content"] = ""; });
  check_settings(arrays, {"added[1].id", "once"}, [](json& s) { s["added"].push_back(s["added"][0]); });
  check_settings(arrays, {"normalizer[0].kind", "upper"},
                 [](json& s) { s["normalizer"] = parsed(R"([{"kind": "upper"}])"); });
  check_settings(arrays, {"normalizer[0].text"},
                 [](json& s) { s["normalizer"] = parsed(R"([{"kind": "replace"}])"); });
  check_settings(arrays, {"pre_tokenizer[0].text"},
                 [](json& s) { s["pre_tokenizer"] = parsed(R"([{"kind": "split_text"}])"); });
  check_settings(arrays, {"pre_tokenizer", "does not compile"},
                 [](json& s) { s["pre_tokenizer"] = parsed(R"([{"kind": "split_regex", "text": "("}])"); });

  auto pieces = first_pieces();
  pieces.push_back({"a", -1, kNormal});
  pieces.push_back({"bc", -2, kNormal});  // its letters are not pieces
  const auto text = load({{"tokenizer.model", sentencepiece_model(pieces)}}).store();
  CHECK(Stored(text).open().encode("bcb", true) ==
        std::vector<uint32_t>{3 + 0xE2, 3 + 0x96, 3 + 0x81, 260, 3 + 'b'});
  check_stored(text, {"tokenizer.characters", "even"},
               [](Stored& s) { s.words("tokenizer.characters").pop_back(); });
  check_stored(text, {"tokenizer.characters", "order"},
               [](Stored& s) { s.words("tokenizer.characters")[0] = 0x110000; });
  check_stored(text, {"tokenizer.characters", "less than"},
               [](Stored& s) { s.words("tokenizer.characters")[1] = 9999; });
  check_stored(text, {"tokenizer.byte_tokens", "expected 256"},
               [](Stored& s) { s.words("tokenizer.byte_tokens").pop_back(); });
  check_stored(text, {"tokenizer.byte_tokens", "less than"},
               [](Stored& s) { s.words("tokenizer.byte_tokens")[0] = 5000; });
  check_settings(text, {"ignore_merges"}, [](json& s) { s["ignore_merges"] = true; });
}
