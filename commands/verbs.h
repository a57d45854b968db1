// Everything the command line understands, as data: parsing, --help, completions and the nearest-name hint
// all read these tables.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace tessera {

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
};

// Whether it says what is asked and how the answer is sampled, and not what runs or how.
bool is_for_answers(const Option& option);

std::span<const Verb> verbs();  // the first one is the run without a verb
const Verb* find_verb(std::string_view name);
std::string help_text(const Verb& verb);

// The candidate with the smallest edit distance to name, or empty when none is close enough to be meant.
std::string nearest_name(std::string_view name, std::span<const std::string> candidates);
// ", did you mean --top-k?" for an option of that name, dashes included, which the verb does not have; or
// nothing.
std::string option_hint(const Verb& verb, std::string_view unknown);

}  // namespace tessera
