// Integer products by every kernel, which must equal plain integer sums: every format, all ranges of tokens,
// odd sizes, one to three matrices in a launch, tiles split in any way. Run on the emulator as devices of
// every kind, and on a device where the build has one.
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "backends/cuda/gemm/integer_linear.h"
#include "backends/cuda/uploaded_weight.h"
#include "backends/reference/quantized_row.h"
#include "graph/q8_row.h"
#include "tests/cuda/test_queue.h"
#include "tests/unit/packed_tensors.h"

using namespace tessera;
using namespace tessera::cuda;

namespace {

struct Case {
  Scheme scheme;
  std::vector<size_t> rows;  // of each matrix
  size_t columns;
  size_t tokens;
  bool bias;
};

constexpr Scheme kSchemes[] = {Scheme::w8a8, Scheme::w4a8, Scheme::w4a8_g128};

struct Matrix {
  rig::PackedTensor packed;
  std::unique_ptr<UploadedWeight> weight;
  std::vector<float> bias;
  DeviceMemory bias_memory;
};

// The correct row of y; NaN where nothing is written.
std::vector<float> correct_row(const std::vector<Matrix>& matrices, const std::byte* x, const Case& test,
                               size_t y_floats, size_t before) {
  std::vector<float> y(y_floats, std::numeric_limits<float>::quiet_NaN());
  const auto codes = reference::codes_of(x, test.columns);
  size_t column = before;
  for (const Matrix& matrix : matrices) {
    for (size_t r = 0; r < matrix.bias.size(); ++r, ++column) {
      int32_t sum = 0;
      for (size_t k = 0; k < test.columns; ++k)
        sum += matrix.packed.integers[r * test.columns + k] * codes[k];
      y[column] = matrix.packed.scales[r] * reference::scale_of(x, test.columns);
      y[column] = y[column] * static_cast<float>(sum);
      if (test.bias) y[column] = y[column] + matrix.bias[r];
    }
    ++column;  // one unused column between matrices
  }
  return y;
}

// Empty if every result is exactly right and nothing else was written, otherwise the first error.
std::string difference(Queue& queue, rig::Random& random, const Case& test) {
  constexpr size_t kBefore = 3;  // columns of y that must not be written
  IntegerJob job;
  std::vector<Matrix> matrices(test.rows.size());
  DeviceMemory staging;
  size_t y_columns = kBefore;
  for (size_t m = 0; m < matrices.size(); ++m) {
    Matrix& matrix = matrices[m];
    matrix.packed = rig::random_matrix(random, "w", test.scheme, test.rows[m], test.columns);
    auto weight = UploadedWeight::upload(queue, staging, matrix.packed.view());
    if (!weight.ok()) return weight.error();
    matrix.weight = std::move(weight.value());
    matrix.bias.resize(test.rows[m]);
    for (float& value : matrix.bias) value = rig::normal(random);
    auto bias_memory = DeviceMemory::allocate(4 * test.rows[m]);
    if (!bias_memory.ok()) return "no memory";
    matrix.bias_memory = std::move(bias_memory.value());
    queue.upload(matrix.bias_memory.address(), std::as_bytes(std::span(matrix.bias)));
    if (!job.add(matrix.weight->matrix(),
                 test.bias ? matrix.bias_memory.view<const float>() : Global<const float>(),
                 static_cast<uint32_t>(y_columns)))
      return "the job takes no more matrices";
    y_columns += test.rows[m] + 1;
  }
  const size_t x_stride = q8::row_stride(test.columns);
  std::vector<std::byte> x(test.tokens * x_stride, std::byte{0xa5});
  std::vector<float> row(test.columns);
  for (size_t t = 0; t < test.tokens; ++t) {
    for (float& value : row) value = rig::normal(random);
    if (t % 5 == 3) std::fill(row.begin(), row.end(), t % 10 == 3 ? 0.0f : -1.0f);
    reference::quantize_row(row, x.data() + t * x_stride);
  }
  const size_t y_stride = tile::round_up(4 * (y_columns + 5), 64);
  auto x_memory = DeviceMemory::allocate(x.size());
  auto y_memory = DeviceMemory::allocate(test.tokens * y_stride);
  if (!x_memory.ok() || !y_memory.ok()) return "no memory";
  queue.upload(x_memory.value().address(), x);
  queue.fill(y_memory.value().address(), 0xff, test.tokens * y_stride);
  job.x = {x_memory.value().view<std::byte>(), x_stride};
  job.x_columns = static_cast<uint32_t>(test.columns);
  job.y = {y_memory.value().view<std::byte>(), y_stride};
  job.tokens = static_cast<uint32_t>(test.tokens);
  std::vector<std::byte> y(test.tokens * y_stride);
  std::vector<std::byte> again(y.size());
  linear_integer(queue, job);
  queue.download(y, y_memory.value().address());
  linear_integer(queue, job);  // again: the first launch must leave scratch memory as it found it
  queue.download(again, y_memory.value().address());
  const Status status = queue.finish();
  if (!status.ok()) return status.error();
  if (y != again) return "another result the second time";
  std::vector<float> got(y_stride / 4);
  for (size_t t = 0; t < test.tokens; ++t) {
    std::memcpy(got.data(), y.data() + t * y_stride, y_stride);
    const std::vector<float> correct =
        correct_row(matrices, x.data() + t * x_stride, test, got.size(), kBefore);
    for (size_t c = 0; c < got.size(); ++c) {
      if (got[c] != correct[c] && !(std::isnan(got[c]) && std::isnan(correct[c])))
        return "token " + std::to_string(t) + " column " + std::to_string(c) + ": " + std::to_string(got[c]) +
               ", not " + std::to_string(correct[c]);
    }
  }
  return {};
}

void check_cases(rig::Random& random, const std::vector<Case>& cases) {
  const std::unique_ptr<Queue> queue = any_queue("integer products");
  REQUIRE(queue);
  for (const Case& test : cases) {
    CAPTURE(scheme_name(test.scheme));
    CAPTURE(test.rows.size());
    CAPTURE(test.rows.front());
    CAPTURE(test.columns);
    CAPTURE(test.tokens);
    CAPTURE(test.bias);
    CAPTURE(queue->facts().major);
    CAPTURE(queue->facts().processors);
    CHECK(difference(*queue, random, test) == "");
  }
}

}  // namespace

