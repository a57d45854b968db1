// Completion scripts for shells, written from the same tables as --help.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

#include "commands/commands.h"
#include "commands/terminal/terminal.h"
#include "commands/verbs.h"

namespace tessera {

namespace {

bool takes_file(const Option& option) { return std::strcmp(option.value, "FILE") == 0; }

std::string verb_names() {
  std::string names;
  for (const Verb& verb : verbs().subspan(1))
    names += fmt::format("{}{}", names.empty() ? "" : " ", verb.name);
  return names;
}

std::string option_words(const Verb& verb) {
  std::string words;
  for (const Option& option : verb.options) {
    if (option.letter != 0) words += fmt::format("-{} ", option.letter);
    words += fmt::format("--{} ", option.name);
  }
  words.pop_back();
  return words;
}

std::string option_case(const Option& option) {
  return option.letter != 0 ? fmt::format("-{}|--{}", option.letter, option.name)
                            : fmt::format("--{}", option.name);
}

std::string bash_script() {
  std::string text =
      "_tessera() {\n"
      "  local word=\"${COMP_WORDS[COMP_CWORD]}\" before=\"${COMP_WORDS[COMP_CWORD-1]}\" verb=\"\"\n"
      "  COMPREPLY=()\n"
      "  (( COMP_CWORD > 1 )) && verb=\"${COMP_WORDS[1]}\"\n"
      "  case \"$verb\" in\n";
  const auto body = [&](const Verb& verb) {
    std::string cases;
    for (const Option& option : verb.options) {
      if (option.value[0] == '\0') continue;
      if (option.choices[0] != '\0') {
        cases += fmt::format("        {}) COMPREPLY=($(compgen -W \"{}\" -- \"$word\")); return ;;\n",
                             option_case(option), option.choices);
      } else if (takes_file(option)) {
        cases += fmt::format("        {}) COMPREPLY=($(compgen -f -- \"$word\")); return ;;\n",
                             option_case(option));
      } else {
        cases += fmt::format("        {}) return ;;\n", option_case(option));
      }
    }
    if (!cases.empty()) text += "      case \"$before\" in\n" + cases + "      esac\n";
    const bool first = verb.name[0] == '\0';
    text +=
        fmt::format("      if [[ \"$word\" == -* ]]; then COMPREPLY=($(compgen -W \"{}\" -- \"$word\"))\n",
                    option_words(verb));
    if (first) {
      text += fmt::format(
          "      elif (( COMP_CWORD == 1 )); then COMPREPLY=($(compgen -W \"{}\" -- \"$word\"))\n",
          verb_names());
    } else if (verb.operand_choices[0] != '\0') {
      text += fmt::format("      else COMPREPLY=($(compgen -W \"{}\" -- \"$word\"))\n", verb.operand_choices);
    } else {
      text += "      else COMPREPLY=($(compgen -f -- \"$word\"))\n";
    }
    text += "      fi\n";
  };
  for (const Verb& verb : verbs().subspan(1)) {
    text += fmt::format("    {})\n", verb.name);
    body(verb);
    text += "      ;;\n";
  }
  text += "    *)\n";
  body(verbs().front());
  text += "      ;;\n  esac\n}\ncomplete -o filenames -F _tessera tessera\n";
  return text;
}

// Text inside a zsh option specification: brackets, colons and quotes have a meaning there.
std::string zsh_escaped(const char* text) {
  std::string result;
  for (const char* c = text; *c != '\0'; ++c) {
    if (*c == '[' || *c == ']' || *c == ':') result += '\\';
    result += *c == '\'' ? std::string("'\\''") : std::string(1, *c);
  }
  return result;
}

std::string zsh_script() {
  std::string text =
      "#compdef tessera\n_tessera() {\n  local verb=\"\"\n  (( CURRENT > 2 )) && verb=\"${words[2]}\"\n  "
      "case \"$verb\" in\n";
  const auto body = [&](const Verb& verb) {
    text += "      _arguments";
    for (const Option& option : verb.options) {
      std::string value;
      if (option.value[0] != '\0') {
        value = option.choices[0] != '\0' ? fmt::format(":{}:({})", option.value, option.choices)
                : takes_file(option)      ? fmt::format(":{}:_files", option.value)
                                          : fmt::format(":{}:", zsh_escaped(option.value));
      }
      const std::string help = zsh_escaped(option.help);
      if (option.letter != 0) text += fmt::format(" \\\n        '-{}[{}]{}'", option.letter, help, value);
      text += fmt::format(" \\\n        '--{}[{}]{}'", option.name, help, value);
    }
    if (verb.name[0] == '\0') {
      text += fmt::format(" \\\n        '1:command:({})'\n", verb_names());
    } else if (verb.operand_choices[0] != '\0') {
      text += fmt::format(" \\\n        '2:shell:({})'\n", verb.operand_choices);
    } else {
      text += " \\\n        '2:file:_files'\n";
    }
  };
  for (const Verb& verb : verbs().subspan(1)) {
    text += fmt::format("    {})\n", verb.name);
    body(verb);
    text += "      ;;\n";
  }
  text += "    *)\n";
  body(verbs().front());
  text += "      ;;\n  esac\n}\n_tessera \"$@\"\n";
  return text;
}

std::string fish_escaped(const char* text) {
  std::string result;
  for (const char* c = text; *c != '\0'; ++c) {
    if (*c == '\'' || *c == '\\') result += '\\';
    result += *c;
  }
  return result;
}

std::string fish_script() {
  const std::string names = verb_names();
  std::string text = "complete -c tessera -f\n";
  for (const Verb& verb : verbs()) {
    const bool first = verb.name[0] == '\0';
    const std::string where = first ? fmt::format("not __fish_seen_subcommand_from {}", names)
                                    : fmt::format("__fish_seen_subcommand_from {}", verb.name);
    if (!first) {
      text += fmt::format("complete -c tessera -n 'not __fish_seen_subcommand_from {}' -a {} -d '{}'\n",
                          names, verb.name, fish_escaped(verb.summary));
      text += verb.operand_choices[0] != '\0'
                  ? fmt::format("complete -c tessera -n '{}' -a '{}'\n", where, verb.operand_choices)
                  : fmt::format("complete -c tessera -n '{}' -F\n", where);
    }
    for (const Option& option : verb.options) {
      text += fmt::format("complete -c tessera -n '{}' -l {}", where, option.name);
      if (option.letter != 0) text += fmt::format(" -s {}", option.letter);
      if (option.value[0] != '\0') {
        text += option.choices[0] != '\0' ? fmt::format(" -x -a '{}'", option.choices)
                : takes_file(option)      ? std::string(" -r -F")
                                          : std::string(" -x");
      }
      text += fmt::format(" -d '{}'\n", fish_escaped(option.help));
    }
  }
  return text;
}

struct Shell {
  std::string_view name;
  std::string (*script)();
};
constexpr std::array kShells = {Shell{"bash", bash_script}, Shell{"zsh", zsh_script},
                                Shell{"fish", fish_script}};

}  // namespace

int run_completions(const Arguments& arguments) {
  const std::string& shell = arguments.operands().front();
  const auto found =
      std::find_if(kShells.begin(), kShells.end(), [&](const Shell& known) { return known.name == shell; });
  if (found == kShells.end())
    throw UsageError(fmt::format("completions: expected bash, zsh or fish, found '{}'", shell));
  write_stdout(found->script());
  return kExitDone;
}

}  // namespace tessera
