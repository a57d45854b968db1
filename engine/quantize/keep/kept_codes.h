// Which scheme holds the codes of a packed matrix as they are, and how its levels are written there.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "engine/checkpoint/packed_matrix.h"
#include "engine/quantize/keep/level_facts.h"
#include "gguf-like-format/scheme.h"

namespace tessera::keep {

// What of a matrix is not stored as the checkpoint has it.
struct Roundings {
  bool scales = false;   // to f16
  bool offsets = false;  // zero points or minimums, to f16
  bool table = false;    // to bfloat16, or multiples of 1/127

  bool any() const { return scales || offsets || table; }
  void add(const Roundings& other) {
    scales = scales || other.scales;
    offsets = offsets || other.offsets;
    table = table || other.table;
  }
};

struct KeptCodes {
  PackedFormat format;  // of the checkpoint
  Scheme scheme = Scheme::f32;
  int32_t code_shift = 0;         // what is added to every code
  float scale_factor = 1;         // what every scale is multiplied with
  std::array<float, 16> table{};  // of table schemes, divided by that factor
  Roundings rounds;
};

// The scheme for a [rows, columns] matrix with these levels and for activations of int8 or bfloat16: of those
// that hold all levels exactly the one that takes the fewest bytes, otherwise of those that round some.
// Codes with one scale for a whole row may become w8a8, which has int8 activations, either way. Nothing
// where no scheme holds the codes. The codes of a format with an order of columns are not held.
std::optional<KeptCodes> kept_codes(const PackedFormat& format, const LevelFacts& facts, size_t rows,
                                    size_t columns, ActivationType activations);

// Writes rows first_row, first_row + 1, … of the stored matrix: from[i] is the row of `packed` that row
// first_row + i is. Rows of padding follow the last one. Threads may write different rows. The table is
// not written.
void store_kept_rows(const KeptCodes& kept, size_t rows, size_t columns, const PackedRows& packed,
                     std::span<const size_t> from, size_t first_row, std::span<std::byte> out);

}  // namespace tessera::keep
