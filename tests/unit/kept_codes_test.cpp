// Codes of packed matrices in the schemes that hold them: which scheme that is, and that what is stored there
// means, in f32, what the packed format's formula says.
#include "engine/quantize/keep/kept_codes.h"

#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <numeric>
#include <random>
#include <string>

#include "engine/codec/matrix_codec.h"
#include "gguf-like-format/float_types.h"
#include "gguf-like-format/stored_tensor.h"
#include "gguf-like-format/tess/tensor_scales.h"
#include "tests/unit/packed_formula.h"

using namespace tessera;

namespace {

struct Packed {
  PackedFormat format;
  size_t rows = 0;
  size_t columns = 0;
  PackedRows content;
};

using Random = std::mt19937_64;

size_t up(size_t n, size_t unit) { return (n + unit - 1) / unit; }

float half_number(Random& random) {  // of either sign, never 0
  const float value =
      std::ldexp(static_cast<float>(1024 + random() % 1024), -20 - static_cast<int>(random() % 5));
  return random() % 2 == 0 ? value : -value;
}

Packed random_matrix(Random& random, PackedMeaning meaning, unsigned bits, size_t group, size_t columns,
                     const std::function<float()>& scale, const std::function<float()>& offset) {
  Packed packed;
  packed.rows = 33 + random() % 20;  // more panels than a table has bytes of zero points
  packed.columns = columns;
  packed.format.meaning = meaning;
  packed.format.bits = bits;
  packed.format.group = group;
  for (size_t i = 0; i < packed.rows * columns; ++i)
    packed.content.codes.push_back(static_cast<uint8_t>(random() % (1u << bits)));
  const size_t groups = packed.rows * up(columns, group);
  if (meaning == PackedMeaning::nested) {
    packed.format.block = 8 * group;
    for (size_t i = 0; i < packed.rows * up(columns, packed.format.block); ++i) {
      packed.content.block_scales.push_back(scale());
      packed.content.block_minimums.push_back(offset());
    }
    for (size_t i = 0; i < groups; ++i) {
      packed.content.group_scales.push_back(static_cast<uint8_t>(random()));
      packed.content.group_minimums.push_back(static_cast<uint8_t>(random()));
    }
    return packed;
  }
  for (size_t i = 0; i < groups; ++i) {
    packed.content.scales.push_back(scale());
    if (meaning != PackedMeaning::table) packed.content.offsets.push_back(offset());
  }
  return packed;
}

std::optional<keep::KeptCodes> kept_codes_of(const Packed& packed, ActivationType activations) {
  return keep::kept_codes(packed.format, keep::level_facts(packed.content), packed.rows, packed.columns,
                          activations);
}

struct Stored {
  std::string scheme = "none";
  keep::Roundings rounds;
  std::vector<float> values;    // in f32, [rows, columns]
  std::vector<float> expected;  // by the formula of the packed format
};

// Stores the matrix with its rows in a random order, in blocks, and reads it back in the right one.
Stored stored(const Packed& packed, Random& random, ActivationType activations = ActivationType::bf16) {
  Stored result;
  const std::optional<keep::KeptCodes> kept = kept_codes_of(packed, activations);
  if (!kept) return result;
  result.scheme = scheme_name(kept->scheme);
  result.rounds = kept->rounds;
  result.expected = crafted::packed_values(packed.format, packed.content, packed.columns);
  const size_t rows = packed.rows, columns = packed.columns;
  StoredTensor tensor{"matrix", kept->scheme, {rows, columns}, {}};
  std::vector<std::byte> bytes(static_cast<size_t>(stored_bytes(kept->scheme, tensor.shape).value()),
                               std::byte{0x5a});
  if (scheme_facts(kept->scheme).table)
    write_table(kept->scheme, rows, columns,
                std::span(kept->table).first(size_t{1} << scheme_facts(kept->scheme).bits), bytes);
  std::vector<size_t> from(rows);
  std::iota(from.begin(), from.end(), 0);
  std::shuffle(from.begin(), from.end(), random);
  for (size_t first = 0; first < rows; first += 16)
    keep::store_kept_rows(*kept, rows, columns, packed.content,
                          std::span(from).subspan(first, std::min<size_t>(16, rows - first)), first, bytes);
  tensor.bytes = bytes;
  CHECK(find_scale_fault(tensor) == "");
  result.values.resize(rows * columns);
  std::vector<double> decoded(columns);
  for (size_t row = 0; row < rows; ++row) {
    decode_row(kept->scheme, rows, columns, bytes, row, decoded);
    for (size_t i = 0; i < columns; ++i)
      result.values[from[row] * columns + i] = static_cast<float>(decoded[i]);
  }
  return result;
}

void check_exact(const Packed& packed, Random& random, const std::string& scheme,
                 ActivationType activations = ActivationType::bf16) {
  const Stored found = stored(packed, random, activations);
  CAPTURE(packed.format.group);
  CAPTURE(packed.columns);
  CHECK(found.scheme == scheme);
  CHECK_FALSE(found.rounds.any());
  CHECK(found.values == found.expected);
}

constexpr PackedMeaning kZeroPoint = PackedMeaning::zero_point;
constexpr PackedMeaning kMinimum = PackedMeaning::minimum;
constexpr PackedMeaning kTable = PackedMeaning::table;
constexpr PackedMeaning kNested = PackedMeaning::nested;

}  // namespace

