// The option tables against what they name.
#include "commands/verbs.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include "commands/command_line/llama_cpp_options.h"
#include "engine/backends.h"
#include "gguf-like-format/scheme.h"

namespace tessera {

namespace {

std::vector<std::string> choices_of(const Verb& verb, const std::string& name) {
  const auto found = std::find_if(verb.options.begin(), verb.options.end(),
                                  [&](const Option& option) { return option.name == name; });
  REQUIRE(found != verb.options.end());
  std::istringstream in(found->choices);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

}  // namespace

TEST_CASE("--scheme offers every scheme that a matrix can have") {
  std::vector<std::string> names;
  for (const Scheme scheme : matrix_schemes()) names.emplace_back(scheme_name(scheme));
  CHECK(choices_of(verbs().front(), "scheme") == names);
  CHECK(choices_of(*find_verb("quantize"), "scheme") == names);
}

TEST_CASE("--backend offers every backend, and every verb has something to run") {
  std::vector<std::string> names;
  for (const BackendRow& row : backend_table()) names.emplace_back(row.name);
  CHECK(names.front() == kHostBackend);
  CHECK(device_backend().on_device);
  for (const Verb* verb : {&verbs().front(), find_verb("perplexity")})
    CHECK(choices_of(*verb, "backend") == names);
  for (const Verb& verb : verbs()) CHECK((verb.run != nullptr));
}

TEST_CASE("options of llama.cpp that are refused are no options here, and documented") {
  std::ifstream in(TESSERA_SOURCE_DIR "/docs/command-line.md");
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  REQUIRE(!text.empty());
  std::string own = " ";
  for (const Option& option : verbs().front().options)
    own += fmt::format("--{} {} ", option.name, option.aliases);
  for (const LlamaCppOption& option : llama_cpp_options()) {
    std::istringstream names(option.names);
    for (std::string name; names >> name;) {
      CAPTURE(name);
      CHECK(own.find(' ' + name + ' ') == std::string::npos);
      CHECK(text.find('`' + name + '`') != std::string::npos);
      CHECK(instead_of_llama_cpp(name) == option.instead);
    }
  }
  CHECK(instead_of_llama_cpp("-f") == "");
  CHECK(instead_of_llama_cpp("") == "");
}

}  // namespace tessera
