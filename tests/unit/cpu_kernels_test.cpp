// Products of every kernel table this machine can run, against 64-bit statements of the job made here from
// the index maps alone: integer products and expansions to the last bit, float products within bounds.
#include <doctest/doctest.h>

#include <algorithm>

#include "gguf-like-format/float_types.h"
#include "gguf-like-format/scheme.h"
#include "tests/unit/kernel_cases.h"

using namespace tessera;
using namespace tessera::kernel_cases;

namespace {

constexpr size_t kRows = tile::kPanelRows;

enum class Weights { grouped_codes, codes, code_bytes, bytes };
enum class Content { random, largest, alternating, zero };

struct IntegerCase {
  Weights weights = Weights::bytes;
  Content content = Content::random;
  size_t rows = 0;
  size_t columns = 0;
  size_t tokens = 0;
  bool bias = false;
};

// u[n][k] of a panel matrix and where its bytes lie; rows beyond the last exist too and hold anything.
struct IntegerMatrix {
  std::vector<int64_t> u;  // [padded rows][columns]
  size_t panel_bytes = 0;
  size_t panel_stride = 0;
  std::vector<uint8_t> stored;
};

size_t panel_bytes_of(Weights weights, size_t columns) {
  switch (weights) {
    case Weights::grouped_codes:
      return columns / tile::kGroupColumns * tile::kGroupBytes;
    case Weights::codes:
      return columns / 8 * tile::kLineBytes;
    default:
      return columns * kRows;
  }
}

void put_code(std::vector<uint8_t>& bytes, size_t panel, tile::Nibble at, unsigned code) {
  uint8_t& byte = bytes[panel + at.byte];
  byte = static_cast<uint8_t>(at.high ? (byte & 0x0f) | (code << 4) : (byte & 0xf0) | code);
}

// Scale and offset of one group as the format allows them: s1 in 1..16, a = 128 - z s1 in 1..128.
void random_group(Random& random, Content content, unsigned& s1, unsigned& a) {
  s1 = content == Content::largest ? 16 : static_cast<unsigned>(pick(random, 1, 16));
  a = content == Content::largest
          ? 128
          : 128 - static_cast<unsigned>(pick(random, 0, std::min(15u, 127 / s1))) * s1;
}

IntegerMatrix make_matrix(Random& random, const IntegerCase& test) {
  const size_t padded = tile::round_up(test.rows, kRows);
  IntegerMatrix matrix;
  matrix.panel_bytes = panel_bytes_of(test.weights, test.columns);
  matrix.panel_stride = matrix.panel_bytes + (pick(random, 0, 1) == 0 ? 0 : pick(random, 1, 100));
  matrix.stored.assign((padded / kRows - 1) * matrix.panel_stride + matrix.panel_bytes, 0);
  matrix.u.resize(padded * test.columns);
  const unsigned most = test.weights == Weights::bytes ? 255 : 15;
  for (size_t n = 0; n < padded; ++n) {
    const size_t panel = n / kRows * matrix.panel_stride;
    const bool zero_row = test.content == Content::random && pick(random, 0, 9) == 0;
    unsigned s1 = 1;
    unsigned a = 0;
    for (size_t k = 0; k < test.columns; ++k) {
      unsigned code = static_cast<unsigned>(pick(random, 0, most));
      if (test.weights == Weights::bytes && pick(random, 0, 3) == 0) code = pick(random, 0, 1) == 0 ? 255 : 1;
      if (test.content == Content::largest) code = most;
      if (test.content == Content::alternating) code = (n + k) % 2 == 0 ? most : 0;
      if (test.content == Content::zero || zero_row) code = 0;
      if (test.weights == Weights::grouped_codes) {
        if (k % tile::kGroupColumns == 0) {
          random_group(random, test.content, s1, a);
          matrix.stored[panel + tile::group_scale_byte(n % kRows, k / tile::kGroupColumns)] =
              static_cast<uint8_t>(s1);
          matrix.stored[panel + tile::group_offset_byte(n % kRows, k / tile::kGroupColumns)] =
              static_cast<uint8_t>(a);
        }
        code = std::min(code, (255 - a) / s1);  // u = q s1 + a is a byte: quantization.md
        put_code(matrix.stored, panel, tile::nibble_in_grouped_panel(n % kRows, k), code);
      } else if (test.weights == Weights::codes) {
        put_code(matrix.stored, panel, tile::nibble_in_panel(n % kRows, k), code);
      } else {
        matrix.stored[panel + tile::byte_in_panel(n % kRows, k)] = static_cast<uint8_t>(code);
      }
      matrix.u[n * test.columns + k] = int64_t{code} * s1 + a;
    }
  }
  return matrix;
}

// Quantized rows as q8_row.h lays them out, made here and not by a kernel.
struct Activations {
  std::vector<int64_t> codes;  // [tokens][columns]
  std::vector<float> scales;
  size_t stride = 0;
  std::vector<uint8_t> stored;
};

Activations make_activations(Random& random, Content content, size_t tokens, size_t columns) {
  Activations x;
  x.stride = q8::row_stride(columns) + (pick(random, 0, 1) == 0 ? 0 : pick(random, 1, 70));
  x.stored.assign((tokens - 1) * x.stride + q8::sums_offset(columns) + 4 * q8::groups(columns), 0);
  for (size_t t = 0; t < tokens; ++t) {
    uint8_t* row = x.stored.data() + t * x.stride;
    std::vector<int32_t> sums(q8::groups(columns), 0);
    int32_t total = 0;
    for (size_t k = 0; k < columns; ++k) {
      auto code = static_cast<int32_t>(pick(random, 0, 254)) - 127;
      if (content == Content::largest) code = t % 2 == 0 ? 127 : -127;
      if (content == Content::alternating) code = (t + k) % 2 == 0 ? 127 : -127;
      row[k] = static_cast<uint8_t>(code);
      sums[k / q8::kGroup] += code;
      total += code;
      x.codes.push_back(code);
    }
    const float scale = content == Content::zero ? 0.0f : std::fabs(normal(random, 0.01f));
    std::memcpy(row + q8::scale_offset(columns), &scale, sizeof scale);
    std::memcpy(row + q8::total_offset(columns), &total, sizeof total);
    std::memcpy(row + q8::sums_offset(columns), sums.data(), sums.size() * sizeof(int32_t));
    x.scales.push_back(scale);
  }
  return x;
}

void copy_to(EdgeArray<uint8_t>& array, const std::vector<uint8_t>& bytes) {
  std::copy(bytes.begin(), bytes.end(), array.data());
}

void check_integer_product(Random& random, const IntegerCase& test) {
  const IntegerMatrix matrix = make_matrix(random, test);
  const Activations x = make_activations(random, test.content, test.tokens, test.columns);
  const size_t padded = tile::round_up(test.rows, kRows);
  const bool zeros =
      test.weights == Weights::code_bytes || (test.weights == Weights::codes && pick(random, 0, 3) != 0);

  EdgeArray<uint8_t> panels(matrix.stored.size(), any_skew(random));
  copy_to(panels, matrix.stored);
  EdgeArray<uint8_t> rows(x.stored.size(), any_skew(random));
  copy_to(rows, x.stored);
  EdgeArray<float> row_scale(padded, any_skew(random));
  for (float& scale : row_scale.values()) scale = std::fabs(normal(random));
  EdgeArray<uint8_t> row_zero(padded, any_skew(random));
  for (uint8_t& zero : row_zero.values()) zero = static_cast<uint8_t>(pick(random, 0, 15));
  EdgeArray<float> bias(test.rows, any_skew(random));
  for (float& value : bias.values()) value = normal(random);
  const size_t y_stride = test.rows + pick(random, 0, 20);

  // The job, stated with 64-bit sums and the float operations of the contract.
  std::vector<float> expected(test.tokens * test.rows);
  for (size_t t = 0; t < test.tokens; ++t) {
    int64_t total = 0;
    for (size_t k = 0; k < test.columns; ++k) total += x.codes[t * test.columns + k];
    for (size_t n = 0; n < test.rows; ++n) {
      int64_t sum = 0;
      for (size_t k = 0; k < test.columns; ++k) {
        sum += matrix.u[n * test.columns + k] * x.codes[t * test.columns + k];
      }
      sum -= (zeros ? row_zero[n] : 128) * total;
      REQUIRE(std::abs(sum) <= std::numeric_limits<int32_t>::max());
      const float scale = row_scale[n] * x.scales[t];
      float y = scale * static_cast<float>(sum);
      if (test.bias) y = y + bias[n];
      expected[t * test.rows + n] = y;
    }
  }

  for (const cpu::Kernels* kernels : runnable_kernels()) {
    EdgeArray<float> y((test.tokens - 1) * y_stride + test.rows, any_skew(random));
    const cpu::IntegerProduct job{.panels = panels.data(),
                                  .panel_stride = matrix.panel_stride,
                                  .rows = test.rows,
                                  .columns = test.columns,
                                  .x = rows.data(),
                                  .x_stride = x.stride,
                                  .x_scale_offset = q8::scale_offset(test.columns),
                                  .tokens = test.tokens,
                                  .row_scale = row_scale.data(),
                                  .row_zero = zeros ? row_zero.data() : nullptr,
                                  .bias = test.bias ? bias.data() : nullptr,
                                  .y = y.data(),
                                  .y_stride = y_stride};
    switch (test.weights) {
      case Weights::grouped_codes:
        kernels->integers.progressive.product(job);
        break;
      case Weights::codes:
        kernels->integers.row_nibbles.product(job);
        break;
      default:
        kernels->integers.product_bytes(job);
    }
    size_t wrong = 0;
    for (size_t i = 0; i < y.size(); ++i) {
      const size_t n = i % y_stride;
      if (n < test.rows) {
        wrong += same_bits(y[i], expected[i / y_stride * test.rows + n]) ? 0 : 1;
      } else {
        wrong += std::isnan(y[i]) ? 0 : 1;  // the gap between rows keeps its poison
      }
    }
    CAPTURE(kernels->name);
    CAPTURE(static_cast<int>(test.weights));
    CAPTURE(static_cast<int>(test.content));
    CAPTURE(test.rows);
    CAPTURE(test.columns);
    CAPTURE(test.tokens);
    CHECK(wrong == 0);
    CHECK(y.untouched());
  }
}

// More than two of the largest register tile, and no multiple of any.
constexpr size_t kMostTokens = 19;

constexpr Weights kAllWeights[] = {Weights::grouped_codes, Weights::codes, Weights::code_bytes,
                                   Weights::bytes};

}  // namespace

