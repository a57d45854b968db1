// One regular expression of a pre-tokenizer, compiled once and matched under a step limit.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace tessera {

// A part of a text: either a match of a pattern or what lies between matches.
struct TextPart {
  size_t begin = 0;
  size_t end = 0;
  bool match = false;
};

// Immutable; find_parts may run on several threads.
class SplitPattern {
 public:
  // Compiles a pattern in the dialect of tokenizer files: Unicode classes; \s is the White_Space property and
  // \w letters, marks, digits and connectors. where begins error lines. Throws FileError.
  SplitPattern(const std::string& pattern, const std::string& where);
  ~SplitPattern();

  // Parts that cover the well-formed UTF-8 text in order, empty ones included where a match is empty. Throws
  // FileError when one match takes more than about a million steps and a hundred per byte of text.
  std::vector<TextPart> find_parts(std::string_view text) const;

 private:
  struct Code;
  std::unique_ptr<const Code> code_;
  std::string pattern_;
  std::string where_;
};

}  // namespace tessera
