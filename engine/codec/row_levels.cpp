#include "engine/codec/row_levels.h"

#include <algorithm>
#include <cassert>

#include "engine/codec/panel_codec.h"

namespace tessera {

void fit_levels(Scheme scheme, std::span<const float> values, float clip, RowLevels& levels) {
  assert(clip > 0.0f && clip <= 1.0f);
  const SchemeFacts& facts = scheme_facts(scheme);
  panel::codec_of(facts.kind).fit(facts, values, static_cast<double>(clip), levels);
}

void RowLevels::encode(size_t first, std::span<const float> values, std::span<uint8_t> codes) const {
  assert(codes.size() == values.size());
  if (scale == 0.0f) {
    std::fill(codes.begin(), codes.end(), static_cast<uint8_t>(code_offset));
    return;
  }
  for (size_t start = 0; start < values.size();) {
    const size_t column = first + start;
    const size_t end = std::min(values.size(), start + group_columns - column % group_columns);
    const Group group = group_of(column);
    for (size_t i = start; i < end; ++i) codes[i] = static_cast<uint8_t>(code(values[i], group));
    start = end;
  }
}

void RowLevels::round(std::span<const float> values, std::span<float> out) const {
  assert(out.size() == values.size());
  if (scale == 0.0f) {
    std::fill(out.begin(), out.end(), 0.0f);
    return;
  }
  for (size_t start = 0; start < values.size(); start += group_columns) {
    const size_t end = std::min(values.size(), start + group_columns);
    const Group group = group_of(start);
    for (size_t i = start; i < end; ++i) out[i] = meaning(code(values[i], group), group);
  }
}

}  // namespace tessera
