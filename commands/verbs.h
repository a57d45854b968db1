// Everything the command line understands, as tables.
#pragma once

#include <span>
#include <string_view>

#include "commands/command_line/verb.h"

namespace tessera {

std::span<const Verb> verbs();  // the first one is the run without a verb
const Verb* find_verb(std::string_view name);

// Whether an option of the run without a verb only says what is asked and how the answer is sampled.
bool is_for_answers(const Option& option);
// Whether it only has a meaning for the benchmark.
bool is_for_benchmarks(const Option& option);

}  // namespace tessera
