// What the levels of a matrix of codes need to be stored without rounding, found by one look at all of them.
#pragma once

#include <limits>

#include "engine/checkpoint/packed_matrix.h"

namespace tessera::keep {

// The binary digits of finite numbers, so that it can be said which number format holds all of them.
struct BinaryDigits {
  int most = 0;                                   // between the first and the last digit of a number
  int highest = std::numeric_limits<int>::min();  // exponent of the highest digit of any
  int lowest = std::numeric_limits<int>::max();   // exponent of the lowest digit of any

  void add(float value);
  void add(const BinaryDigits& other);
  bool empty() const { return most == 0; }  // all are zero
  bool in_f16(int shift = 0) const;         // whether f16 holds all of them times 2^shift
};

struct LevelFacts {
  bool finite = true;       // all levels are
  bool negative = false;    // some scale is
  BinaryDigits scales;      // of groups; nested: of blocks
  BinaryDigits offsets;     // zero points or minimums; nested: minimums of blocks
  float largest_scale = 0;  // magnitudes
  float largest_offset = 0;
  float lowest_offset = std::numeric_limits<float>::infinity();
  float highest_offset = -std::numeric_limits<float>::infinity();

  void add(const LevelFacts& other);
  bool whole_offsets() const { return offsets.empty() || offsets.lowest >= 0; }
};

// Of the groups and blocks of some rows.
LevelFacts level_facts(const PackedRows& rows);

}  // namespace tessera::keep
