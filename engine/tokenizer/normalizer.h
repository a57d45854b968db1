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

// How many bytes the rules of a tokenizer may make of so many: far more than any real tokenizer does.
size_t most_rewritten_bytes(size_t bytes);
// Throws FileError when they are more than that.
void check_rewritten(size_t bytes, size_t most_bytes);

// A segment after all steps in order. at_start: the segment begins the whole text. Malformed UTF-8 passes
// through unchanged. What comes of quoted bytes is quoted, and so is what a step puts before them. Throws
// FileError when the text becomes longer than most_rewritten_bytes of it.
QuotedText normalize(const std::vector<NormalizerStep>& steps, QuotedText text, bool at_start);

// Every occurrence of `from` (not empty), leftmost first and not overlapping, becomes `to`. Throws FileError
// when the result would be longer than most_bytes.
std::string replace_all(std::string_view text, std::string_view from, std::string_view to,
                        size_t most_bytes = std::numeric_limits<size_t>::max());

}  // namespace tessera
