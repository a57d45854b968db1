// The calibration text as windows of tokens.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/quantize/qoq/recipe.h"
#include "engine/tokenizer/tokenizer.h"

namespace tessera::qoq {

struct CalibrationWindows {
  std::vector<std::vector<uint32_t>>
      windows;  // each begins with bos where the tokenizer adds one; none empty
  std::vector<size_t> lengths() const;
  size_t tokens() const;
};

// At most text.windows windows, evenly spread over the text, of at most text.window tokens (or, when that is
// 0, 1024) and never more than the model's context. A run of text is cut into whole windows; its rest is used
// only when there is no other. Throws std::runtime_error for a text without tokens and for a window beyond
// the context.
CalibrationWindows cut_calibration_text(const CalibrationText& text, const Tokenizer& tokenizer,
                                        size_t context);

}  // namespace tessera::qoq
