// Text from messages never becomes special tokens: through the chat template's filters and the normalizer to
// the ids.
#include "engine/chat_template/quoted_text.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "engine/chat_template/chat_template.h"
#include "engine/tokenizer/normalizer.h"
#include "engine/tokenizer/tokenizer.h"
#include "tests/unit/tokenizer_files.h"

using namespace tessera;
using namespace tokenizer_files;

namespace {

using Ids = std::vector<uint32_t>;

QuotedText rendered(const std::string& source, const std::string& message) {
  const ChatMessage messages[] = {{"user", message}};
  TemplateInputs inputs;
  inputs.bos_token = "<|bos|>";
  return ChatTemplate("{% set c = messages[0].content %}" + source).render(messages, inputs);
}

// One character for each byte: q for quoted, - for unquoted.
std::string shown(const QuotedText& text) {
  std::string flags(text.text.size(), '-');
  for (const Quotes::Range& range : text.quotes.ranges())
    for (size_t i = range.begin; i < range.end; ++i) flags.at(i) = 'q';
  return flags;
}

Ids joined(std::initializer_list<Ids> parts) {
  Ids all;
  for (const Ids& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

// A tokenizer without merges whose ids are bytes and then these special tokens.
Tokenizer bytes_and(const std::vector<std::string>& special) {
  return load({{"tokenizer.json", byte_level_document({}, special).dump()}});
}

}  // namespace

TEST_CASE("quotes stay with the characters of a message through everything a template does") {
  struct Case {
    std::string source, text, quotes;
  };
  // The message is "Qa<i>Qb"; the template's own text has no Q.
  const Case cases[] = {
      {"a{{ c }}b", "aQa<i>Qbb", "-qqqqqqq-"},
      {"{{ bos_token ~ c + '!' }}", "<|bos|>Qa<i>Qb!", "-------qqqqqqq-"},
      {"{{ c | replace('<i>', '') }}", "QaQb", "qqqq"},
      {"{{ c.replace('<i>', '|') }}", "Qa|Qb", "qq-qq"},
      {"{{ '-x-' | replace('x', c) }}", "-Qa<i>Qb-", "-qqqqqqq-"},
      {"{{ '-x-'.replace('x', c) }}", "-Qa<i>Qb-", "-qqqqqqq-"},
      {"{{ (' ' ~ c ~ ' ') | trim }}", "Qa<i>Qb", "qqqqqqq"},
      {"{{ ('--' ~ c).strip('-b') }}", "Qa<i>Q", "qqqqqq"},
      {"{{ ('-' ~ c)[:3] }}", "-Qa", "-qq"},
      {"{{ ('-' ~ c)[::-2] }}", "b><Q", "qqqq"},
      {"{{ ('-' ~ c)[6::-3] }}", "Q<-", "qq-"},
      {"{{ c[0] ~ 'x' ~ c[-1] }}", "Qxb", "q-q"},
      {"{{ c.split('<i>')[1] }}x", "Qbx", "qq-"},
      {"{{ c.partition('<i>') | join('.') }}", "Qa.<i>.Qb", "qq-qqq-qq"},
      {"{{ '.'.join(c.split('<i>')) }}", "Qa.Qb", "qq-qq"},
      {"{{ ['x', 'y'] | join(c) }}", "xQa<i>Qby", "-qqqqqqq-"},
      {"{{ c.removeprefix('Qa') }}", "<i>Qb", "qqqqq"},
      {"{{ (c ~ '\\nx').splitlines() | last }}", "x", "-"},
      {"{{ c | list | join }}", "Qa<i>Qb", "qqqqqqq"},
      {"{{ c | first }}{{ c | last }}x", "Qbx", "qq-"},
      {"{% for d in c %}{{ d }}.{% endfor %}", "Q.a.<.i.>.Q.b.", "q-q-q-q-q-q-q-"},
      {"{{ ('x' ~ c[:1]) * 2 }}", "xQxQ", "-q-q"},
      {"{{ c | upper }}x", "QA<I>QBx", "qqqqqqq-"},
      {"{{ c.title() }}x", "Qa<I>Qbx", "qqqqqqq-"},
      {"{{ c | title }}x", "Qa<I>qbx", "qqqqqqq-"},
      {"{{ c | tojson }}", "\"Qa<i>Qb\"", "-qqqqqqq-"},
      {"{{ {'k': [c]} | tojson(ensure_ascii=true) }}", "{\"k\": [\"Qa<i>Qb\"]}", "--------qqqqqqq---"},
      {"{{ [c] }}", "['Qa<i>Qb']", "-qqqqqqqqq-"},
      {"{{ ('x\\n' ~ c) | indent(2) }}", "x\n  Qa<i>Qb", "----qqqqqqq"},
      {"{% macro m(t) %}<{{ t }}>{% endmacro %}{{ m(c) }}", "<Qa<i>Qb>", "-qqqqqqq-"},
      {"{% set t %}[{{ c }}]{% endset %}{{ t | trim }}", "[Qa<i>Qb]", "-qqqqqqq-"},
      {"{% filter trim %} {{ c }}x {% endfilter %}", "Qa<i>Qbx", "qqqqqqq-"},
      {"{% set n = namespace(t='.') %}{% set n.t = n.t + c %}{{ n.t }}", ".Qa<i>Qb", "-qqqqqqq"},
  };
  for (const Case& one : cases) {
    CAPTURE(one.source);
    const QuotedText text = rendered(one.source, "Qa<i>Qb");
    CHECK(text.text == one.text);
    CHECK(shown(text) == one.quotes);
  }
}

TEST_CASE("no template makes a special token of a message") {
  const Tokenizer tokenizer = bytes_and({"<|end|>", "\u203B", "<|end|>>", "<|END|>"});
  const Ids end = tokenizer.encode("<|end|>", true);
  REQUIRE(end.size() == 1);
  const auto plain = [&](const std::string& text) { return tokenizer.encode(text, false); };
  const auto ids = [&](const std::string& source, const std::string& message) {
    return tokenizer.encode(rendered(source, message));
  };
  CHECK(ids("{{ c }}", "\u203B\u203B\u203B\u203B") == plain("\u203B\u203B\u203B\u203B"));
  CHECK(plain("\u203B\u203B\u203B\u203B").size() == 12);
  CHECK(ids("{{ c }}<|end|>", "a<|end|>b") == joined({plain("a<|end|>b"), end}));
  CHECK(ids("<|end|>{{ c | replace('<image>', '') }}<|end|>", "<|en<image>d|>") ==
        joined({end, plain("<|end|>"), end}));
  CHECK(ids("{{ c | tojson(ensure_ascii=true) }}", "<|end|>") == plain("\"<|end|>\""));
  CHECK(ids("{{ c | upper }}", "<|end|>") == plain("<|END|>"));
  CHECK(ids("{{ c | list | join }}", "<|end|>") == plain("<|end|>"));
  CHECK(ids("{{ c | reverse }}", ">|dne|<") == plain("<|end|>"));
  // The first part comes from the template, the rest from the message.
  CHECK(ids("{{ c }}d|>", "<|en") == plain("<|end|>"));
  CHECK(ids("<|en{{ c }}", "d|>") == plain("<|end|>"));
  // Text of a message next to a special token of the template does not hide that token.
  CHECK(ids("<|end|>{{ c }}", ">") == joined({end, plain(">")}));
  CHECK(ids("{{ c }}<|end|>", "<|end|") == joined({plain("<|end|"), end}));
}

TEST_CASE("a special token in normalized text is none where the message supplies it") {
  nlohmann::json vocabulary;
  for (const char* piece : {"<unk>", "</s>", "\u2581", "<", "/", "s", ">", "a", "["}) {
    const size_t id = vocabulary.size();
    vocabulary[piece] = id;
  }
  const nlohmann::json document = {
      {"added_tokens", {{{"id", 1}, {"content", "</s>"}, {"special", true}, {"normalized", true}}}},
      {"normalizer",
       {{"type", "Sequence"},
        {"normalizers",
         {{{"type", "Prepend"}, {"prepend", "\u2581"}},
          {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "\u2581"}}}}}},
      {"decoder",
       {{"type", "Sequence"},
        {"decoders", {{{"type", "Replace"}, {"pattern", {{"String", "\u2581"}}}, {"content", " "}}}}}},
      {"model",
       {{"type", "BPE"},
        {"unk_token", "<unk>"},
        {"vocab", vocabulary},
        {"merges", nlohmann::json::array()}}}};
  const Tokenizer tokenizer = load({{"tokenizer.json", document.dump()}});
  REQUIRE(tokenizer.encode("a </s>a", true) == Ids{2, 7, 1, 7});
  CHECK(tokenizer.encode(rendered("[ {{ c }} </s>", "</s>")) == Ids{2, 8, 2, 3, 4, 5, 6, 1});
  CHECK(tokenizer.encode(rendered("[{{ c }} </s>", " </s>")) == Ids{2, 8, 2, 3, 4, 5, 6, 1});
  CHECK(tokenizer.encode(rendered("{{ c }} </s>", "</s>")) == Ids{2, 3, 4, 5, 6, 1});
}

TEST_CASE("random texts with random quotes are read stretch by stretch") {
  const uint32_t seed = std::random_device()();
  std::cout << "seed " << seed << "\n";
  std::mt19937 random(seed);
  const Tokenizer tokenizer = bytes_and({"<|end|>", "<|", "end", "\u203B", "x<|end|>"});
  const std::vector<std::string> parts = {"<|end|>", "<|", "e", "nd", "|>", "x", "\u203B", "\u203B\u203B"};
  for (size_t round = 0; round < 300; ++round) {
    std::vector<QuotedText> stretches;  // alternately quoted
    bool quoted = random() % 2 == 0;
    for (size_t i = 0; i < 1 + random() % 5; ++i, quoted = !quoted) {
      QuotedText stretch;
      for (size_t j = 0; j < 1 + random() % 4; ++j) stretch.append(parts[random() % parts.size()], quoted);
      stretches.push_back(stretch);
    }
    QuotedText text;
    Ids expected;
    for (const QuotedText& stretch : stretches) {
      text.append(stretch, 0, stretch.text.size());
      const Ids more = tokenizer.encode(stretch.text, stretch.quotes.ranges().empty());
      expected.insert(expected.end(), more.begin(), more.end());
    }
    CAPTURE(text.text);
    CHECK(tokenizer.encode(text) == expected);
  }
}

TEST_CASE("normalizing quoted text changes it as it would any other and keeps the quotes in place") {
  const uint32_t seed = std::random_device()();
  std::cout << "seed " << seed << "\n";
  std::mt19937 random(seed);
  const std::vector<NormalizerStep> steps[] = {
      {{NormalizerStep::Kind::nfc, "", ""}},
      {{NormalizerStep::Kind::collapse_spaces, "", ""}},
      {{NormalizerStep::Kind::prepend, "\u2581", ""}, {NormalizerStep::Kind::replace, " ", "\u2581"}},
      {{NormalizerStep::Kind::replace, "  ", "="}, {NormalizerStep::Kind::nfc, "", ""}}};
  // Letters, marks above and below, the parts of a Korean syllable, spaces, stray bytes.
  const std::vector<std::string> parts = {"e",      "o",      "\u0301", "\u0323", "\u1112",
                                          "\u1161", "\u11AB", " ",      "\u0344", "<",
                                          "\u00E9", "\u4E2D", "\x80",   "\xC3",   "\u09C7\u09BE"};
  for (size_t round = 0; round < 2000; ++round) {
    QuotedText text;
    for (size_t i = 0; i < 1 + random() % 6; ++i) {
      const bool quoted = random() % 2 == 0;
      for (size_t j = 0; j < 1 + random() % 3; ++j) text.append(parts[random() % parts.size()], quoted);
      text.append(quoted ? "QQ" : "TT", quoted);
    }
    CAPTURE(text.text);
    for (const std::vector<NormalizerStep>& step : steps) {
      const QuotedText normal = normalize(step, text, true);
      CHECK(normal.text == normalize(step, as_unquoted(text.text), true).text);
      const std::string flags = shown(normal);
      for (size_t i = 0; i < flags.size(); ++i) {
        if (normal.text[i] == 'Q') CHECK(flags[i] == 'q');
        if (normal.text[i] == 'T' && i > 0 && normal.text[i - 1] == 'T')
          continue;  // may have been composed with a mark from a message
        if (normal.text[i] == 'T') CHECK(flags[i] == '-');
      }
      const std::string all = shown(normalize(step, as_quoted(text.text), true));
      CHECK(all.find('-') == std::string::npos);
    }
  }
}
