#include "commands/command_line/arguments.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <charconv>
#include <cmath>
#include <limits>
#include <sstream>
#include <utility>

// A repeated option keeps every value whole: no separator splits one. Without regular expressions, which take
// a level of the stack for every character of a word.
#define CXXOPTS_VECTOR_DELIMITER '\0'
#define CXXOPTS_NO_REGEX true
#include <cxxopts.hpp>

#include "commands/command_line/llama_cpp_options.h"
#include "commands/command_line/nearest_name.h"

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

bool is_named(const Option& option, std::string_view name) {
  if (name == fmt::format("--{}", option.name)) return true;
  if (option.letter != 0 && name == fmt::format("-{}", option.letter)) return true;
  const std::vector<std::string> aliases = words_of(option.aliases);
  return std::find(aliases.begin(), aliases.end(), name) != aliases.end();
}

// The option that a word names, and the value that the word itself gives: "--prompt=TEXT", "-ngl=3",
// "-pTEXT".
std::pair<const Option*, std::optional<std::string>> option_of(const Verb& verb, const std::string& word) {
  const size_t equals = word.find('=');
  const std::string_view name = std::string_view(word).substr(0, equals);
  for (const Option& option : verb.options) {
    if (!is_named(option, name)) continue;
    if (equals == std::string::npos) return {&option, std::nullopt};
    return {&option, word.substr(equals + 1)};
  }
  if (verb.name[0] == '\0') {
    // Before "-fa" is read as "-f a".
    if (const std::string_view instead = instead_of_llama_cpp(name); !instead.empty())
      throw UsageError(fmt::format("unknown option {}: {}", name, instead));
  }
  for (const Option& option : verb.options) {
    if (option.letter == word[1] && option.value[0] != '\0') return {&option, word.substr(2)};
  }
  throw UsageError(fmt::format("unknown option {}{}", name, option_hint(verb, name)));
}

// Every option by its full name, and its value as the word after it.
std::vector<std::string> full_words(const Verb& verb, const std::vector<std::string>& words) {
  std::vector<std::string> full;
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (word == "--") {
      full.insert(full.end(), words.begin() + static_cast<std::ptrdiff_t>(i), words.end());
      break;
    }
    if (word.size() < 2 || word.front() != '-') {
      full.push_back(word);
      continue;
    }
    const auto [option, value] = option_of(verb, word);
    full.push_back(fmt::format("--{}", option->name));
    if (option->value[0] == '\0') {
      if (value) throw UsageError(fmt::format("--{}: takes no value, found '{}'", option->name, *value));
      continue;
    }
    if (!value && ++i == words.size())
      throw UsageError(fmt::format("--{}: {} is missing", option->name, option->value));
    full.push_back(value.value_or(words[i]));
  }
  return full;
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

uint64_t parse_bytes(std::string_view what, std::string_view text) {
  double value = 0;
  const char* end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, value);
  std::string_view unit(stopped, static_cast<size_t>(end - stopped));
  const size_t power = unit.empty() ? std::string_view::npos : std::string_view("KMGT").find(unit.front());
  double factor = 1;
  if (power != std::string_view::npos) {
    unit.remove_prefix(1);
    const bool binary = unit.starts_with('i');
    if (binary) unit.remove_prefix(1);
    factor = std::pow(binary ? 1024.0 : 1000.0, static_cast<double>(power + 1));
  }
  if (unit == "B") unit.remove_prefix(1);
  constexpr double kMost = 9e18;  // below the largest uint64_t and off_t
  if (error != std::errc{} || !unit.empty() || !(value >= 0 && value * factor <= kMost))
    throw UsageError(fmt::format("{}: expected a size such as 500M, 20G or 1.5TiB, found '{}'", what, text));
  return static_cast<uint64_t>(value * factor);
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

Arguments::Arguments(const Verb& verb, const std::vector<std::string>& words, std::string command_line)
    : verb_(&verb), command_line_(std::move(command_line)) {
  cxxopts::Options options("tessera");
  auto add = options.add_options();
  for (const Option& each : verb.options) {
    if (each.value[0] == '\0') {
      add(each.name, each.help, cxxopts::value<bool>());
    } else {
      add(each.name, each.help, cxxopts::value<std::vector<std::string>>());
    }
  }
  add(kOperands, "", cxxopts::value<std::vector<std::string>>());
  options.parse_positional({kOperands});

  const std::vector<std::string> full = full_words(verb, words);
  std::vector<const char*> argv = {"tessera"};
  for (const std::string& word : full) argv.push_back(word.c_str());
  try {
    const cxxopts::ParseResult result = options.parse(static_cast<int>(argv.size()), argv.data());
    for (const Option& each : verb.options) {
      if (result.count(each.name) == 0) continue;
      given_[each.name] = {};
      if (each.value[0] != '\0') given_[each.name] = result[each.name].as<std::vector<std::string>>();
    }
    if (result.count(kOperands) != 0) operands_ = result[kOperands].as<std::vector<std::string>>();
  } catch (const cxxopts::exceptions::exception& error) {
    throw UsageError(error.what());
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
