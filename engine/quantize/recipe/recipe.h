// Which steps of the recipe are run, and with what text: what the command line decides.
#pragma once

#include <optional>

#include "engine/quantize/calibration/calibration_windows.h"
#include "engine/quantize/lut/table_matrix.h"
#include "gguf-like-format/scheme.h"

namespace tessera::quantize {

// Steps that a scheme has no use for are left out whatever the recipe says: reorder, smooth_outputs and clip
// are for schemes with row scales; table, scale_search, awq and train_scales for table schemes.
struct Recipe {
  bool rotate = true;
  bool reorder = true;
  bool smooth_attention = true;
  bool smooth_outputs = true;
  bool clip = true;
  bool feedback = true;
  TableKind table = TableKind::normal_float;
  bool scale_search = true;
  bool awq = false;
  bool train_scales = false;  // by the error of the outputs: with NormalFloat, learned NormalFloat
  std::optional<double> attention_alpha;  // fixed exponents instead of the best of a grid
  std::optional<double> output_alpha;
  std::optional<CalibrationText> calibration;  // needed for every step but rotate

  // The default steps for a scheme. A calibration text is still to be added.
  static Recipe for_scheme(Scheme scheme);
  // No step at all but the search for scales.
  static Recipe rounding();
  // What pays without a text: rounding, and rotation where weights of 8 bits leave most of the error to
  // activations of 8 bits. Coarser weights lose more by rotation than activations gain: norms that damp
  // channels of large activations damp the errors of weights there, too, until rotation spreads both.
  static Recipe without_text(Scheme scheme);

  // Steps that look at activations.
  bool needs_text() const {
    return reorder || smooth_attention || smooth_outputs || clip || feedback || awq || train_scales;
  }
  // Steps that look at how inputs are correlated.
  bool needs_moments() const { return feedback || train_scales; }
  TableChoices tables() const { return {table, scale_search, feedback, train_scales}; }
};

}  // namespace tessera::quantize
