// The calibration text as windows of tokens.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/tokenizer/tokenizer.h"

namespace tessera::quantize {

struct CalibrationText {
  std::string text;
  bool parse_special = false;  // spellings of special tokens in the text stand for these tokens
  bool lines = false;          // every line is a text of its own
  size_t windows = 128;        // at most this many
  size_t window = 0;           // most tokens of one; 0: 1024, or the model's context if that is shorter
};

struct CalibrationWindows {
  // Each begins with bos where the tokenizer adds one; none is empty.
  std::vector<std::vector<uint32_t>> windows;
  std::vector<size_t> lengths() const;
  size_t tokens() const;
};

// At most text.windows windows, evenly spread over the text, of at most text.window tokens (or, when that is
// 0, 1024) and never more than the model's context. A run of text is cut into whole windows; its rest is used
// only when there is no other. Throws std::runtime_error for a text without tokens and for a window beyond
// the context.
CalibrationWindows cut_calibration_text(const CalibrationText& text, const Tokenizer& tokenizer,
                                        size_t context);

}  // namespace tessera::quantize
