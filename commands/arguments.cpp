#include "commands/arguments.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <charconv>
#include <limits>
#include <sstream>

// A repeated option keeps every value whole: no separator splits one.
#define CXXOPTS_VECTOR_DELIMITER '\0'
#include <cxxopts.hpp>

namespace tessera {

namespace {

// A list longer than this hides the word that was meant.
constexpr size_t kManyChoices = 8;

constexpr const char* kOperands = "operands";

std::vector<std::string> words_of(const char* choices) {
  std::istringstream in(choices);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (size_t i = 0; i < words.size(); ++i) {
    text += (i == 0 ? "" : i + 1 == words.size() ? " or " : ", ") + words[i];
  }
  return text;
}

// cxxopts writes its messages with typographic quotes; a terminal line reads better without.
std::string plain_quotes(std::string text) {
  for (const std::string_view quote : {"\xE2\x80\x98", "\xE2\x80\x99"}) {
    for (size_t at = text.find(quote); at != std::string::npos; at = text.find(quote, at)) {
      text.replace(at, quote.size(), "'");
    }
  }
  return text;
}

std::string unknown_option(const Verb& verb, std::string_view word) {
  const size_t dashes = word.substr(0, 2) == "--" ? 2 : 1;
  const std::string_view name = word.substr(dashes, word.find('=') - dashes);
  return fmt::format("unknown option {}{}", word.substr(0, word.find('=')), option_hint(verb, name));
}

// Words as cxxopts takes them: other spellings become the usual ones, and "--prompt=text" becomes two words,
// because cxxopts does not see a value with newlines in it. A word that is the value of the one before stays
// as it is.
std::vector<std::string> split_assignments(const Verb& verb, const std::vector<std::string>& words) {
  const auto usual_name = [&](const std::string& word) {
    const std::string_view name = std::string_view(word).substr(0, word.find('='));
    for (const Option& option : verb.options) {
      if (option.alias[0] != '\0' && name == option.alias)
        return fmt::format("--{}{}", option.name, word.substr(name.size()));
    }
    return word;
  };
  const auto takes_value = [&](std::string_view word) {
    return std::any_of(verb.options.begin(), verb.options.end(), [&](const Option& option) {
      return option.value[0] != '\0' && (word == fmt::format("--{}", option.name) ||
                                         (option.letter != 0 && word == fmt::format("-{}", option.letter)));
    });
  };
  std::vector<std::string> result;
  bool is_value = false;
  bool operands_only = false;
  for (const std::string& given : words) {
    const std::string word = is_value || operands_only ? given : usual_name(given);
    const size_t equals = word.find('=');
    if (!is_value && !operands_only && equals != std::string::npos && takes_value(word.substr(0, equals)) &&
        word.compare(0, 2, "--") == 0) {
      result.push_back(word.substr(0, equals));
      result.push_back(word.substr(equals + 1));
      continue;
    }
    operands_only = operands_only || (!is_value && word == "--");
    is_value = !is_value && !operands_only && takes_value(word);
    result.push_back(word);
  }
  return result;
}

}  // namespace

uint64_t parse_integer(std::string_view what, std::string_view text, uint64_t least, uint64_t most) {
  uint64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc{} || stopped != end || value < least || value > most) {
    throw UsageError(
        most == std::numeric_limits<uint64_t>::max()
            ? fmt::format("{}: expected a whole number of at least {}, found '{}'", what, least, text)
            : fmt::format("{}: expected a whole number from {} to {}, found '{}'", what, least, most, text));
  }
  return value;
}

double parse_real(std::string_view what, std::string_view text, double least, double most) {
  double value = 0;
  const char* end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc{} || stopped != end || !(value >= least && value <= most)) {
    throw UsageError(fmt::format("{}: expected a number from {} to {}, found '{}'", what, least, most, text));
  }
  return value;
}

