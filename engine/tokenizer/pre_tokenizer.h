// Cuts a segment of text into the words that BPE works on, each by itself.
#pragma once

#include <cstddef>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tokenizer/text_rules.h"

namespace tessera {

class SplitPattern;

// The words of one segment; views point into the segment or into `changed`.
struct WordList {
  struct Word {
    std::string_view text;
    bool malformed = false;  // one byte that is no part of well-formed UTF-8: a word of its own
  };
  std::vector<Word> words;
  std::deque<std::string> changed;  // words that a step had to rewrite
};

// Compiled pre-tokenizer steps. Immutable: split may run on several threads.
class PreTokenizer {
 public:
  // Compiles the regular expressions. where names the file in errors. Throws FileError for one that does not
  // compile or uses a construct whose meaning would differ from the one tokenizers give it.
  PreTokenizer(std::vector<PreTokenizerStep> steps, const std::string& where);
  ~PreTokenizer();
  PreTokenizer(PreTokenizer&&) noexcept;

  // The segment's words in order; they cover it except where a step removes or rewrites text. at_start: the
  // segment begins the whole text. Throws FileError when a regular expression needs more steps than any
  // sensible one would (catastrophic backtracking).
  WordList split(std::string_view segment, bool at_start) const;

 private:
  std::vector<PreTokenizerStep> steps_;
  std::vector<std::unique_ptr<const SplitPattern>> compiled_;  // per step; null where it has no expression
};

}  // namespace tessera
