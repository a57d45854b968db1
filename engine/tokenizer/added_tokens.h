// Added tokens: exact pieces of text that become one id before any other rule looks at the text.
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
  std::string pattern;       // what is looked for: content, or content after normalization when normalized
  bool special = false;      // matched only on request, hidden when decoding unless asked for
  bool normalized = false;   // looked for after normalization instead of before
  bool left_strip = false;   // takes the whitespace before it along
  bool right_strip = false;  // takes the whitespace after it along
  bool single_word = false;  // only where no word character touches it
};

// One part of a text: an added token, or plain text.
struct TextSegment {
  std::string_view text;
  const AddedToken* token = nullptr;
};

// Finds added tokens leftmost first and, at one place, the longest. Immutable; keeps pointers into the
// list it was made from.
class AddedTokenFinder {
 public:
  AddedTokenFinder() = default;
  // Takes the tokens of the list whose normalized flag is as given.
  AddedTokenFinder(const std::vector<AddedToken>& tokens, bool normalized);

  // Whether there is nothing to look for.
  bool empty() const { return sorted_.empty(); }
  // Cuts the text at added tokens; special ones that touch quoted bytes are left in the text. Empty parts are
  // not returned.
  std::vector<TextSegment> split(std::string_view text, const Quotes& quotes) const;

 private:
  const AddedToken* longest_at(std::string_view text, size_t at, size_t special_end) const;

  std::vector<const AddedToken*> sorted_;  // by pattern
  std::vector<bool> begins_;               // whether some pattern begins with this byte
};

}  // namespace tessera
