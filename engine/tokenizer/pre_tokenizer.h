// Splits a segment of text into words, each of which BPE encodes separately.
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
    bool malformed = false;  // a single byte that is not part of well-formed UTF-8
  };
  std::vector<Word> words;
  std::deque<std::string> changed;  // owns the words that a step has rewritten
};

// Compiled pre-tokenizer steps. Immutable: split may run on several threads.
class PreTokenizer {
 public:
  // Compiles the regular expressions. where: the file, for errors. Throws FileError for an expression that
  // does not compile or uses a construct that has another meaning in the library for which tokenizers are
  // written.
  PreTokenizer(std::vector<PreTokenizerStep> steps, const std::string& where);
  ~PreTokenizer();
  PreTokenizer(PreTokenizer&&) noexcept;

  // The words of a segment in order. They cover it except where a step removes or rewrites text. at_start:
  // the segment begins the whole text. Throws FileError when a regular expression takes far too many steps
  // (catastrophic backtracking).
  WordList split(std::string_view segment, bool at_start) const;

 private:
  std::vector<PreTokenizerStep> steps_;
  std::vector<std::unique_ptr<const SplitPattern>> compiled_;  // per step; null where it has no expression
};

}  // namespace tessera
