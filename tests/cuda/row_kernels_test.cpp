// Norm, gate and rounding of rows of any width, also wider than a block's registers, compared with the
// reference backend's rounding and plain float64.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "backends/cuda/elementwise/row_kernels.h"
#include "backends/reference/bf16_row.h"
#include "backends/reference/quantized_row.h"
#include "graph/bf16_row.h"
#include "graph/q8_row.h"
#include "tests/cuda/test_queue.h"

using namespace tessera;
using namespace tessera::cuda;

namespace {

constexpr size_t kRows = 2;

size_t float_stride(size_t columns) { return (4 * columns + 63) / 64 * 64; }

size_t stride_of(ElementType type, size_t columns) {
  if (type == ElementType::q8) return q8::row_stride(columns);
  return type == ElementType::bf16 ? bf16_row::row_stride(columns) : float_stride(columns);
}

// Rows of random values, on the host and on the device.
struct Floats {
  std::vector<float> values;
  DeviceMemory memory;
  Rows rows;

  Floats(Queue& queue, rig::Random& random, size_t columns) : values(kRows * float_stride(columns) / 4) {
    for (float& value : values) value = 3 * rig::normal(random);
    auto made = DeviceMemory::allocate(4 * values.size());
    REQUIRE(made.ok());
    memory = std::move(made.value());
    queue.upload(memory.address(), std::as_bytes(std::span(values)));
    rows = {memory.view<std::byte>(), float_stride(columns)};
  }
  std::span<const float> row(size_t r, size_t columns) const {
    return std::span(values).subspan(r * float_stride(columns) / 4, columns);
  }
};

// Output rows of a kernel, filled with NaN before.
struct Results {
  DeviceMemory memory;
  Rows rows;

  Results(Queue& queue, ElementType type, size_t columns) {
    auto made = DeviceMemory::allocate(kRows * stride_of(type, columns));
    REQUIRE(made.ok());
    memory = std::move(made.value());
    queue.fill(memory.address(), 0xff, memory.size());
    rows = {memory.view<std::byte>(), stride_of(type, columns)};
  }
  std::vector<std::byte> row(Queue& queue, size_t r) const {
    return downloaded(queue, memory.address() + r * rows.stride, rows.stride);
  }
};

// The bytes of a row that are defined.
size_t used_bytes(ElementType type, size_t columns) {
  if (type == ElementType::q8) return q8::fine_sums_offset(columns) + 4 * q8::fine_groups(columns);
  if (type == ElementType::bf16) return bf16_row::sums_offset(columns) + 4 * bf16_row::groups(columns);
  return 4 * columns;
}

std::vector<float> floats_of(const std::vector<std::byte>& bytes, size_t columns) {
  std::vector<float> values(columns);
  std::memcpy(values.data(), bytes.data(), 4 * columns);
  return values;
}

// A row of values as the reference backend stores it.
std::vector<std::byte> rounded(ElementType type, const std::vector<float>& values) {
  std::vector<std::byte> row(stride_of(type, values.size()), std::byte{0xff});
  if (type == ElementType::q8) reference::quantize_row(values, row.data());
  if (type == ElementType::bf16) reference::round_row(values, row.data());
  if (type == ElementType::f32) std::memcpy(row.data(), values.data(), 4 * values.size());
  return row;
}

bool same(ElementType type, size_t columns, const std::vector<std::byte>& a,
          const std::vector<std::byte>& b) {
  if (type == ElementType::q8 || type == ElementType::f32)
    return std::memcmp(a.data(), b.data(), used_bytes(type, columns)) == 0;
  // The order of the float32 sums of a bf16 row is not specified.
  if (std::memcmp(a.data(), b.data(), bf16_row::sums_offset(columns)) != 0) return false;
  for (size_t g = 0; g < bf16_row::groups(columns); ++g) {
    float x = 0;
    float y = 0;
    std::memcpy(&x, a.data() + bf16_row::sums_offset(columns) + 4 * g, 4);
    std::memcpy(&y, b.data() + bf16_row::sums_offset(columns) + 4 * g, 4);
    if (!(std::abs(x - y) <= 1e-3)) return false;  // 32 values of about 3, 23 bits
  }
  return true;
}

double largest(const std::vector<float>& values) {
  double most = 0;
  for (const float value : values) most = std::max(most, std::abs(static_cast<double>(value)));
  return most;
}

constexpr ElementType kTypes[] = {ElementType::f32, ElementType::q8, ElementType::bf16};

}  // namespace

