#include "engine/quantize/quantize_model.h"

#include <cassert>

#include "engine/quantize/plan/kept_matrix.h"
#include "engine/quantize/plan/model_file.h"
#include "engine/quantize/recipe/quantize_with_recipe.h"

namespace tessera {

namespace {

std::vector<QuantizeSummary> quantize_by_rounding(const ModelFileOptions& options) {
  const ModelFile file(options);
  TessWriter writer = file.writer();
  Progress progress(options.progress, file.weights(), 0);
  SummaryTable summary(file.keeps());
  std::vector<std::byte> out;
  for (const PlannedWeight& weight : file.plan()) {
    const auto bytes = stored_bytes(weight.scheme, weight.expected.shape);
    out.resize(static_cast<size_t>(bytes.value()));
    ErrorSums sums;
    if (weight.kept)
      sums = encode_kept(options, weight, out, progress);
    else if (weight.expected.shape.size() == 2)
      sums = encode_by_rounding(options, weight, {}, out, progress);
    else
      copy_vector(options, weight, out, progress);
    writer.write(out);
    summary.add(weight, out.size(), sums);
  }
  file.write_tokenizer(writer);
  writer.finish();
  return summary.lines();
}

}  // namespace

std::vector<QuantizeSummary> quantize_model(const QuantizeOptions& options) {
  if (!options.recipe) return quantize_by_rounding(options);
  assert(options.products != nullptr);
  return quantize::quantize_with_recipe(options, *options.recipe, *options.products, options.note);
}

}  // namespace tessera