TEST_CASE("codes with zero points that differ go into int4, with one zero point into tables") {
  Random random(std::random_device{}());
  const auto scale = [&] { return half_number(random); };
  for (const size_t group : {32u, 64u, 128u, 256u}) {
    for (const size_t columns : {group, 3 * group, 5 * group}) {
      const std::string g = "-g" + std::to_string(group);
      const auto some_zero = [&, n = 0]() mutable { return static_cast<float>(n++ % 17); };
      check_exact(random_matrix(random, kZeroPoint, 4, group, columns + group, scale, some_zero), random,
                  "int4" + g);
      check_exact(random_matrix(random, kZeroPoint, 4, group, columns + group, scale, some_zero), random,
                  "int4" + g + "-a8", ActivationType::int8);
      check_exact(random_matrix(random, kZeroPoint, 3, group, columns + group, scale, some_zero), random,
                  "int4" + g);
      check_exact(random_matrix(random, kZeroPoint, 4, group, columns, scale, [] { return 8.0f; }), random,
                  "lut4" + g);
      check_exact(random_matrix(random, kZeroPoint, 3, group, columns, scale, [] { return 4.0f; }), random,
                  "lut3" + g);
      check_exact(random_matrix(random, kZeroPoint, 2, group, columns, scale, [] { return 2.0f; }), random,
                  "lut2" + g);
      check_exact(random_matrix(random, kZeroPoint, 8, group, 2 * columns, scale, [] { return 128.0f; }),
                  random, "int8" + g);
      check_exact(random_matrix(random, kZeroPoint, 5, group, 2 * columns, scale, [] { return 16.0f; }),
                  random, "int8" + g);
    }
  }
  // Zero points that are no whole numbers, as HQQ has them.
  const auto fraction = [&] { return static_cast<float>(random() % 2000) / 128; };
  check_exact(random_matrix(random, kZeroPoint, 4, 64, 192, scale, fraction), random, "int4-g64");
}

TEST_CASE("groups of more columns than a scheme has repeat their levels") {
  Random random(std::random_device{}());
  const auto scale = [&] { return half_number(random); };
  const auto zero = [&] { return static_cast<float>(random() % 16); };
  check_exact(random_matrix(random, kZeroPoint, 4, 512, 1024, scale, zero), random, "int4-g256");
  check_exact(random_matrix(random, kZeroPoint, 4, 1024, 1024, scale, zero), random, "int4-g256");
  check_exact(random_matrix(random, kZeroPoint, 4, 576, 576, scale, zero), random, "int4-g64");  // no padding
  check_exact(random_matrix(random, kZeroPoint, 4, 96, 288, scale, zero), random, "int4-g32");
  check_exact(random_matrix(random, kMinimum, 4, 128, 256, scale, scale), random, "int4m-g32");
  check_exact(random_matrix(random, kZeroPoint, 4, 40, 40, scale, zero), random, "int4-g64");
}