TEST_CASE("integer products equal exact sums to the last bit at odd sizes") {
  Random random = seeded("integer products, sizes");
  for (const Weights weights : kAllWeights) {
    for (const size_t rows : {1, 5, 16, 17, 48, 100}) {
      for (const size_t columns : {64, 128, 192, 256, 320, 384, 896}) {
        if (weights == Weights::grouped_codes && columns % tile::kGroupColumns != 0) continue;
        const size_t tokens = pick(random, 1, kMostTokens);
        check_integer_product(random,
                              {weights, Content::random, rows, columns, tokens, pick(random, 0, 1) == 0});
      }
    }
  }
}

TEST_CASE("integer products take every number of tokens") {
  Random random = seeded("integer products, tokens");
  for (const Weights weights : kAllWeights) {
    for (size_t tokens = 1; tokens <= kMostTokens; ++tokens) {
      check_integer_product(random, {weights, Content::random, 37, 256, tokens, tokens % 2 == 0});
    }
  }
}

TEST_CASE("integer products neither saturate nor overflow at the extremes") {
  Random random = seeded("integer products, extremes");
  for (const Weights weights : kAllWeights) {
    for (const Content content : {Content::largest, Content::alternating, Content::zero}) {
      check_integer_product(random, {weights, content, 21, 384, 5, true});
      check_integer_product(random, {weights, content, 16, 14336, 2, false});  // sums beyond 2^24
    }
    // As wide as a row may be in every scheme: sums of bytes wrap on the way to one that does not.
    const size_t widest = most_summed_columns(Scheme::w8a8) / tile::kGroupColumns * tile::kGroupColumns;
    check_integer_product(random, {weights, Content::largest, 16, widest, 2, false});
  }
}

