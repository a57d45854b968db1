// Added tokens: exact texts, such as "<|end|>", that become one id before any other rule is applied to the
// text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/chat_template/quoted_text.h"

namespace tessera {

struct AddedToken {
  uint32_t id = 0;
  std::string content;       // its text
  std::string pattern;       // the text to search for: content, normalized when `normalized` is set
  bool special = false;      // found only in unquoted text; decoding can hide it
  bool normalized = false;   // searched for in normalized text instead of the text as it is
  bool left_strip = false;   // includes the white space before it
  bool right_strip = false;  // includes the white space after it
  bool single_word = false;  // found only where no letter, digit or underscore touches it
};

// One part of a text: an added token, or plain text.
struct TextSegment {
  std::string_view text;
  const AddedToken* token = nullptr;
};

// Finds added tokens in a text, leftmost first; of those that begin at one place, the longest. Immutable;
// points into the list that it was made from, which must outlive it.
class AddedTokenFinder {
 public:
  AddedTokenFinder() = default;
  // Searches for the tokens of the list whose `normalized` flag is as given.
  AddedTokenFinder(const std::vector<AddedToken>& tokens, bool normalized);

  // Whether there are no tokens to search for.
  bool empty() const { return sorted_.empty(); }
  // Splits the text into added tokens and the text between them, in order and without empty segments. A
  // special token that contains quoted bytes remains ordinary text.
  std::vector<TextSegment> split(std::string_view text, const Quotes& quotes) const;

 private:
  // The longest token that begins at byte `at`, or null. Special tokens must end at special_end or before.
  const AddedToken* longest_at(std::string_view text, size_t at, size_t special_end) const;

  std::vector<const AddedToken*> sorted_;  // by pattern
  std::vector<bool> begins_;               // [256]: whether a pattern begins with this byte
};

}  // namespace tessera