TEST_CASE("the last group of a row may be short, and is not padded more than needed") {
  Random random(std::random_device{}());
  const auto scale = [&] { return half_number(random); };
  const auto zero = [&] { return static_cast<float>(random() % 16); };
  check_exact(random_matrix(random, kZeroPoint, 4, 64, 200, scale, zero), random, "int4-g32");
  check_exact(random_matrix(random, kZeroPoint, 4, 256, 776, scale, zero), random, "int4-g64");
  check_exact(random_matrix(random, kZeroPoint, 8, 128, 136, scale, [] { return 128.0f; }), random,
              "int8-g32");
  check_exact(random_matrix(random, kZeroPoint, 3, 128, 1000, scale, [] { return 4.0f; }), random,
              "lut3-g128");
  check_exact(random_matrix(random, kNested, 4, 32, 280, scale, scale), random, "int4k-g32");
}

TEST_CASE("8 bits with a scale for every row go into w8a8 where scales are not negative") {
  Random random(std::random_device{}());
  for (const size_t columns : {64u, 200u}) {
    // f32 scales and every byte, also the lowest; a row of scale 0 is zero.
    Packed packed = random_matrix(
        random, kZeroPoint, 8, columns, columns,
        [&] { return 1e-4f * static_cast<float>(1 + random() % 999); }, [] { return 128.0f; });
    packed.content.scales[0] = 0;
    packed.content.codes[packed.content.codes.size() - 1] = 0;
    for (const ActivationType activations : {ActivationType::bf16, ActivationType::int8})
      check_exact(packed, random, "w8a8", activations);
    packed.content.scales[packed.content.scales.size() - 1] = -0.5f;
    CHECK(stored(packed, random).scheme.substr(0, 4) == "int8");
  }
}

TEST_CASE("minimums and nested levels") {
  Random random(std::random_device{}());
  const auto scale = [&] { return half_number(random); };
  for (const size_t columns : {32u, 96u, 100u}) {
    check_exact(random_matrix(random, kMinimum, 4, 32, columns, scale, scale), random, "int4m-g32");
    check_exact(random_matrix(random, kMinimum, 3, 32, columns, scale, scale), random, "int4m-g32-a8",
                ActivationType::int8);
  }
  for (const size_t columns : {256u, 768u}) {
    check_exact(random_matrix(random, kNested, 4, 32, columns, scale, scale), random, "int4k-g32");
    check_exact(random_matrix(random, kNested, 4, 32, columns, scale, scale), random, "int4k-g32-a8",
                ActivationType::int8);
  }
}

TEST_CASE("tables keep the order of their codes, and scales that f16 cannot hold are moved into its range") {
  Random random(std::random_device{}());
  const auto with_table = [&](unsigned bits, size_t group, const std::function<float()>& scale) {
    Packed packed = random_matrix(random, kTable, bits, group, 4 * group, scale, {});
    for (size_t code = 0; code < size_t{1} << bits; ++code)
      packed.format.table[code] = static_cast<float>(random() % 255) - 127.0f;
    return packed;
  };
  check_exact(with_table(4, 32, [&] { return half_number(random); }), random, "lut4-g32");
  check_exact(with_table(3, 64, [&] { return half_number(random); }), random, "lut3-g64");
  for (const int base : {-60, -30, 30}) {
    const auto power = [&] { return std::ldexp(1.0f, base + static_cast<int>(random() % 38)); };
    check_exact(with_table(4, 32, power), random, "lut4-g32");
    check_exact(random_matrix(random, kZeroPoint, 4, 64, 128, power, [] { return 8.0f; }), random,
                "lut4-g64");
  }
  // bfloat16 scales below the normal numbers of f16.
  const auto small = [&] { return std::ldexp(static_cast<float>(128 + random() % 128), -30); };
  check_exact(random_matrix(random, kZeroPoint, 4, 64, 128, small, [] { return 8.0f; }), random, "lut4-g64");
}

