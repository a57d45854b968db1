// What the executable can do, a function each. It returns the exit code and throws UsageError or another
// std::exception with one line.
#pragma once

#include "commands/command_line/arguments.h"

namespace tessera {

// Exit codes of the executable; 2, for usage errors, is given where UsageError is caught.
inline constexpr int kExitDone = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitInterrupted = 130;

inline constexpr const char* kVersion = TESSERA_VERSION;  // the project's, from CMakeLists.txt

int run_without_verb(const Arguments& arguments);  // one of the next three
int run_chat(const Arguments& arguments);
int run_generate(const Arguments& arguments);  // one answer to -p, -f or stdin
int run_bench(const Arguments& arguments);
int run_quantize(const Arguments& arguments);
int run_perplexity(const Arguments& arguments);
int run_inspect(const Arguments& arguments);
int run_tokenize(const Arguments& arguments);
int run_cache(const Arguments& arguments);
int run_pull(const Arguments& arguments);
int run_completions(const Arguments& arguments);

// Chooses the verb and runs it.
int run_command_line(int argc, char** argv);

}  // namespace tessera