TEST_CASE("integer products of every kernel are exact") {
  if (!any_queue("integer products")) return;
  rig::Random random = seeded("integer products");
  const size_t token_ranges[][2] = {{1, 1}, {2, 8}, {9, 16}, {17, 64}, {65, 150}};
#if defined(TESSERA_CUDA_EMULATED)
  const emulator::DeviceKind before = emulator::device_kind();
  for (const unsigned major : {8u, 9u, 10u, 12u}) {
    emulator::device_kind() = {major, 0, static_cast<uint32_t>(rig::pick(random, 1, 9)),
                               size_t{major == 8 || major == 12 ? 99u : 227u} << 10};
#else
  {
#endif
    std::vector<Case> cases;
    for (const Scheme scheme : kSchemes) {
      for (const auto& range : token_ranges) {
        std::vector<size_t> rows(rig::pick(random, 1, kMostMatrices));
        for (size_t& count : rows) count = rig::pick(random, 1, 200 / rows.size());
        cases.push_back({scheme, rows, rig::pick(random, 1, 900), rig::pick(random, range[0], range[1]),
                         rig::pick(random, 0, 1) == 1});
      }
    }
    check_cases(random, cases);
    // Tiles split between three or more blocks.
#if defined(TESSERA_CUDA_EMULATED)
    emulator::device_kind().processors = static_cast<uint32_t>(rig::pick(random, 5, 9));
#endif
    check_cases(random, {{kSchemes[rig::pick(random, 0, 2)],
                          {rig::pick(random, 1, 130)},
                          rig::pick(random, 1600, 2300),
                          rig::pick(random, 17, 70),
                          false}});
    // Enough tiles for those of 256 tokens to be chosen.
    const Scheme scheme = kSchemes[rig::pick(random, 0, 2)];
#if defined(TESSERA_CUDA_EMULATED)
    emulator::device_kind().processors = 1;
    check_cases(random, {{scheme, {90, 40}, 200, rig::pick(random, 129, 256), true}});
#else
    check_cases(random, {{scheme, {8000, 100}, 200, 1270, true}});
    // Every multiprocessor has a run that splits tiles.
    for (int round = 0; round < 5; ++round) check_cases(random, {{scheme, {2100}, 4000, 100, false}});
#endif
  }
#if defined(TESSERA_CUDA_EMULATED)
  emulator::device_kind() = before;
#endif
}