Arguments::Arguments(const Verb& verb, const std::vector<std::string>& words) : verb_(&verb) {
  cxxopts::Options options("tessera");
  options.allow_unrecognised_options();
  auto add = options.add_options();
  for (const Option& each : verb.options) {
    const std::string names = each.letter != 0 ? fmt::format("{},{}", each.letter, each.name) : each.name;
    if (each.value[0] == '\0') {
      add(names, each.help, cxxopts::value<bool>());
    } else {
      add(names, each.help, cxxopts::value<std::vector<std::string>>());
    }
  }
  add(kOperands, "", cxxopts::value<std::vector<std::string>>());
  options.parse_positional({kOperands});

  const std::vector<std::string> split = split_assignments(verb, words);
  std::vector<const char*> argv = {"tessera"};
  for (const std::string& word : split) argv.push_back(word.c_str());
  try {
    const cxxopts::ParseResult result = options.parse(static_cast<int>(argv.size()), argv.data());
    if (!result.unmatched().empty()) throw UsageError(unknown_option(verb, result.unmatched().front()));
    for (const Option& each : verb.options) {
      if (result.count(each.name) == 0) continue;
      if (each.value[0] == '\0') {
        if (result[each.name].as<bool>()) given_[each.name] = {};
      } else {
        given_[each.name] = result[each.name].as<std::vector<std::string>>();
      }
    }
    if (result.count(kOperands) != 0) operands_ = result[kOperands].as<std::vector<std::string>>();
  } catch (const cxxopts::exceptions::exception& error) {
    throw UsageError(plain_quotes(error.what()));
  }
  if (has("help")) return;
  if (operands_.size() > verb.most_operands) {
    throw UsageError(
        fmt::format("unexpected '{}'; usage: {}", operands_[verb.most_operands],
                    verb.name[0] != '\0' ? verb.usage : "tessera [-m FILE] [-p TEXT] [options]"));
  }
  if (operands_.size() < verb.least_operands) throw UsageError(fmt::format("usage: {}", verb.usage));
}

const Option& Arguments::option(std::string_view name) const {
  const auto found = std::find_if(verb_->options.begin(), verb_->options.end(),
                                  [&](const Option& each) { return each.name == name; });
  assert(found != verb_->options.end());
  return *found;
}

bool Arguments::has(std::string_view name) const { return given_.find(name) != given_.end(); }

std::optional<std::string> Arguments::text(std::string_view name) const {
  const auto found = given_.find(name);
  if (found == given_.end() || found->second.empty()) return std::nullopt;
  return found->second.back();
}

std::vector<std::string> Arguments::all(std::string_view name) const {
  const auto found = given_.find(name);
  return found != given_.end() ? found->second : std::vector<std::string>{};
}

std::optional<uint64_t> Arguments::integer(std::string_view name, uint64_t least, uint64_t most) const {
  const std::optional<std::string> given = text(name);
  if (!given) return std::nullopt;
  return parse_integer(fmt::format("--{}", name), *given, least, most);
}

std::string Arguments::choice(std::string_view name) const {
  const std::optional<std::string> given = text(name);
  return given ? checked_choice(name, *given) : option(name).fallback;
}

std::vector<std::string> Arguments::choices(std::string_view name) const {
  std::vector<std::string> words;
  const std::optional<std::string> given = text(name);
  if (!given) return words;
  for (size_t begin = 0; begin <= given->size();) {
    const size_t end = std::min(given->find(',', begin), given->size());
    words.push_back(checked_choice(name, given->substr(begin, end - begin)));
    begin = end + 1;
  }
  return words;
}

std::string Arguments::checked_choice(std::string_view name, const std::string& given) const {
  const std::vector<std::string> words = words_of(option(name).choices);
  if (std::find(words.begin(), words.end(), given) == words.end()) {
    const std::string nearest = nearest_name(given, words);
    throw UsageError(fmt::format(
        "--{}: expected {}, found '{}'{}", name, joined(words), given,
        words.size() > kManyChoices && !nearest.empty() ? fmt::format(", did you mean {}?", nearest) : ""));
  }
  return given;
}

}  // namespace tessera
