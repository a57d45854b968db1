// Applies normalizer steps to one segment of text.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/tokenizer/quoted_text.h"
#include "engine/tokenizer/text_rules.h"

namespace tessera {

// A segment after all steps in order. at_start: the segment begins the whole text. Malformed UTF-8 passes
// through unchanged. What comes of quoted bytes is quoted, and so is what a step puts before them.
QuotedText normalize(const std::vector<NormalizerStep>& steps, QuotedText text, bool at_start);

// Every occurrence of `from` (not empty), leftmost first and not overlapping, becomes `to`.
std::string replace_all(std::string_view text, std::string_view from, std::string_view to);

}  // namespace tessera
