// The layout of weights in device memory: the index maps are as documented, and an upload stores every code
// of the file where they say. Run on the emulator, and on a device where the build has one.
#include <doctest/doctest.h>

#include <cstring>
#include <iostream>
#include <random>
#include <set>
#include <vector>

#include "backends/cuda/uploaded_weight.h"
#include "tests/cuda/test_queue.h"

using namespace tessera;
using namespace tessera::cuda;

namespace {

std::unique_ptr<UploadedWeight> uploaded(Queue& queue, const StoredTensor& tensor) {
  DeviceMemory staging;
  auto made = UploadedWeight::upload(queue, staging, tensor);
  REQUIRE_MESSAGE(made.ok(), (made.ok() ? std::string() : made.error()));
  return std::move(made.value());
}

unsigned nibble(std::byte byte, bool high) {
  const auto value = std::to_integer<unsigned>(byte);
  return high ? value >> 4 : value & 15;
}

// The code of (row, column) in the file.
unsigned file_code(const StoredTensor& tensor, size_t row, size_t column) {
  const size_t panel = row / 16 * panel_bytes(tensor.scheme, tensor.columns());
  if (tensor.scheme == Scheme::w8a8)
    return std::to_integer<unsigned>(tensor.bytes[panel + tile::byte_in_panel(row % 16, column)]);
  const tile::Nibble at = tensor.scheme == Scheme::w4a8 ? tile::nibble_in_panel(row % 16, column)
                                                        : tile::nibble_in_grouped_panel(row % 16, column);
  return nibble(tensor.bytes[panel + at.byte], at.high);
}

}  // namespace

TEST_CASE("the words of a unit take every code of the file once") {
  for (const bool nibbles : {false, true}) {
    std::set<std::pair<uint32_t, bool>> seen;  // a word of the file, and which of its nibbles
    for (uint32_t word = 0; word < layout::kUnitWords; ++word) {
      const layout::WordSource source = layout::source_of(nibbles, word);
      seen.emplace(source.low, source.upper);
      if (nibbles) seen.emplace(source.high, source.upper);
    }
    CHECK(seen.size() == (nibbles ? 2 : 1) * layout::kUnitWords);
    CHECK(seen.rbegin()->first == layout::kUnitWords - 1);
  }
  CHECK(layout::merged_nibbles(0x81726354u, 0x0f1e2d3cu, false) == 0xf1e2d3c4u);
  CHECK(layout::merged_nibbles(0x81726354u, 0x0f1e2d3cu, true) == 0x08172635u);
  std::set<uint32_t> parameters;
  for (uint32_t i = 0; i < 32; ++i) parameters.insert(layout::source_parameter(i));
  CHECK(parameters.size() == 32);
  for (uint32_t row = 0; row < 16; ++row) {
    CHECK(layout::source_parameter(layout::scale_byte(row) - layout::kParameters) ==
          tile::group_scale_byte(row, 0));
    CHECK(layout::source_parameter(layout::offset_byte(row) - layout::kParameters) ==
          tile::group_offset_byte(row, 0));
  }
}

TEST_CASE("a lane's sixteen bytes are its operands of mma.m16n8k32") {
  for (const WeightFormat format : {WeightFormat::w8a8, WeightFormat::w4a8, WeightFormat::w4a8_g128}) {
    for (uint32_t row = 0; row < 16; ++row) {
      for (uint32_t column = 0; column < 512; ++column) {
        const layout::CodePlace place = layout::code_in_panel(format, row, column);
        const uint32_t unit = column / layout::unit_columns(format);
        const size_t inside = place.byte - layout::unit_byte(format, unit);
        const size_t lane = inside / 16;
        const size_t word = inside / 4 % 4;
        CHECK(inside < layout::kUnitBytes);
        CHECK(lane / 4 == row % 8);
        CHECK(lane % 4 == column % 16 / 4);  // each place has four columns of every 16
        CHECK(word % 2 == row / 8);
        CHECK(inside % 4 == column % 4);
        if (has_nibbles(format)) {
          CHECK(word / 2 == column % 64 / 32);
          CHECK(place.high == (column % 32 >= 16));
        } else {
          CHECK(word / 2 == column % 32 / 16);
        }
      }
    }
  }
}

