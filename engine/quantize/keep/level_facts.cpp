#include "engine/quantize/keep/level_facts.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <span>

namespace tessera::keep {

namespace {

constexpr int kF16Digits = 11;
constexpr int kF16Highest = 15;
constexpr int kF16Lowest = -24;

void add_scales(LevelFacts& facts, std::span<const float> values) {
  for (const float value : values) {
    facts.finite = facts.finite && std::isfinite(value);
    facts.negative = facts.negative || value < 0;
    facts.largest_scale = std::max(facts.largest_scale, std::abs(value));
    facts.scales.add(value);
  }
}

void add_offsets(LevelFacts& facts, std::span<const float> values) {
  for (const float value : values) {
    facts.finite = facts.finite && std::isfinite(value);
    facts.offsets.add(value);
    facts.largest_offset = std::max(facts.largest_offset, std::abs(value));
    facts.lowest_offset = std::min(facts.lowest_offset, value);
    facts.highest_offset = std::max(facts.highest_offset, value);
  }
}

}  // namespace

void BinaryDigits::add(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t exponent = bits >> 23 & 255;
  const uint32_t digits = (bits & 0x7fffff) | (exponent != 0 ? 0x800000u : 0u);
  if (digits == 0) return;
  const int last = static_cast<int>(std::max(exponent, 1u)) - 150;  // exponent of the last digit of all 24
  const int top = last + 31 - std::countl_zero(digits);
  const int bottom = last + std::countr_zero(digits);
  most = std::max(most, top - bottom + 1);
  highest = std::max(highest, top);
  lowest = std::min(lowest, bottom);
}

void BinaryDigits::add(const BinaryDigits& other) {
  most = std::max(most, other.most);
  highest = std::max(highest, other.highest);
  lowest = std::min(lowest, other.lowest);
}

bool BinaryDigits::in_f16(int shift) const {
  return empty() || (most <= kF16Digits && highest + shift <= kF16Highest && lowest + shift >= kF16Lowest);
}

void LevelFacts::add(const LevelFacts& other) {
  finite = finite && other.finite;
  negative = negative || other.negative;
  scales.add(other.scales);
  offsets.add(other.offsets);
  largest_scale = std::max(largest_scale, other.largest_scale);
  largest_offset = std::max(largest_offset, other.largest_offset);
  lowest_offset = std::min(lowest_offset, other.lowest_offset);
  highest_offset = std::max(highest_offset, other.highest_offset);
}

LevelFacts level_facts(const PackedRows& rows) {
  LevelFacts facts;
  add_scales(facts, rows.scales);
  add_scales(facts, rows.block_scales);
  add_offsets(facts, rows.offsets);
  add_offsets(facts, rows.block_minimums);
  return facts;
}

}  // namespace tessera::keep
