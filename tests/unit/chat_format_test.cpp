// What a model's chat template and tokens mean for its chats.
#include "engine/chat_format/chat_format.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "tests/unit/tokenizer_files.h"

namespace {

using namespace tokenizer_files;
using tessera::ChatFormat;
using tessera::ChatMessage;
using tessera::ChatSettings;
using tessera::Tokenizer;

Tokenizer bytes_and_end() {
  return load({{"tokenizer.json", byte_level_document({}, {"<|close|>"}).dump()}});
}

const std::string kTurns = "{% for m in messages %}[{{ m.role }}]{{ m.content }}<|close|>{% endfor %}";
const std::vector<ChatMessage> kWithSystem = {{"system", "Be brief."}, {"user", "Hi"}};

}  // namespace

TEST_CASE("a system message stays where the template shows it and goes before the first message elsewhere") {
  const Tokenizer tokenizer = bytes_and_end();
  struct Case {
    std::string source;
    bool takes_system;
    std::string prompt;
  };
  const std::vector<Case> cases = {
      {kTurns, true, "[system]Be brief.<|close|>[user]Hi<|close|>"},
      {"{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + kTurns, false,
       "[user]Be brief.\n\nHi<|close|>"},
      // Left out without a word.
      {"{% for m in messages if m.role != 'system' %}[{{ m.role }}]{{ m.content }}{% endfor %}", false,
       "[user]Be brief.\n\nHi"},
      {"{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ "
       "raise_exception('turns') }}"
       "{% endif %}{{ m.content }}|{% endfor %}",
       false, "Be brief.\n\nHi|"}};
  for (const Case& each : cases) {
    CAPTURE(each.source);
    const ChatFormat format(each.source, ChatSettings(), tokenizer);
    REQUIRE(format.can_render());
    CHECK(format.question_fault().empty());
    CHECK(format.takes_system() == each.takes_system);
    const tessera::QuotedText prompt = format.render(kWithSystem);
    CHECK(prompt.text == each.prompt);
    // Both texts come from messages, wherever they are put.
    const size_t system = prompt.text.find("Be brief.");
    CHECK(prompt.quotes.any_in(system, system + 1));
    CHECK(prompt.quotes.any_in(prompt.text.find("Hi"), prompt.text.find("Hi") + 1));
  }
  const ChatFormat format(cases[1].source, ChatSettings(), tokenizer);
  CHECK(format.render(std::vector<ChatMessage>{{"system", "Alone"}}).text == "[user]Alone<|close|>");
}

TEST_CASE("templates that cannot be used say why and still leave the other end tokens") {
  const Tokenizer tokenizer = bytes_and_end();
  ChatSettings settings;
  settings.stop_tokens = {65};
  const ChatFormat broken("{% if %}", settings, tokenizer);
  CHECK_FALSE(broken.can_render());
  CHECK(broken.fault().find("chat template line 1: ") == 0);
  REQUIRE(broken.end_tokens().size() == 1);
  CHECK(broken.end_tokens()[0].id == 65);

  const ChatFormat failing("{{ nosuch() }}", settings, tokenizer);
  CHECK(failing.can_render());
  CHECK(failing.fault().empty());
  CHECK(failing.question_fault() == "chat template line 1: 'nosuch' is undefined");
  CHECK(failing.takes_system());

  const ChatFormat none("", settings, tokenizer);
  CHECK_FALSE(none.can_render());
  CHECK(none.fault().empty());

  const ChatFormat closing(kTurns, settings, tokenizer);
  REQUIRE(closing.end_tokens().size() == 2);
  CHECK(closing.end_tokens()[1].id == 256);
  CHECK(closing.end_tokens()[1].sources == "chat template");
}
