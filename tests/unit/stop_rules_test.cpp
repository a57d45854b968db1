// Stop strings: the text that is shown does not depend on the pieces in which it arrives.
#include "engine/sampling/stop_rules.h"

#include <doctest/doctest.h>

#include <iostream>
#include <random>
#include <string>
#include <vector>

namespace {

struct Result {
  std::string text;
  bool stopped = false;
  bool operator==(const Result& other) const { return text == other.text && stopped == other.stopped; }
};

Result run(tessera::StopRules& rules, const std::vector<std::string>& pieces) {
  Result result;
  for (const std::string& piece : pieces) {
    tessera::StopRules::Outcome outcome = rules.push(piece);
    result.text += outcome.text;
    result.stopped = outcome.stopped;
  }
  result.text += rules.finish();
  return result;
}

Result run(const std::vector<std::string>& stops, const std::vector<std::string>& pieces) {
  tessera::StopRules rules(stops);
  return run(rules, pieces);
}

// The definition, without streaming: the text ends at the first byte that completes a stop string, and the
// longest stop string that this byte completes is removed.
Result define(const std::vector<std::string>& stops, const std::string& text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      const bool ends_here =
          !stop.empty() && stop.size() <= end && text.substr(end - stop.size(), stop.size()) == stop;
      if (ends_here && stop.size() > longest) longest = stop.size();
    }
    if (longest > 0) return {text.substr(0, end - longest), true};
  }
  return {text, false};
}

// All 2^(n-1) ways to cut a text of n bytes into pieces.
void check_all_splits(const std::vector<std::string>& stops, const std::string& text) {
  const Result expected = define(stops, text);
  for (uint32_t cuts = 0; cuts < (1u << (text.size() - 1)); ++cuts) {
    std::vector<std::string> pieces(1);
    for (size_t i = 0; i < text.size(); ++i) {
      if (i > 0 && (cuts >> (i - 1) & 1) != 0) pieces.emplace_back();
      pieces.back() += text[i];
    }
    REQUIRE(run(stops, pieces) == expected);
  }
}

}  // namespace

TEST_CASE("nothing to stop at: text passes at once") {
  tessera::StopRules rules({});
  CHECK(rules.push("hello").text == "hello");
  CHECK(rules.finish().empty());
  tessera::StopRules only_empty({"", ""});
  CHECK(only_empty.push("hello").text == "hello");
  CHECK_FALSE(only_empty.push("").stopped);
}

TEST_CASE("text that could begin a stop string is held back, and no more than that") {
  tessera::StopRules rules({"<|end|>"});
  CHECK(rules.push("Hi <").text == "Hi ");
  CHECK(rules.push("|").text.empty());
  CHECK(rules.push("x").text == "<|x");
  CHECK(rules.push("a<<|").text == "a<");
  const tessera::StopRules::Outcome outcome = rules.push("end|> more");
  CHECK(outcome.text.empty());
  CHECK(outcome.stopped);
  CHECK(rules.push("and more").text.empty());
  CHECK(rules.push("and more").stopped);
  CHECK(rules.finish().empty());
  rules.reset();
  CHECK(rules.push("<|en").text.empty());
  CHECK(rules.finish() == "<|en");
}

TEST_CASE("the same result however the text is cut") {
  check_all_splits({"abc"}, "xxababcabc");
  check_all_splits({"aab"}, "aaaaaab");
  check_all_splits({"abab"}, "abaababab");
  check_all_splits({"\n\n", "\nUser:"}, "a\nUse\nUser:x");
  check_all_splits({"bc", "abcd", "b"}, "xxabcdxx");
  check_all_splits({"abcd", "bc"}, "xxabcdxx");
  check_all_splits({"abc", "bc", "c"}, "zzabcz");
  check_all_splits({"abcx", "bcy"}, "abcabcyx");
  check_all_splits({"a"}, "bbbba");
  check_all_splits({"never"}, "nevenevene");
  check_all_splits({"é", "日本"}, "x日è日本é");
}

TEST_CASE("of stop strings completed by the same byte the longest is cut off") {
  CHECK(run({"c", "abc"}, {"xabcx"}) == Result{"x", true});
  CHECK(run({"abc", "c"}, {"xabcx"}) == Result{"x", true});
}

TEST_CASE("characters stay whole when pieces and stop strings are valid UTF-8") {
  // é and è share their first byte.
  tessera::StopRules rules({"é!", "🙂🙂"});
  for (const std::string piece : {"aè", "é", "?", "🙂", "🙃", "è"}) {
    const std::string text = rules.push(piece).text;
    CAPTURE(text);
    if (!text.empty()) CHECK((static_cast<unsigned char>(text[0]) & 0xC0) != 0x80);
  }
  CHECK(run({"é!", "🙂🙂"}, {"aè", "é", "?", "🙂", "🙃", "é", "!", "x"}) ==
        Result{"aèé?🙂🙃", true});
}

TEST_CASE("random texts, stop strings and cuts") {
  const auto seed = static_cast<uint32_t>(std::random_device{}());
  std::cout << "seed " << seed << "\n";
  std::mt19937 random(seed);
  size_t stopped = 0;
  for (size_t round = 0; round < 20000; ++round) {
    const auto random_text = [&](size_t longest) {
      std::string text;
      for (size_t length = random() % (longest + 1); length > 0; --length)
        text += static_cast<char>('a' + random() % 3);
      return text;
    };
    std::vector<std::string> stops;
    for (size_t count = random() % 4; count > 0; --count) stops.push_back(random_text(6));
    const std::string text = random_text(40);
    std::vector<std::string> pieces;
    for (size_t at = 0; at < text.size();) {
      const size_t size = random() % 6;
      pieces.push_back(text.substr(at, size));
      at += size;
    }
    const Result expected = define(stops, text);
    REQUIRE(run(stops, pieces) == expected);
    if (expected.stopped) ++stopped;
  }
  CHECK(stopped > 1000);
  CHECK(stopped < 19000);
}