TEST_CASE("expanded panels hold u = q s1 + a, or the codes") {
  Random random = seeded("expand");
  for (const Weights weights : {Weights::grouped_codes, Weights::codes}) {
    for (const size_t columns : {64, 128, 192, 256, 640, 896}) {
      if (weights == Weights::grouped_codes && columns % tile::kGroupColumns != 0) continue;
      IntegerMatrix matrix;
      matrix.stored.assign(panel_bytes_of(weights, columns), 0);
      std::vector<uint8_t> expected(columns * kRows);
      for (size_t r = 0; r < kRows; ++r) {
        unsigned s1 = 1;
        unsigned z = 0;
        for (size_t k = 0; k < columns; ++k) {
          if (weights == Weights::grouped_codes && k % tile::kGroupColumns == 0) {
            s1 = static_cast<unsigned>(pick(random, 1, 16));
            z = static_cast<unsigned>(pick(random, 0, std::min(15u, 127 / s1)));
            matrix.stored[tile::group_scale_byte(r, k / tile::kGroupColumns)] = static_cast<uint8_t>(s1);
            matrix.stored[tile::group_offset_byte(r, k / tile::kGroupColumns)] =
                static_cast<uint8_t>(128 - z * s1);
          }
          // As quantization.md proves, a group's codes keep (q - z) s1 within ±127.
          const unsigned most = weights == Weights::codes ? 15 : std::min(15u, z + 127 / s1);
          const auto code = static_cast<unsigned>(pick(random, 0, most));
          put_code(
              matrix.stored, 0,
              weights == Weights::codes ? tile::nibble_in_panel(r, k) : tile::nibble_in_grouped_panel(r, k),
              code);
          const unsigned u = weights == Weights::codes ? code : code * s1 + 128 - z * s1;
          expected[tile::byte_in_panel(r, k)] = static_cast<uint8_t>(u);
        }
      }
      EdgeArray<uint8_t> panel(matrix.stored.size(), any_skew(random));
      copy_to(panel, matrix.stored);
      for (const cpu::Kernels* kernels : runnable_kernels()) {
        EdgeArray<uint8_t> bytes(expected.size(), any_skew(random));
        (weights == Weights::codes
             ? kernels->integers.row_nibbles.expand
             : kernels->integers.progressive.expand)(panel.data(), columns, bytes.data());
        CAPTURE(kernels->name);
        CAPTURE(columns);
        CHECK(std::equal(expected.begin(), expected.end(), bytes.data()));
        CHECK(bytes.untouched());
      }
    }
  }
}

