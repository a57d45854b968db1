// Reads the command line, chooses the verb and runs it.
#include <fmt/format.h>
#include <langinfo.h>
#include <unistd.h>

#include <array>
#include <clocale>
#include <cstdio>
#include <cstring>

#include "commands/command_line/nearest_name.h"
#include "commands/commands.h"
#include "commands/terminal/interrupt.h"
#include "commands/terminal/terminal.h"
#include "commands/verbs.h"
#include "engine/backends.h"

namespace tessera {

namespace {

// The command line as a shell would take it.
std::string quoted_line(int argc, char** argv) {
  std::string line = "tessera";
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const bool plain = !word.empty() && word.find_first_not_of(
                                            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                            "0123456789._-/=:,+") == std::string::npos;
    if (plain) {
      line += ' ' + word;
      continue;
    }
    std::string quoted;
    for (const char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
    line += " '" + quoted + "'";
  }
  return line;
}

int print_version(const Arguments&) {
  write_stdout(fmt::format("tessera {}\n", kVersion));
  return kExitDone;
}

int print_devices(const Arguments&) {
  write_stdout(list_devices());
  return kExitDone;
}

// Options that say what is done instead of answering; the first one that is given counts.
struct Mode {
  const char* option;
  int (*run)(const Arguments&);
};
constexpr std::array kModes = {Mode{"version", print_version}, Mode{"list-devices", print_devices},
                               Mode{"bench", run_bench}};

// Line editing and cutting text at characters need a UTF-8 locale, whatever the environment says.
void choose_locale() {
  if (std::setlocale(LC_CTYPE, "") != nullptr && std::strcmp(nl_langinfo(CODESET), "UTF-8") == 0) return;
  std::setlocale(LC_CTYPE, "C.UTF-8");
}

}  // namespace

int run_without_verb(const Arguments& arguments) {
  for (const Mode& mode : kModes) {
    if (arguments.has(mode.option)) return mode.run(arguments);
  }
  for (const Option& option : arguments.verb().options) {
    if (is_for_benchmarks(option) && arguments.has(option.name))
      throw UsageError(fmt::format("--{}: needs --bench", option.name));
  }
  const bool has_prompt = arguments.has("prompt") || arguments.has("file") || !is_terminal(STDIN_FILENO);
  return has_prompt ? run_generate(arguments) : run_chat(arguments);
}

int run_command_line(int argc, char** argv) {
  occupy_closed_descriptors();
  choose_locale();
  ignore_write_signals();
  leave_on_interrupt();

  std::vector<std::string> words(argv + (argc > 0 ? 1 : 0), argv + argc);
  const Verb* verb = &verbs().front();
  if (!words.empty() && !words.front().empty() && words.front().front() != '-') {
    verb = find_verb(words.front());
    if (verb == nullptr) {
      std::vector<std::string> names;
      for (const Verb& each : verbs().subspan(1)) names.emplace_back(each.name);
      const std::string nearest = nearest_name(words.front(), names);
      throw UsageError(fmt::format("unknown command '{}'{}", words.front(),
                                   nearest.empty() ? "; a prompt is given with -p, --help lists everything"
                                                   : fmt::format(", did you mean {}?", nearest)));
    }
    words.erase(words.begin());
  }
  const Arguments arguments(*verb, words, quoted_line(argc, argv));
  if (arguments.has("help")) {
    write_stdout(help_text(*verb));
    return kExitDone;
  }
  return verb->run(arguments);
}

}  // namespace tessera
