// Characters and keys out of a terminal's bytes, whatever comes between them and however the bytes arrive.
#include "commands/terminal/key_decoder.h"

#include <doctest/doctest.h>

#include <array>
#include <random>
#include <string>
#include <string_view>

#include "engine/tokenizer/utf8.h"

using namespace tessera;
using namespace std::string_literals;
using std::chrono::milliseconds;

namespace {

std::string utf8(char32_t c) {
  std::string bytes;
  append_utf8(bytes, c);
  return bytes;
}

// What the bytes say: characters as they are, keys between « and », Esc as ‹›, pastes between { and }.
class Typist {
 public:
  void type(std::string_view bytes, milliseconds between = milliseconds(0)) {
    for (const char byte : bytes) {
      now_ += between;
      decoder_.feed(static_cast<unsigned char>(byte), now_);
      collect();
    }
  }
  void wait(milliseconds time) { now_ += time; }
  void settle() {
    REQUIRE(decoder_.after_escape());
    decoder_.settle_escape();
    collect();
  }
  const std::string& seen() const { return seen_; }

 private:
  void collect() {
    while (const auto event = decoder_.take()) {
      switch (event->kind) {
        case KeyEvent::Kind::character:
          seen_ += utf8(event->character);
          break;
        case KeyEvent::Kind::key:
          seen_ += "«" + event->sequence + "»";
          break;
        case KeyEvent::Kind::escape:
          seen_ += "‹›";
          break;
        case KeyEvent::Kind::paste_begin:
          seen_ += "{";
          break;
        case KeyEvent::Kind::paste_end:
          seen_ += "}";
          break;
      }
    }
  }

  KeyDecoder decoder_;
  KeyDecoder::Time now_{std::chrono::hours(1)};
  std::string seen_;
};

std::string decoded(std::string_view bytes) {
  Typist typist;
  typist.type(bytes);
  return typist.seen();
}

std::string without_keys(std::string text) {
  for (size_t begin; (begin = text.find("«")) != std::string::npos;)
    text.erase(begin, text.find("»", begin) + std::string_view("»").size() - begin);
  return text;
}

}  // namespace

TEST_CASE("keys come whole and in one form") {
  constexpr auto cases = std::to_array<std::array<std::string_view, 2>>({
      {"a\x1b[Db", "a«\x1b[D»b"},
      {"a\x1bODb", "a«\x1bOD»b"},
      {"a\x1bO5Db", "a«\x1bO5D»b"},
      {"a\x1b[1;1Db", "a«\x1b[D»b"},
      {"a\x1b[1;129Db", "a«\x1b[D»b"},      // Num Lock
      {"a\x1b[1;69:2Db", "a«\x1b[1;5D»b"},  // Ctrl held, with Caps Lock
      {"a\x1b[1;5:3Db", "ab"},              // released
      {"a\x1b[15~b", "a«\x1b[15~»b"},
      {"a\x1b[3;129~b", "a«\x1b[3~»b"},
      {"a\x1b[3;5~b", "a«\x1b[3;5~»b"},
      {"a\x1b[7^b", "a«\x1b[7^»b"},
      {"a\x1b[?1;2cb", "a«\x1b[?1;2c»b"},
      {"a\x1b[>0;276;0cb", "a«\x1b[>0;276;0c»b"},
      {"a\x1b[24;80Rb", "a«\x1b[24;80R»b"},
      {"a\x1b[!  pb", "a«\x1b[!  p»b"},
      {"a\x1b[Ib\x1b[Oc", "a«\x1b[I»b«\x1b[O»c"},  // focus
      {"a\x1b[[Ab", "a«\x1b[[A»b"},                // F1 on the Linux console
      {"a\x1b\x1b[Db", "a«\x1b\x1b[D»b"},
      {"a\x1b\x1b\x1b[Db", "a«\x1b\x1b[D»b"},
      {"a\x1b"
       "db",
       "a«\x1b"
       "d»b"},
      {"a\x1b\xC3\xBC"
       "b",
       "ab"},
      {"a\x1b\rb", "a«\x1b\r»b"},
      {"a\x1b[<35;7;9Mb\x1b[<0;7;9mc", "a«\x1b[<35;7;9M»b«\x1b[<0;7;9m»c"},
      {"a\x1b[M !!b", "ab"},
      {"a\x1b[M#\xC3\xFF"
       "b",
       "ab"},
      {"a\x1b]11;rgb:1e/1e/1e\x07"
       "b",
       "ab"},
      {"a\x1b]11;rgb:1e/1e/1e\x1b\\b", "ab"},
      {"a\x1bP1$r0m\x1b\\b", "ab"},
      {"a\x1b_Gi=1;OK\x1b\\b\x1bXsos\x1b\\c\x1b^pm\x1b\\d", "abcd"},
      {"a\x1b]0;no end\rb", "a\rb"},
      {"a\x1b]0;no end\x1b[Db", "a«\x1b[D»b"},
      {"a\x1b[12\x18"
       "b",
       "ab"},
      {"a\x1b[12\x1b[Db", "a«\x1b[D»b"},
      {"a\x1b[12\xC3\xBC", "aü"},
      {"a\x1b[201~b", "ab"},
  });
  for (const auto& [bytes, expected] : cases) {
    CAPTURE(bytes);
    CHECK(decoded(bytes) == expected);
  }
  CHECK(decoded("a\x1b[" + std::string(5000, '1') + "~b") == "ab");
}

