// Which steps of the recipe are taken and with what text: what the command line decides.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

namespace tessera::qoq {

struct CalibrationText {
  std::string text;
  bool parse_special = false;  // special tokens spelled in the text are meant
  bool lines = false;          // every line is a text of its own
  size_t windows = 128;        // most of them
  size_t window = 0;           // tokens of one, at most; 0: 1024, or the model's context if that is shorter
};

struct Recipe {
  bool rotate = true;
  bool reorder = true;
  bool smooth_attention = true;
  bool smooth_outputs = true;
  bool clip = true;
  bool feedback = true;
  std::optional<double> attention_alpha;  // fixed exponents instead of the best of a grid
  std::optional<double> output_alpha;
  std::optional<CalibrationText> calibration;  // needed for every step but rotate

  // Steps that look at activations.
  bool needs_text() const { return reorder || smooth_attention || smooth_outputs || clip || feedback; }
};

}  // namespace tessera::qoq
