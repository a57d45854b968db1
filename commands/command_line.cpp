#include <fmt/format.h>
#include <unistd.h>

#include <langinfo.h>
#include <clocale>
#include <cstdio>
#include <cstring>

#include "commands/commands.h"
#include "commands/interrupt.h"
#include "commands/terminal.h"
#include "engine/backends.h"

namespace tessera {

namespace {

std::string rejoined(int argc, char** argv) {
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

int run_verb(const Verb& verb, const Arguments& arguments, const std::string& line) {
  const std::string_view name = verb.name;
  if (name == "quantize") return run_quantize(arguments, line);
  if (name == "perplexity") return run_perplexity(arguments);
  if (name == "inspect") return run_inspect(arguments);
  if (name == "tokenize") return run_tokenize(arguments);
  if (name == "completions") return run_completions(arguments);
  if (arguments.has("version")) {
    write_stdout(fmt::format("tessera {}\n", kVersion));
    return kExitDone;
  }
  if (arguments.has("list-devices")) {
    std::string devices = list_devices();
    if (!devices.empty() && devices.back() != '\n') devices += '\n';
    write_stdout(devices);
    return kExitDone;
  }
  if (arguments.has("bench")) return run_bench(arguments);
  for (const char* flag : {"tests", "repetitions", "output", "plot", "shape", "scheme"}) {
    if (arguments.has(flag)) throw UsageError(fmt::format("--{}: needs --bench", flag));
  }
  if (arguments.has("prompt") || arguments.has("file") || !is_terminal(STDIN_FILENO))
    return run_generate(arguments);
  return run_chat(arguments);
}

// Line editing and cutting text at characters need a UTF-8 locale, whatever the environment says.
void choose_locale() {
  if (std::setlocale(LC_CTYPE, "") != nullptr && std::strcmp(nl_langinfo(CODESET), "UTF-8") == 0) return;
  std::setlocale(LC_CTYPE, "C.UTF-8");
}

}  // namespace

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
  const Arguments arguments(*verb, words);
  if (arguments.has("help")) {
    write_stdout(help_text(*verb));
    return kExitDone;
  }
  return run_verb(*verb, arguments, rejoined(argc, argv));
}

}  // namespace tessera
