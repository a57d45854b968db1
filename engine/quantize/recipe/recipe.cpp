#include "engine/quantize/recipe/recipe.h"

namespace tessera::quantize {

Recipe Recipe::for_scheme(Scheme scheme) {
  Recipe recipe;
  if (!scheme_facts(scheme).group_scales()) return recipe;
  recipe.rotate = false;
  recipe.reorder = false;
  recipe.smooth_outputs = false;
  recipe.clip = false;
  if (!table_format(scheme)) return recipe;
  recipe.table = TableKind::kmeans;
  recipe.train_scales = true;
  return recipe;
}

Recipe Recipe::rounding() {
  Recipe recipe;
  recipe.rotate = false;
  recipe.reorder = false;
  recipe.smooth_attention = false;
  recipe.smooth_outputs = false;
  recipe.clip = false;
  recipe.feedback = false;
  return recipe;
}

Recipe Recipe::without_text(Scheme scheme) {
  Recipe recipe = rounding();
  recipe.rotate = scheme_facts(scheme).bits == 8 && activation_type(scheme) == ActivationType::int8;
  return recipe;
}

}  // namespace tessera::quantize