TEST_CASE("uploading puts every code where the maps say") {
  const std::unique_ptr<Queue> queue = any_queue("device layout");
  if (!queue) return;
  rig::Random random = seeded("integer upload");
  for (const WeightFormat format : {WeightFormat::w8a8, WeightFormat::w4a8, WeightFormat::w4a8_g128}) {
    const Scheme scheme = format == WeightFormat::w8a8   ? Scheme::w8a8
                          : format == WeightFormat::w4a8 ? Scheme::w4a8
                                                         : Scheme::w4a8_g128;
    for (int round = 0; round < 6; ++round) {
      const size_t rows = rig::pick(random, 1, 70);
      const size_t columns = rig::pick(random, 1, 700);
      const rig::PackedTensor packed = rig::random_matrix(random, "w", scheme, rows, columns);
      const StoredTensor file = packed.view();
      const auto weight = uploaded(*queue, file);
      const MatrixView& view = weight->matrix();
      const size_t padded = padded_columns(scheme, columns);
      const size_t padded_rows = tile::round_up(rows, 16);
      CHECK(view.rows == rows);
      CHECK(view.columns == padded);
      const auto codes = downloaded(*queue, view.codes.address(), padded_rows / 16 * view.panel_bytes);
      size_t wrong = 0;
      for (size_t row = 0; row < padded_rows; ++row) {
        for (size_t column = 0; column < padded; ++column) {
          const layout::CodePlace place =
              layout::code_in_panel(format, static_cast<uint32_t>(row % 16), static_cast<uint32_t>(column));
          const std::byte byte = codes[row / 16 * view.panel_bytes + place.byte];
          const unsigned code =
              has_nibbles(format) ? nibble(byte, place.high) : std::to_integer<unsigned>(byte);
          wrong += code != file_code(file, row, column) ? 1 : 0;
          if (scheme != Scheme::w4a8_g128) continue;
          const size_t panel = row / 16 * view.panel_bytes;
          const size_t group = column / 128;
          const size_t at = panel + group * tile::kGroupBytes;
          const auto r = static_cast<uint32_t>(row % 16);
          wrong += codes[at + layout::scale_byte(r)] != file.bytes[panel + tile::group_scale_byte(r, group)]
                       ? 1
                       : 0;
          wrong += codes[at + layout::offset_byte(r)] != file.bytes[panel + tile::group_offset_byte(r, group)]
                       ? 1
                       : 0;
        }
      }
      CAPTURE(scheme_name(scheme));
      CAPTURE(rows);
      CAPTURE(columns);
      CHECK(wrong == 0);
      const RowTail tail = row_tail(scheme, rows, columns);
      const auto scales = downloaded(*queue, view.scales.address(), 4 * padded_rows);
      CHECK(std::memcmp(scales.data(), file.bytes.data() + tail.scales, scales.size()) == 0);
      if (scheme == Scheme::w4a8) {
        const auto zeros = downloaded(*queue, view.zeros.address(), padded_rows);
        CHECK(std::memcmp(zeros.data(), file.bytes.data() + tail.zeros, zeros.size()) == 0);
      }
    }
  }
}

TEST_CASE("float matrices become rows that end in zeros, vectors stay as they are") {
  const std::unique_ptr<Queue> queue = any_queue("device layout");
  if (!queue) return;
  rig::Random random = seeded("float upload");
  for (const Scheme scheme : {Scheme::f32, Scheme::f16, Scheme::bf16}) {
    const size_t element = scheme == Scheme::f32 ? 4 : 2;
    for (int round = 0; round < 4; ++round) {
      const size_t rows = rig::pick(random, 1, 50);
      const size_t columns = rig::pick(random, 1, 300);
      const rig::PackedTensor packed = rig::random_matrix(random, "w", scheme, rows, columns);
      const StoredTensor file = packed.view();
      const auto weight = uploaded(*queue, file);
      const size_t stride = layout::float_row_elements(columns) * element;
      const auto bytes = downloaded(*queue, weight->matrix().codes.address(), rows * stride);
      size_t wrong = 0;
      for (size_t row = 0; row < rows; ++row) {
        for (size_t column = 0; column < stride / element; ++column) {
          uint32_t got = 0;
          std::memcpy(&got, bytes.data() + row * stride + column * element, element);
          uint32_t correct = 0;
          if (column < columns) {
            const size_t from = scheme == Scheme::bf16 ? tile::bf16_in_panel(row % 16, column)
                                                       : tile::element_in_panel(row % 16, column);
            std::memcpy(&correct,
                        file.bytes.data() + row / 16 * panel_bytes(scheme, columns) + from * element,
                        element);
          }
          wrong += got != correct ? 1 : 0;
        }
      }
      CAPTURE(scheme_name(scheme));
      CAPTURE(rows);
      CAPTURE(columns);
      CHECK(wrong == 0);
    }
  }
  const rig::PackedTensor vector = rig::random_vector(random, "gain", 77);
  const auto weight = uploaded(*queue, vector.view());
  CHECK(downloaded(*queue, weight->vector().address(), 77 * 4) == vector.bytes);
}

TEST_CASE("tensors that cannot be uploaded are refused by name") {
  const std::unique_ptr<Queue> queue = any_queue("device layout");
  if (!queue) return;
  rig::Random random = seeded("refused uploads");
  rig::PackedTensor packed = rig::random_matrix(random, "blk.0.q", Scheme::w4a8, 20, 70);
  DeviceMemory staging;
  StoredTensor tensor = packed.view();
  tensor.bytes = tensor.bytes.first(tensor.bytes.size() - 1);
  auto made = UploadedWeight::upload(*queue, staging, tensor);
  REQUIRE_FALSE(made.ok());
  CHECK(made.error().find("tensor \"blk.0.q\": expected ") == 0);
  tensor.scheme = Scheme::u8;
  tensor.shape = {tensor.bytes.size()};
  made = UploadedWeight::upload(*queue, staging, tensor);
  REQUIRE_FALSE(made.ok());
  CHECK(made.error().find("no kernels for scheme u8") != std::string::npos);
}