TEST_CASE("what rounds is said, and is no more than half a step of f16 or of the table") {
  Random random(std::random_device{}());
  const auto fine = [&] { return std::uniform_real_distribution<float>(0.001f, 0.1f)(random); };
  const auto check = [&](const Packed& packed, const std::string& scheme, const char* what, double bound,
                         ActivationType activations = ActivationType::bf16) {
    const Stored found = stored(packed, random, activations);
    CHECK(found.scheme == scheme);
    std::string rounds;
    if (found.rounds.scales) rounds += "s";
    if (found.rounds.offsets) rounds += "o";
    if (found.rounds.table) rounds += "t";
    CHECK(rounds == what);
    bool any = false;
    for (size_t i = 0; i < found.values.size(); ++i) {
      const double exact = static_cast<double>(found.expected[i]);
      const double difference = std::abs(static_cast<double>(found.values[i]) - exact);
      any = any || difference > 0;
      REQUIRE(difference <= bound * std::abs(exact));
    }
    CHECK(any);
  };
  constexpr double kHalf = 1.0 / 2048;   // of f16: 11 digits
  constexpr double kBfloat = 1.0 / 256;  // 8 digits
  check(random_matrix(random, kZeroPoint, 8, 128, 256, fine, [] { return 128.0f; }), "int8-g128", "s", kHalf);
  check(random_matrix(random, kZeroPoint, 4, 64, 256, fine, [] { return 8.0f; }), "lut4-g64", "s", kHalf);
  Packed normal = random_matrix(random, kTable, 4, 64, 256, fine, {});
  for (size_t code = 0; code < 16; ++code)
    normal.format.table[code] = std::tanh(0.3f * static_cast<float>(code) - 2.0f);
  check(normal, "lut4-g64", "st", kHalf + kBfloat + kHalf * kBfloat);
  // Whole numbers are multiples of 1/127 with scales 127 times as large.
  Packed whole = random_matrix(random, kTable, 4, 32, 256, [&] { return half_number(random); }, {});
  for (size_t code = 0; code < 16; ++code) whole.format.table[code] = static_cast<float>(code) - 3.0f;
  check(whole, "lut4-g32-a8", "s", kHalf + 1e-6, ActivationType::int8);
}

TEST_CASE("what no scheme holds") {
  Random random(std::random_device{}());
  const auto scale = [&] { return half_number(random); };
  const auto eight = [] { return 8.0f; };
  const auto scheme = [&](const Packed& packed) { return stored(packed, random).scheme; };
  CHECK(scheme(random_matrix(random, kZeroPoint, 8, 64, 128, scale, [&, n = 120]() mutable {
          return static_cast<float>(n++);
        })) == "none");  // zero points of 8 bits
  CHECK(scheme(random_matrix(random, kZeroPoint, 8, 64, 128, scale, [] { return 100.0f; })) == "none");
  CHECK(scheme(random_matrix(random, kZeroPoint, 4, 48, 96, scale, eight)) == "none");  // group
  CHECK(scheme(random_matrix(random, kZeroPoint, 4, 16, 64, scale, eight)) == "none");
  CHECK(scheme(random_matrix(random, kMinimum, 5, 32, 64, scale, scale)) == "none");
  CHECK(scheme(random_matrix(random, kNested, 5, 32, 256, scale, scale)) == "none");
  CHECK(scheme(random_matrix(random, kNested, 4, 16, 256, scale, scale)) == "none");
  for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    const auto some = [&] { return bad; };
    CHECK(scheme(random_matrix(random, kZeroPoint, 4, 32, 64, some, eight)) == "none");
    CHECK(scheme(random_matrix(random, kMinimum, 4, 32, 64, scale, some)) == "none");
    CHECK(scheme(random_matrix(random, kNested, 4, 32, 256, some, scale)) == "none");
    CHECK(scheme(random_matrix(random, kNested, 4, 32, 256, scale, some)) == "none");
  }
  for (const float large : {65520.0f, 70000.0f, 1e30f}) {  // beyond f16
    const auto some = [&] { return random() % 2 == 0 ? large : 1.0f; };
    CHECK(scheme(random_matrix(random, kZeroPoint, 8, 32, 640, some, [] { return 128.0f; })) == "none");
    CHECK(scheme(random_matrix(random, kMinimum, 4, 32, 640, scale, some)) == "none");
  }
  Packed ordered = random_matrix(random, kZeroPoint, 4, 32, 64, scale, eight);
  ordered.format.order.resize(64);
  std::iota(ordered.format.order.begin(), ordered.format.order.end(), 0);
  CHECK(scheme(ordered) == "none");
}