namespace {

enum class Storage { f32, f16, bf16 };
enum class Values { normal, huge, tiny, zero };

struct FloatCase {
  Storage storage = Storage::f32;
  Values values = Values::normal;
  size_t rows = 0;
  size_t columns = 0;
  size_t tokens = 0;
  bool bias = false;
  bool accumulate = false;
};

// Weights of a case, rounded to what the storage type can hold.
float make_weight(Random& random, const FloatCase& test) {
  float value = normal(random);
  if (test.values == Values::zero) value = 0;
  if (test.values == Values::huge) value *= test.storage == Storage::f16 ? 1e4f : 1e18f;
  if (test.values == Values::tiny) value *= test.storage == Storage::f16 ? 1e-6f : 1e-39f;
  if (test.storage == Storage::f16) return f16_to_f32(f32_to_f16(value));
  if (test.storage == Storage::bf16) return bf16_to_f32(f32_to_bf16(value));
  return value;
}

void check_float_product(Random& random, const FloatCase& test) {
  const size_t padded = tile::round_up(test.rows, kRows);
  const size_t stored_columns =
      test.storage == Storage::bf16 ? tile::round_up(test.columns, 2) : test.columns;
  const size_t element = test.storage == Storage::f32 ? 4 : 2;
  const size_t panel_bytes = stored_columns * kRows * element;
  const size_t panel_stride = panel_bytes + 4 * pick(random, 0, 20);
  const size_t x_stride = test.columns + pick(random, 0, 20);
  const size_t y_stride = test.rows + pick(random, 0, 20);

  // Panels are aligned to their elements here and no better.
  EdgeArray<uint32_t> panels(((padded / kRows - 1) * panel_stride + panel_bytes) / 4, any_skew(random));
  auto* bytes = reinterpret_cast<uint8_t*>(panels.data());
  std::vector<double> weights(padded * test.columns);
  for (size_t n = 0; n < padded; ++n) {
    for (size_t k = 0; k < stored_columns; ++k) {
      const float w = k < test.columns ? make_weight(random, test) : 0.0f;
      if (k < test.columns) weights[n * test.columns + k] = w;
      uint8_t* panel = bytes + n / kRows * panel_stride;
      const uint16_t half = test.storage == Storage::f16 ? f32_to_f16(w) : f32_to_bf16(w);
      if (test.storage == Storage::f32) {
        std::memcpy(panel + 4 * tile::element_in_panel(n % kRows, k), &w, sizeof w);
      } else if (test.storage == Storage::f16) {
        std::memcpy(panel + 2 * tile::element_in_panel(n % kRows, k), &half, sizeof half);
      } else {
        std::memcpy(panel + 2 * tile::bf16_in_panel(n % kRows, k), &half, sizeof half);
      }
    }
  }
  EdgeArray<float> x((test.tokens - 1) * x_stride + test.columns, any_skew(random));
  for (size_t i = 0; i < x.size(); ++i) {
    if (i % x_stride < test.columns) x[i] = normal(random, test.values == Values::huge ? 1e15f : 1.0f);
  }
  EdgeArray<float> bias(test.rows, any_skew(random));
  for (float& value : bias.values()) value = normal(random);
  std::vector<float> before(test.tokens * test.rows);
  for (float& value : before) value = normal(random);

  for (const cpu::Kernels* kernels : runnable_kernels()) {
    const bool dot = kernels->floats.bf16_pairs.product != nullptr && test.storage == Storage::bf16;
    EdgeArray<float> y((test.tokens - 1) * y_stride + test.rows, any_skew(random));
    if (test.accumulate) {
      for (size_t i = 0; i < before.size(); ++i) y[i / test.rows * y_stride + i % test.rows] = before[i];
    }
    const cpu::FloatProduct job{.panels = panels.data(),
                                .panel_stride = panel_stride,
                                .rows = test.rows,
                                .columns = test.columns,
                                .x = x.data(),
                                .x_stride = x_stride,
                                .tokens = test.tokens,
                                .bias = test.bias ? bias.data() : nullptr,
                                .y = y.data(),
                                .y_stride = y_stride,
                                .accumulate = test.accumulate};
    (test.storage == Storage::f32   ? kernels->floats.product_f32
     : test.storage == Storage::f16 ? kernels->floats.product_f16
                                    : kernels->floats.product_bf16)(job);

    // K products and K additions in any order, fused or not, plus bias and accumulation: each term passes
    // through at most K + 4 roundings. The bfloat16 dot product does each product twice (x = high + low),
    // flushes denormal operands and results, and cuts x to 16 bits: high has 8, low (below 2^-7 |x|) is
    // rounded to 8, so 2^-15 |x|.
    const double roundings = static_cast<double>((dot ? 2 * test.columns : test.columns) + 4) * kRoundoff;
    const double relative = roundings / (1 - roundings) + (dot ? 0x1p-15 : 0.0);
    double worst = 0;
    for (size_t i = 0; i < y.size(); ++i) {
      const size_t t = i / y_stride;
      const size_t n = i % y_stride;
      if (n >= test.rows) {
        REQUIRE(std::isnan(y[i]));
        continue;
      }
      double sum = 0;
      double magnitude = 0;
      double flushed = static_cast<double>(test.columns + 4) * kDenormalStep;
      for (size_t k = 0; k < test.columns; ++k) {
        const double w = weights[n * test.columns + k];
        const double value = x[t * x_stride + k];
        sum += w * value;
        magnitude += std::fabs(w * value);
        if (dot) flushed += 0x1p-126 * (std::fabs(w) + std::fabs(value) + 4);
      }
      if (test.bias) sum += bias[n];
      if (test.bias) magnitude += std::fabs(bias[n]);
      if (test.accumulate) sum += before[t * test.rows + n];
      if (test.accumulate) magnitude += std::fabs(before[t * test.rows + n]);
      const double error = std::fabs(y[i] - sum) / (relative * magnitude + flushed);
      worst = std::isnan(error) ? std::numeric_limits<double>::infinity() : std::max(worst, error);
    }
    CAPTURE(kernels->name);
    CAPTURE(static_cast<int>(test.storage));
    CAPTURE(static_cast<int>(test.values));
    CAPTURE(test.rows);
    CAPTURE(test.columns);
    CAPTURE(test.tokens);
    CHECK(worst <= 1.0);
    CHECK(y.untouched());
  }
}

}  // namespace

