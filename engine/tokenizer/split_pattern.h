// One regular expression of a pre-tokenizer, compiled once and matched under a step limit.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace tessera {

// A part of a text: a match of a pattern, or the text between two matches.
struct TextPart {
  size_t begin = 0;
  size_t end = 0;
  bool match = false;
};

// Immutable; find_parts may run on several threads.
class SplitPattern {
 public:
  // Compiles a pattern with the rules of tokenizer files: classes are those of Unicode, \s is the White_Space
  // property, and \w means letters, marks, digits and connectors. where: begins error messages. Throws
  // FileError.
  SplitPattern(const std::string& pattern, const std::string& where);
  ~SplitPattern();

  // The parts of a text of well-formed UTF-8, in order and without gaps; an empty match is an empty part.
  // Throws FileError when one match takes more than a million steps and a hundred for each byte of the text.
  std::vector<TextPart> find_parts(std::string_view text) const;

 private:
  struct Code;
  std::unique_ptr<const Code> code_;
  std::string pattern_;
  std::string where_;
};

}  // namespace tessera
