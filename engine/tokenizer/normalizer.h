// Applies normalizer steps to one segment of text.
#pragma once

#include <cstddef>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "engine/chat_template/quoted_text.h"
#include "engine/tokenizer/text_rules.h"

namespace tessera {

// The size that the rules of a tokenizer may give a text of this many bytes: far more than any real tokenizer
// does.
size_t most_rewritten_bytes(size_t bytes);
// Throws FileError when bytes > most_bytes.
void check_rewritten(size_t bytes, size_t most_bytes);

// Applies all steps to a segment, in order. at_start: the segment begins the whole text. Malformed UTF-8
// remains as it is. Text that replaces quoted bytes, or is put before them, is quoted. Throws FileError when
// the text becomes longer than most_rewritten_bytes of its size.
QuotedText normalize(const std::vector<NormalizerStep>& steps, QuotedText text, bool at_start);

// Replaces every occurrence of `from` (not empty), leftmost first and without overlaps, by `to`. Throws
// FileError when the result would be longer than most_bytes.
std::string replace_all(std::string_view text, std::string_view from, std::string_view to,
                        size_t most_bytes = std::numeric_limits<size_t>::max());

}  // namespace tessera