TEST_CASE("float products stay within rounding bounds at odd sizes") {
  Random random = seeded("float products, sizes");
  for (const Storage storage : {Storage::f32, Storage::f16, Storage::bf16}) {
    for (const size_t rows : {1, 5, 16, 17, 48}) {
      for (const size_t columns : {1, 2, 3, 5, 7, 64, 65, 172, 897}) {
        check_float_product(random, {storage, Values::normal, rows, columns, pick(random, 1, 13),
                                     pick(random, 0, 1) == 0, pick(random, 0, 1) == 0});
      }
    }
  }
}

TEST_CASE("float products take every number of tokens, long rows and extreme values") {
  Random random = seeded("float products, tokens");
  for (const Storage storage : {Storage::f32, Storage::f16, Storage::bf16}) {
    for (size_t tokens = 1; tokens <= 17; ++tokens) {
      check_float_product(random,
                          {storage, Values::normal, 19, 67, tokens, tokens % 2 == 0, tokens % 3 == 0});
    }
    for (const Values values : {Values::huge, Values::tiny, Values::zero}) {
      check_float_product(random, {storage, values, 18, 131, 9, false, false});
    }
    for (const bool accumulate : {false, true}) {  // several blocks of columns
      check_float_product(random, {storage, Values::normal, 5, 2051, 9, true, accumulate});
    }
  }
}
