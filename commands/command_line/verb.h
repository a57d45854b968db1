// What a verb and its options are, as data: parsing, --help, completions and hints read it.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace tessera {

class Arguments;

struct Option {
  const char* group;     // heading in --help; options of a group are adjacent
  char letter;           // one-letter form, 0 when there is none
  const char* name;      // without dashes
  const char* value;     // placeholder of its value; empty for a switch
  const char* choices;   // words the value may be, separated by spaces; empty when it is free
  const char* fallback;  // what holds when it is not given; empty when that says nothing
  const char* help;
  const char* aliases = "";  // other spellings, dashes included, separated by spaces
};

struct Verb {
  const char* name;  // empty for the run without a verb
  const char* usage;
  const char* summary;
  std::span<const Option> options;
  size_t least_operands;
  size_t most_operands;
  // Does the work and returns the exit code. Throws UsageError or another std::exception with one line.
  int (*run)(const Arguments&);
  const char* operand_choices = "";  // words the operand may be, separated by spaces; empty for files
};

std::string help_text(const Verb& verb);

// ", did you mean --top-k?" for an option of that name, dashes included, which the verb does not have; or
// nothing.
std::string option_hint(const Verb& verb, std::string_view unknown);

}  // namespace tessera
