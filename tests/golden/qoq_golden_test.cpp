// A whole layer of the embedded model against an independent numpy implementation of the recipe
// (tests/golden/make_qoq_golden.py): rotated weights, clip ratios, and codes, scales and zero points with and
// without error feedback.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "backends/cpu/dense_products.h"
#include "engine/quantize/calibration/input_statistics.h"
#include "engine/quantize/qoq/rotate_layer.h"
#include "engine/quantize/qoq/rounded_matrix.h"
#include "gguf-like-format/safetensors/safetensors.h"
#include "gguf-like-format/tile_layout.h"
#include "tests/golden/golden_arrays.h"
#include "tests/unit/qoq_layers.h"

using namespace tessera;
using namespace tessera::golden;
using namespace tessera::quantize;

namespace {

constexpr std::array kParts{"q", "k", "v", "o", "gate", "up", "down"};
constexpr std::array kSchemes{Scheme::w4a8_g128, Scheme::w4a8, Scheme::w8a8};
constexpr size_t kShownRow = 5;

Role role_of(const std::string& part) { return find_role(part, true)->role; }

// 32-bit FNV-1a.
uint32_t hash(std::span<const uint8_t> bytes) {
  uint32_t value = 0x811c9dc5u;
  for (const uint8_t byte : bytes) value = (value ^ byte) * 0x01000193u;
  return value;
}

// splitmix64 of a counter.
uint64_t mixed(uint64_t index) {
  uint64_t z = (index + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// The same whole numbers as the script's: small enough that every sum of products of them is exact in f32.
FloatMatrix inputs(size_t tokens, size_t columns, uint64_t stream) {
  constexpr size_t kFactors = 32;
  const auto digit = [&](uint64_t part, uint64_t index, uint64_t choices) {
    return static_cast<int>(mixed((stream << 40) + (part << 32) + index) % choices);
  };
  FloatMatrix x(tokens, columns);
  for (size_t t = 0; t < tokens; ++t) {
    for (size_t c = 0; c < columns; ++c) {
      int sum = digit(2, t * columns + c, 5) - 2;
      for (size_t f = 0; f < kFactors; ++f)
        sum += (digit(0, t * kFactors + f, 7) - 3) * (digit(1, f * columns + c, 3) - 1);
      x.row(t)[c] = static_cast<float>(c == 11 ? 0 : sum * (digit(3, c, 3) + 1));
    }
  }
  return x;
}

struct Golden {
  nlohmann::json json;
  qoq_test::Layer layer{{256, 4, 2, 64, 768, false}};  // rotated

  explicit Golden(DenseProducts& products) {
    const std::string root = TESSERA_SOURCE_DIR;
    std::ifstream file(root + "/tests/golden/qoq.json");
    REQUIRE(file.good());
    json = nlohmann::json::parse(file);

    const Checkpoint checkpoint = Checkpoint::open(root + "/models/tessera-tiny");
    const std::string prefix = "model.layers." + std::to_string(json["layer"].get<size_t>()) + ".";
    const auto vector = [&](const std::string& name) {
      const CheckpointTensor* tensor = checkpoint.find(prefix + name + ".weight");
      REQUIRE(tensor != nullptr);
      std::vector<float> values(static_cast<size_t>(tensor->elements()));
      read_floats(*tensor, 0, values);
      return values;
    };
    layer[Role::attention_norm].values = vector("input_layernorm");
    layer[Role::ffn_norm].values = vector("post_attention_layernorm");
    for (const std::string part : kParts) {
      const std::string block = part == "gate" || part == "up" || part == "down" ? "mlp." : "self_attn.";
      FloatMatrix& matrix = layer[role_of(part)];
      REQUIRE(matrix.rows == entry(part)["rows"].get<size_t>());
      REQUIRE(matrix.columns == entry(part)["columns"].get<size_t>());
      matrix.values = vector(block + part + "_proj");
      REQUIRE(matrix.values.size() == matrix.rows * matrix.columns);
    }
    ModelRotation(layer.sizes.hidden, layer.layers()).rotate_layer(products, layer.weights);
  }

  const nlohmann::json& entry(const std::string& part) const { return json["parts"][part]; }

  InputStatistics statistics(DenseProducts& products, const std::string& part) const {
    const size_t tokens = json["tokens"].get<size_t>();
    const size_t columns = entry(part)["columns"].get<size_t>();
    const FloatMatrix x = inputs(tokens, columns, entry(part)["stream"].get<uint64_t>());
    InputStatistics result(columns, tokens, json["sample"].get<size_t>(), true);
    const size_t half = tokens / 2;
    result.add(products, std::span(x.values).subspan(0, half * columns), half);
    result.add(products, std::span(x.values).subspan(half * columns), tokens - half);
    return result;
  }
};

float ratio(uint8_t index) { return static_cast<float>(1.0 - 0.8 * index / 80.0); }

// Bytes of one stored row: scale, then s1 and a of every group or the zero point, then codes.
std::vector<uint8_t> row_bytes(Scheme scheme, const FloatMatrix& matrix, const std::vector<std::byte>& stored,
                               size_t row) {
  const RowTail tail = row_tail(scheme, matrix.rows, matrix.columns);
  const size_t panel = row / tile::kPanelRows * panel_bytes(scheme, matrix.columns);
  const size_t r = row % tile::kPanelRows;
  const auto byte = [&](size_t at) { return std::to_integer<uint8_t>(stored[at]); };
  std::vector<uint8_t> bytes;
  for (size_t i = 0; i < 4; ++i) bytes.push_back(byte(tail.scales + 4 * row + i));
  if (scheme == Scheme::w4a8) bytes.push_back(byte(tail.zeros + row));
  if (scheme == Scheme::w4a8_g128) {
    const size_t groups = (matrix.columns + tile::kGroupColumns - 1) / tile::kGroupColumns;
    for (size_t g = 0; g < groups; ++g) bytes.push_back(byte(panel + tile::group_scale_byte(r, g)));
    for (size_t g = 0; g < groups; ++g) bytes.push_back(byte(panel + tile::group_offset_byte(r, g)));
  }
  for (size_t column = 0; column < matrix.columns; ++column) {
    if (scheme == Scheme::w8a8) {
      bytes.push_back(byte(panel + tile::byte_in_panel(r, column)));
      continue;
    }
    const tile::Nibble place =
        scheme == Scheme::w4a8 ? tile::nibble_in_panel(r, column) : tile::nibble_in_grouped_panel(r, column);
    const unsigned both = byte(panel + place.byte);
    bytes.push_back(static_cast<uint8_t>(place.high ? both >> 4 : both & 15u));
  }
  return bytes;
}

void check_stored(Scheme scheme, const FloatMatrix& matrix, const std::vector<std::byte>& stored,
                  const nlohmann::json& expected) {
  CHECK(row_bytes(scheme, matrix, stored, kShownRow) == decode_base64(expected["shown"].get<std::string>()));
  const std::vector<uint32_t> hashes = read<uint32_t>(expected["hashes"], matrix.rows);
  size_t wrong = 0;
  for (size_t row = 0; row < matrix.rows; ++row)
    wrong += hash(row_bytes(scheme, matrix, stored, row)) != hashes[row];
  CHECK(wrong == 0);
}

// sum over the sample of ((w - rounded) . x)^2 of one row.
double output_error(const FloatMatrix& weights, const FloatMatrix& other, size_t row,
                    const FloatMatrix& sample) {
  double error = 0;
  for (size_t t = 0; t < sample.rows; ++t) {
    double sum = 0;
    for (size_t c = 0; c < weights.columns; ++c)
      sum += (static_cast<double>(weights.row(row)[c]) - static_cast<double>(other.row(row)[c])) *
             static_cast<double>(sample.row(t)[c]);
    error += sum * sum;
  }
  return error;
}

}  // namespace

TEST_CASE("the rotated layer equals numpy bit for bit") {
  const auto products = make_cpu_dense_products(2);
  Golden golden(*products);
  for (const std::string part : kParts) {
    const FloatMatrix& matrix = golden.layer[role_of(part)];
    const std::vector<uint32_t> hashes = read<uint32_t>(golden.entry(part)["weights"], matrix.rows);
    size_t wrong = 0;
    for (size_t row = 0; row < matrix.rows; ++row) {
      std::vector<uint8_t> bytes(4 * matrix.columns);
      std::memcpy(bytes.data(), matrix.row(row).data(), bytes.size());
      wrong += hash(bytes) != hashes[row];
    }
    CAPTURE(part);
    CHECK(wrong == 0);
  }
}

TEST_CASE("clip ratios equal numpy's, or lose nothing against them") {
  const auto products = make_cpu_dense_products(2);
  Golden golden(*products);
  for (const std::string part : kParts) {
    const FloatMatrix& matrix = golden.layer[role_of(part)];
    const FloatMatrix sample = golden.statistics(*products, part).sample;
    for (const Scheme scheme : kSchemes) {
      const nlohmann::json& expected = golden.entry(part)["schemes"][std::string(scheme_name(scheme))];
      const std::vector<uint8_t> indices = decode_base64(expected["clips"].get<std::string>());
      REQUIRE(indices.size() == matrix.rows);
      const std::vector<float> clips = search_row_clips(*products, scheme, matrix, sample);
      std::vector<float> wanted(matrix.rows);
      std::transform(indices.begin(), indices.end(), wanted.begin(), ratio);
      CAPTURE(part);
      CAPTURE(scheme_name(scheme));
      if (clips == wanted) continue;
      // Sums in f32 there, in float64 here: only ratios with practically the same error may change places.
      const FloatMatrix ours = rounded_to_rows(*products, scheme, matrix, clips);
      const FloatMatrix theirs = rounded_to_rows(*products, scheme, matrix, wanted);
      size_t different = 0;
      for (size_t row = 0; row < matrix.rows; ++row) {
        if (clips[row] == wanted[row]) continue;
        ++different;
        CHECK(output_error(matrix, ours, row, sample) <=
              output_error(matrix, theirs, row, sample) * (1 + 1e-5));
      }
      CHECK(different <= matrix.rows / 50);
    }
  }
}

TEST_CASE("codes, scales and zero points of a whole layer equal numpy's, with error feedback and without") {
  const auto products = make_cpu_dense_products(2);
  Golden golden(*products);
  for (const std::string part : kParts) {
    const FloatMatrix& matrix = golden.layer[role_of(part)];
    const InputStatistics statistics = golden.statistics(*products, part);
    for (const Scheme scheme : kSchemes) {
      const nlohmann::json& expected = golden.entry(part)["schemes"][std::string(scheme_name(scheme))];
      const std::vector<uint8_t> indices = decode_base64(expected["clips"].get<std::string>());
      REQUIRE(indices.size() == matrix.rows);
      std::vector<float> clips(matrix.rows);
      std::transform(indices.begin(), indices.end(), clips.begin(), ratio);
      std::vector<std::byte> stored(
          stored_bytes(scheme, std::array<uint64_t, 2>{matrix.rows, matrix.columns}).value());
      CAPTURE(part);
      CAPTURE(scheme_name(scheme));
      encode_rows_of(*products, scheme, matrix, clips, nullptr, stored);
      check_stored(scheme, matrix, stored, expected["clipped"]);
      encode_rows_of(*products, scheme, matrix, clips, &statistics, stored);
      check_stored(scheme, matrix, stored, expected["feedback"]);
    }
  }
}
