// What `inspect --verify` finds in tensors with scales per group: every kind of fault, planted in a sound
// tensor.
#include "gguf-like-format/tess/group_faults.h"

#include <doctest/doctest.h>

#include <cstring>
#include <iostream>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "gguf-like-format/float_types.h"
#include "gguf-like-format/tess/tensor_scales.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera {

namespace {

struct Tensor {
  StoredTensor view;
  SchemeFacts facts;
  std::vector<std::byte> bytes;

  Tensor(Scheme scheme, size_t rows, size_t columns, uint64_t seed) : facts(scheme_facts(scheme)) {
    view.name = "weights";
    view.scheme = scheme;
    view.shape = {rows, columns};
    bytes.resize(static_cast<size_t>(stored_bytes(view.scheme, view.shape).value()));
    std::mt19937_64 random(seed);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());  // codes may be anything
    view.bytes = bytes;
    const auto level = [&] { return f32_to_f16(static_cast<float>(random() % 100) / 8 - 6); };
    for (size_t row = 0; row < tile::round_up(rows, tile::kPanelRows); ++row) {
      for (size_t g = 0; g < levels(); ++g) {
        put(scale_at(row, g), level());
        if (offsets()) put(offset_at(row, g), level());
      }
    }
    for (size_t entry = 0; facts.table && entry < 16; ++entry) {
      const bool used = entry < (size_t{1} << facts.bits);
      const float whole = static_cast<float>(static_cast<int>(random() % 255) - 127);
      const bool int8 = facts.activations == ActivationType::int8;
      put(entry_at(entry), !used ? 0.0f : int8 ? whole / 127.0f : whole / 64);
    }
  }

  bool offsets() const { return facts.offset != GroupOffset::none; }
  bool nested() const { return facts.kind == CodeKind::int4k; }
  // Groups, or blocks of groups, with f16 levels.
  size_t levels() const { return padded_columns(view.scheme, view.columns()) / facts.column_pad; }
  size_t panel(size_t row) const { return row / tile::kPanelRows * panel_bytes(view.scheme, view.columns()); }
  size_t scale_at(size_t row, size_t g) const {
    const size_t r = row % tile::kPanelRows;
    return panel(row) + (nested() ? tile::nested_scale_byte(r, g)
                                  : tile::table_scale_byte(facts.bits, facts.group, offsets(), r, g));
  }
  size_t offset_at(size_t row, size_t g) const {
    const size_t r = row % tile::kPanelRows;
    return panel(row) + (nested() ? tile::nested_minimum_byte(r, g)
                                  : tile::table_zero_byte(facts.bits, facts.group, r, g));
  }
  size_t entry_at(size_t entry) const {
    return row_tail(view.scheme, view.rows(), view.columns()).table + 4 * entry;
  }
  template <class Value>
  void put(size_t at, Value value) {
    REQUIRE(at + sizeof value <= bytes.size());
    std::memcpy(&bytes[at], &value, sizeof value);
  }
  std::string fault() const { return find_scale_fault(view); }
};

bool begins(const std::string& line, const std::string& start) { return line.rfind(start, 0) == 0; }

}  // namespace

TEST_CASE("faults of tables, scales and zero points are found where they are") {
  std::random_device device;
  const uint64_t seed = device();
  std::cout << "group faults: seed " << seed << '\n';
  std::mt19937_64 random(seed);
  const float infinity = std::numeric_limits<float>::infinity();
  size_t formats = 0;
  for (const Scheme scheme : matrix_schemes()) {
    const SchemeFacts& facts = scheme_facts(scheme);
    if (!facts.group_scales()) continue;
    ++formats;
    CAPTURE(scheme_name(scheme));
    const size_t rows = 1 + random() % 40;
    const Tensor sound(scheme, rows, 1 + random() % 600, random());
    CHECK(sound.fault() == "");

    const size_t row = random() % tile::round_up(rows, tile::kPanelRows);  // padding rows too
    const size_t group = random() % sound.levels();
    const std::string place = "row " + std::to_string(row) + (sound.nested() ? ", block " : ", group ") +
                              std::to_string(group) + ": ";
    for (const float bad : {infinity, -infinity, std::numeric_limits<float>::quiet_NaN()}) {
      Tensor broken = sound;
      broken.view.bytes = broken.bytes;
      broken.put(broken.scale_at(row, group), f32_to_f16(bad));
      CHECK(begins(broken.fault(), "scale of " + place));
    }
    if (sound.offsets()) {
      Tensor broken = sound;
      broken.view.bytes = broken.bytes;
      broken.put(broken.offset_at(row, group), f32_to_f16(infinity));
      const bool zero = facts.offset == GroupOffset::zero_point;
      CHECK(begins(broken.fault(), (zero ? "zero point of " : "minimum of ") + place));
    }
    if (!facts.table) continue;
    const size_t entries = size_t{1} << facts.bits;
    const size_t entry = random() % entries;
    std::vector<float> bad = {infinity, std::numeric_limits<float>::quiet_NaN(), 0.3f};
    if (facts.activations == ActivationType::int8) bad.push_back(128.0f / 127.0f);
    for (const float value : bad) {
      Tensor broken = sound;
      broken.view.bytes = broken.bytes;
      broken.put(broken.entry_at(entry), value);
      CHECK(begins(broken.fault(), "table entry " + std::to_string(entry) + ": "));
    }
    if (entries < 16) {
      Tensor broken = sound;
      broken.view.bytes = broken.bytes;
      broken.put(broken.entry_at(entries), 1.0f);
      CHECK(begins(broken.fault(), "table entry " + std::to_string(entries) + ": expected 0"));
    }
  }
  CHECK(formats == 44);
}

}  // namespace tessera