TEST_CASE("keys of kitty's protocol and of xterm's modifyOtherKeys are what they type") {
  constexpr auto cases = std::to_array<std::array<std::string_view, 2>>({
      {"\x1b[97u", "a"},
      {"\x1b[97;2u", "A"},
      {"\x1b[97;65u", "a"},  // Caps Lock is in the text that may follow, not in the code
      {"\x1b[97;65;65u", "A"},
      {"\x1b[223;2u", "ß"},
      {"\x1b[49:33;2u", "!"},
      {"\x1b[97;1;228u", "ä"},
      {"\x1b[97;5u", "\x01"},
      {"\x1b[97;5:3u", ""},
      {"\x1b[99;133u", "\x03"},
      {"\x1b[27;5;97~", "\x01"},
      {"\x1b[27;2;65~", "A"},
      {"\x1b[13u", "\r"},
      {"\x1b[9u\x1b[127u", "\t\x7f"},
      {"\x1b[13;5u\x1b[9;2u\x1b[27;5;13~", ""},
      {"\x1b[13;3u", "«\x1b\r»"},
      {"\x1b[127;3u", "«\x1b\x7f»"},
      {"\x1b[100;3u",
       "«\x1b"
       "d»"},
      {"\x1b[27u", "‹›"},
      {"\x1b[27;2u", ""},
      {"\x1b[97;9u\x1b[97;17u", ""},  // Super, Hyper
      {"\x1b[57358u\x1b[57441;2u\x1b[0u\x1b[3u\x1b[1114112u\x1b[55296u\x1b[99999999999u", ""},
      {"\x1b[?1u", "«\x1b[?1u»"},
      {"\x1b[91;5u", ""},  // would be Esc
  });
  for (const auto& [bytes, expected] : cases) {
    CAPTURE(bytes);
    CHECK(decoded(bytes) == expected);
  }
}

TEST_CASE("a byte that is no UTF-8 costs that byte") {
  constexpr auto cases = std::to_array<std::array<std::string_view, 2>>({
      {"a\xFF"
       "b",
       "ab"},
      {"a\x80"
       "b",
       "ab"},
      {"a\xC3"
       "b",
       "ab"},
      {"a\xE2\x82"
       "b",
       "ab"},
      {"a\xE2\x82\xE2\x82\xACz", "a€z"},
      {"a\xF0\x9F\x98"
       "b\xF0\x9F\x98\x80",
       "ab😀"},
      {"a\xC0\x80\xC1\xBF"
       "b",
       "ab"},
      {"a\xED\xA0\x80"
       "b",
       "ab"},
      {"a\xF4\x90\x80\x80"
       "b\xF5",
       "ab"},
      {"a\xC2\x9B"
       "b",
       "ab"},  // U+009B is a control character
      {"a\xC3\x1b[Db", "a«\x1b[D»b"},
      {"\x1b\xC3"
       "ab",
       "ab"},
  });
  for (const auto& [bytes, expected] : cases) CHECK(decoded(bytes) == expected);
}

TEST_CASE("pastes are text up to their end, whatever they hold") {
  CHECK(decoded("a\x1b[200~b\r\nc\td\x1b[201~e") == "a{b\r\nc\td}e");
  CHECK(decoded("\x1b[200~\x1b[31mred\x1b[0m \x1b(B\x1b=x\x1b[Mn\x1b[[y\x1b[201~") ==
        "{red x"
        "ny}"s);
  CHECK(decoded("\x1b[200~\x1b]8;;http://x\x1b\\link\x1b]8;;\x07.\x1b[201~") == "{link.}");
  CHECK(decoded("\x1b[200~\x1b]not ended\nnext\x1b[201~z") == "{\nnext}z");
  CHECK(decoded("\x1b[200~\x1b]not ended\x1b[201~z") == "{}z");
  CHECK(decoded("\x1b[200~a\x1b\x1b[201~z") == "{a}z");
  CHECK(decoded("\x1b\x1b[200~a\xC3\x1b[201~z") == "{a}z");
  CHECK(decoded("\x1b[200~\x01\x08\x7f\x1b[200~a\x1b[97;5u\x1b[201~") == "{a}");
  Typist slow;
  slow.type("\x1b[200~a\x1b[31mb\x1b[201~c", milliseconds(400));
  CHECK(slow.seen() == "{ab}c");
}

