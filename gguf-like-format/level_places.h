// Where the f16 levels of schemes with groups lie in a panel.
#pragma once

#include <cstddef>

#include "gguf-like-format/scheme.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera {

// The byte, from the panel's first, of the scale of (row, index) and of what may be beside it, a zero point
// or minimum. Levels are those of a group of columns, or of a block of groups.
struct LevelPlaces {
  const SchemeFacts& scheme;
  bool nested = scheme.kind == CodeKind::int4k;
  bool offsets = scheme.offset != GroupOffset::none;

  size_t scale(size_t row, size_t index) const {
    return nested ? tile::nested_scale_byte(row, index)
                  : tile::table_scale_byte(scheme.bits, scheme.group, offsets, row, index);
  }
  size_t offset(size_t row, size_t index) const {
    return nested ? tile::nested_minimum_byte(row, index)
                  : tile::table_zero_byte(scheme.bits, scheme.group, row, index);
  }
};

}  // namespace tessera