TEST_CASE("rows of any width are normed, gated and rounded") {
  const auto queue = any_queue("rows of any width");
  if (!queue) return;
  rig::Random random = seeded("rows of any width");
  for (const size_t about : {1u, 300u, 4096u, 9001u, 16384u, 20000u}) {
    const size_t columns = about > 4 ? about - rig::pick(random, 0, 4) : rig::pick(random, 1, 4);
    CAPTURE(columns);
    const auto width = static_cast<uint32_t>(columns);
    const Floats x(*queue, random, columns);
    const Floats added(*queue, random, columns);
    const Floats pairs(*queue, random, 2 * columns);
    Floats gain(*queue, random, columns);
    REQUIRE(queue->finish().ok());
    gain.memory.seal();  // like weights
    const bool adds = rig::pick(random, 0, 1) == 1;
    std::vector<std::vector<float>> gated;
    std::vector<std::vector<float>> normed;
    for (const ElementType type : kTypes) {
      CAPTURE(element_name(type));
      const Results plain(*queue, type, columns);
      const Results of_gate(*queue, type, columns);
      const Results of_norm(*queue, type, columns);
      const Results sum(*queue, ElementType::f32, columns);
      if (type != ElementType::f32) quantize(*queue, {x.rows, plain.rows, width, type}, kRows);
      gate(*queue, {pairs.rows, of_gate.rows, width, type}, kRows);
      NormJob job;
      job.x = x.rows;
      if (adds) job.added = added.rows;
      job.sum = sum.rows;
      job.y = of_norm.rows;
      job.gain = gain.memory.view<const float>();
      job.columns = width;
      job.epsilon = 1e-5f;
      job.type = type;
      norm(*queue, job, kRows);
      for (size_t r = 0; r < kRows; ++r) {
        CAPTURE(r);
        const auto own = x.row(r, columns);
        if (type != ElementType::f32)
          CHECK(same(type, columns, plain.row(*queue, r),
                     rounded(type, std::vector<float>(own.begin(), own.end()))));
        if (type != ElementType::f32) {
          // The float results that are rounded are checked below.
          CHECK(same(type, columns, of_gate.row(*queue, r), rounded(type, gated[r])));
          CHECK(same(type, columns, of_norm.row(*queue, r), rounded(type, normed[r])));
          continue;
        }
        gated.push_back(floats_of(of_gate.row(*queue, r), columns));
        normed.push_back(floats_of(of_norm.row(*queue, r), columns));
        const auto both = pairs.row(r, 2 * columns);
        double gate_error = 0;
        double squares = 0;
        std::vector<float> sums(own.begin(), own.end());
        for (size_t i = 0; i < columns; ++i) {
          const double silu = both[i] / (1 + std::exp(-static_cast<double>(both[i])));
          gate_error = std::max(gate_error, std::abs(gated[r][i] - silu * both[columns + i]));
          if (adds) sums[i] = sums[i] + added.row(r, columns)[i];
          squares += static_cast<double>(sums[i]) * sums[i];
        }
        CHECK(gate_error <= 1e-5 * (1 + largest(gated[r])));
        CHECK(floats_of(sum.row(*queue, r), columns) == sums);
        const double factor = 1 / std::sqrt(squares / static_cast<double>(columns) + 1e-5);
        double norm_error = 0;
        for (size_t i = 0; i < columns; ++i)
          norm_error = std::max(norm_error, std::abs(normed[r][i] - sums[i] * factor * gain.values[i]));
        CHECK(norm_error <= 1e-5 * (1 + largest(normed[r])));
      }
    }
  }
}
