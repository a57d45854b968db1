// The proof that w4a8-g128 never overflows a byte, by trying every range of a group: s1 is 1 to 16, a is 1 to
// 128, and u = q s1 + a is 1 to 255 for every code that any float can be given, clipped or not, with error
// feedback or without.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <iostream>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "engine/codec/matrix_codec.h"
#include "engine/codec/row_levels.h"
#include "gguf-like-format/tile_layout.h"

using namespace tessera;

namespace {

constexpr size_t kGroup = tile::kGroupColumns;
constexpr float kFirstLevel = 119.0f;

// A row whose first group makes the row's scale `scale`, and whose second group spans [low, high] times that.
struct Row {
  std::vector<float> values = std::vector<float>(kGroup + 2, 0.0f);
  RowLevels levels;

  const RowLevels::Group& fit(float low, float high, float scale, float clip) {
    values[0] = kFirstLevel * scale;
    values[kGroup] = low * scale;
    values[kGroup + 1] = high * scale;
    fit_levels(Scheme::w4a8_g128, values, clip, levels);
    return levels.groups[1];
  }
};

// What is wrong with a group, or nothing.
std::string fault(const RowLevels& levels, const RowLevels::Group& group) {
  if (group.step != std::nearbyint(group.step) || group.step < 1 || group.step > 16) return "s1";
  if (group.zero != std::nearbyint(group.zero) || group.zero < 0 || group.zero > 15) return "z";
  const auto step = static_cast<int>(group.step);
  const int offset = 128 - static_cast<int>(group.zero) * step;
  if (offset < 1 || offset > 128) return "a";
  // Codes rise with the value, so those of the extremes and of what is no number bound all others; each code
  // between is checked too.
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const int lowest = levels.code(-kInfinity, group);
  const int highest = levels.code(kInfinity, group);
  for (const float value : {std::numeric_limits<float>::quiet_NaN(), 3e38f, -3e38f, 1e30f, -1e30f, 1e-40f}) {
    const int code = levels.code(value, group);
    if (code < lowest || code > highest) return "code of a strange float";
  }
  if (lowest < 0 || highest > 15 || lowest > highest) return "q";
  for (int code = lowest; code <= highest; ++code) {
    const int byte = code * step + offset;
    if (byte < 1 || byte > 255) return "u";
    if (levels.meaning(code, group) != levels.scale * static_cast<float>(byte - 128)) return "meaning";
  }
  return {};
}

struct Sweep {
  size_t ranges = 0;
  std::string first_fault;
  float largest_step = 0;
  float farthest = 0;  // |w8| - |w1| over the extremes of unclipped groups: how far rounding moves outwards

  void check(Row& row, float low, float high, float scale, float clip) {
    const RowLevels::Group& group = row.fit(low, high, scale, clip);
    ++ranges;
    largest_step = std::max(largest_step, group.step);
    std::string found = fault(row.levels, group);
    if (found.empty() && clip == 1.0f) {
      for (const float value : {row.values[kGroup], row.values[kGroup + 1]}) {
        const int code = row.levels.code(value, group);
        const float first_level = value / row.levels.scale;
        const float byte = (static_cast<float>(code) - group.zero) * group.step;
        farthest = std::max(farthest, std::abs(byte) - std::abs(first_level));
        // The limit on codes is for values from outside: it may not change one of the group's own.
        const float scaled = std::nearbyint(value / row.levels.scale / group.step + group.zero);
        if (static_cast<float>(code) != std::clamp(scaled, 0.0f, 15.0f)) found = "limit";
      }
    }
    if (!found.empty() && first_fault.empty())
      first_fault =
          found + " at " + std::to_string(low) + " " + std::to_string(high) + " clip " + std::to_string(clip);
  }
};

}  // namespace

TEST_CASE("every range of whole and of fractional first-level values") {
  Row row;
  Sweep sweep;
  constexpr int kParts = 16;  // of one first-level unit
  constexpr int kLimit = 119 * kParts;
  for (int low = -kLimit; low <= 0; ++low) {
    for (int high = 0; high <= kLimit; ++high)
      sweep.check(row, static_cast<float>(low) / kParts, static_cast<float>(high) / kParts, 1.0f, 1.0f);
  }
  CHECK(sweep.ranges == size_t{kLimit + 1} * (kLimit + 1));
  CHECK(sweep.first_fault == "");
  CHECK(sweep.largest_step == 16.0f);  // reached, so the sweep touches the bound
  CHECK(sweep.farthest <= 8.0f);
}