TEST_CASE("Esc alone is the key, and text typed after it is text") {
  Typist typist;
  typist.type("a\x1b");
  typist.wait(milliseconds(300));
  typist.type("b\x1b");
  typist.wait(milliseconds(1500));
  typist.type("[c]\x1b\x1b");
  typist.wait(milliseconds(300));
  typist.type("Od\x1b");
  typist.settle();
  typist.type("e");
  CHECK(typist.seen() == "a‹›b‹›[c]‹›Od‹›e");
}

TEST_CASE("sequences may arrive in pieces, and unfinished ones are given up after a while") {
  for (const std::string_view bytes :
       {"a\x1b[15~b", "a\x1bOPb", "a\x1b]0;x\x1b\\b", "a\x1b[M   b", "a\x1b[[Ab"}) {
    Typist typist;
    typist.type(bytes, milliseconds(90));
    CHECK(without_keys(typist.seen()) == "ab");
  }
  Typist typist;
  typist.type("a\x1b");
  typist.wait(milliseconds(500));
  typist.type("[5~b");
  CHECK(without_keys(typist.seen()) == "ab");
  for (const std::string_view begun :
       {"\x1b[", "\x1bO", "\x1b]", "\x1bP", "\x1b[5", "\x1b[M", "\x1b[[", "\x1b_\x1b"}) {
    Typist alone;
    alone.type(begun);
    alone.wait(milliseconds(1100));
    alone.type("Text");
    CHECK(alone.seen() == "Text");
  }
  Typist rxvt;  // Shift with Home
  rxvt.type("a\x1b[7$");
  rxvt.wait(milliseconds(200));
  rxvt.type("b");
  CHECK(rxvt.seen() == "ab");
}

TEST_CASE("random mixtures of text and sequences, at random times, leave the text") {
  const uint32_t seed = std::random_device()();
  MESSAGE("seed ", seed);
  std::mt19937 random(seed);
  const auto below = [&](size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random); };
  const auto some = [&](size_t most, unsigned char least, unsigned char greatest) {
    std::string bytes;
    for (size_t n = below(most + 1); n > 0; --n)
      bytes += static_cast<char>(least + below(static_cast<size_t>(greatest - least) + 1));
    return bytes;
  };
  const auto one = [&](unsigned char least, unsigned char greatest) {
    return std::string(1, static_cast<char>(least + below(static_cast<size_t>(greatest - least) + 1)));
  };
  const auto sequence = [&](bool pasting) -> std::string {
    const std::string end = below(2) == 0 ? "\x07" : "\x1b\\";
    switch (below(pasting ? 5 : 8)) {
      case 0:
        return "\x1b[" + one('0', '9') + some(6, 0x30, 0x3F) + some(2, 0x20, 0x2F) + one('a', 't');
      case 1:
        return "\x1bO" + one('A', 'Z');
      case 2:
        return "\x1b]" + some(20, 0x20, 0x7E) + end;
      case 3:
        return "\x1bX" + some(20, 0x80, 0xFF) + end;
      case 4:
        return one(0xF8, 0xFF);
      case 5:
        return "\x1b[M" + one(0x20, 0xFF) + one(0x20, 0xFF) + one(0x20, 0xFF);
      case 6:
        return "\x1b" + one('a', 'z');
      default:
        return "\x1b[58" + one('0', '9') + one('0', '9') + one('0', '9') + ";1u";
    }
  };
  for (int round = 0; round < 300; ++round) {
    std::string bytes, expected;
    bool pasting = false;
    for (int item = 0; item < 30; ++item) {
      if (below(3) == 0) {
        bytes += sequence(pasting);
      } else if (below(12) == 0) {
        pasting = !pasting;
        bytes += pasting ? "\x1b[200~" : "\x1b[201~";
        expected += pasting ? "{" : "}";
      } else {
        constexpr std::array<char32_t, 8> kLetters = {'a', 'Z', '[', '5', 0xFC, 0x20AC, 0x1F600, '~'};
        const std::string letter = utf8(kLetters[below(kLetters.size())]);
        bytes += letter;
        expected += letter;
      }
    }
    Typist typist;
    for (const char byte : bytes) {
      typist.wait(milliseconds(below(2) * below(90)));
      typist.type({&byte, 1});
    }
    CAPTURE(bytes);
    CHECK(without_keys(typist.seen()) == expected);
  }
}

TEST_CASE("after any bytes at all, text is text again") {
  const uint32_t seed = std::random_device()();
  MESSAGE("seed ", seed);
  std::mt19937 random(seed);
  constexpr std::string_view kLikely = "\x1b\x1b\x1b[[]OPM_\\;:0012~~u$<?\r\x07\xC3\xE2\x82";
  for (int round = 0; round < 20000; ++round) {
    std::string bytes;
    for (size_t n = random() % 40; n > 0; --n)
      bytes += random() % 4 == 0 ? static_cast<char>(random()) : kLikely[random() % kLikely.size()];
    Typist typist;
    typist.type(bytes);
    typist.wait(milliseconds(1100));
    typist.type("\x1b[201~");
    const size_t before = typist.seen().size();
    typist.type("Text \xC3\xBC");
    CHECK(typist.seen().substr(before) == "Text ü");
  }
}