TEST_CASE("ranges one ulp to either side of every whole pair, where roundings tip") {
  Row row;
  Sweep sweep;
  for (int low = -119; low <= 0; ++low) {
    for (int high = 0; high <= 119; ++high) {
      for (const float down : {-200.0f, 200.0f}) {
        for (const float up : {-200.0f, 200.0f}) {
          const float a = std::clamp(std::nextafter(static_cast<float>(low), down), -kFirstLevel, 0.0f);
          const float b = std::clamp(std::nextafter(static_cast<float>(high), up), 0.0f, kFirstLevel);
          sweep.check(row, a, b, 1.0f, 1.0f);
        }
      }
    }
  }
  CHECK(sweep.first_fault == "");
  CHECK(sweep.farthest <= 8.001f);
}

TEST_CASE("every whole range at scales that round, clipped and not") {
  const uint64_t seed = std::random_device{}();
  std::cout << "progressive groups proof: seed " << seed << '\n';
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<float> exponent(-30.0f, 30.0f);
  std::uniform_real_distribution<float> ratio(0.01f, 1.0f);
  Row row;
  Sweep sweep;
  for (int low = -119; low <= 0; ++low) {
    for (int high = 0; high <= 119; ++high) {
      const float scale = std::exp2(exponent(random));
      sweep.check(row, static_cast<float>(low), static_cast<float>(high), scale, 1.0f);
      sweep.check(row, static_cast<float>(low), static_cast<float>(high), scale, ratio(random));
      sweep.check(row, static_cast<float>(low), static_cast<float>(high), 1e-38f, 1.0f);
    }
  }
  CHECK(sweep.first_fault == "");
  CHECK(sweep.farthest <= 8.001f);
}

TEST_CASE("every clip ratio of the grid") {
  Row row;
  Sweep sweep;
  for (int g = 0; g <= 80; ++g) {
    const auto clip = static_cast<float>(1.0 - 0.01 * g);
    for (int low = -119; low <= 0; ++low) {
      for (int high = 0; high <= 119; ++high)
        sweep.check(row, static_cast<float>(low), static_cast<float>(high), 1.0f, clip);
    }
  }
  CHECK(sweep.first_fault == "");
}

TEST_CASE("a full range with feedback would overflow without the limit on codes") {
  // s1 = 16 and z = 7: the code 15 would mean 128, one more than a byte holds.
  Row row;
  const RowLevels::Group& group = row.fit(-119.0f, 119.0f, 1.0f, 1.0f);
  CHECK(group.step == 16.0f);
  CHECK(group.zero == 7.0f);
  CHECK(row.levels.code(1e9f, group) == 14);
}

TEST_CASE("the stored bytes are those of the levels") {
  const uint64_t seed = std::random_device{}();
  std::cout << "progressive groups proof: seed " << seed << '\n';
  std::mt19937_64 random(seed);
  std::student_t_distribution<float> distribution(2.0f);
  constexpr size_t kRows = 48;
  constexpr size_t kColumns = 384;
  std::vector<float> values(kRows * kColumns);
  for (float& value : values) value = distribution(random);
  std::vector<std::byte> stored(
      stored_bytes(Scheme::w4a8_g128, std::array<uint64_t, 2>{kRows, kColumns}).value());
  encode_rows(Scheme::w4a8_g128, kRows, kColumns, 0, kRows, values, stored);
  const size_t panel_size = panel_bytes(Scheme::w4a8_g128, kColumns);
  RowLevels levels;
  for (size_t row = 0; row < kRows; ++row) {
    fit_levels(Scheme::w4a8_g128, std::span(values).subspan(row * kColumns, kColumns), 1.0f, levels);
    const size_t panel = row / 16 * panel_size;
    for (size_t group = 0; group < kColumns / kGroup; ++group) {
      const float step = std::to_integer<uint8_t>(stored[panel + tile::group_scale_byte(row % 16, group)]);
      const float offset = std::to_integer<uint8_t>(stored[panel + tile::group_offset_byte(row % 16, group)]);
      CHECK(step == levels.groups[group].step);
      CHECK(offset == 128.0f - levels.groups[group].zero * step);
    }
  }
}
