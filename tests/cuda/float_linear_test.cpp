// Products with f32, f16 and bf16 weights by every kernel, compared with sums in float64: every range of
// tokens, odd sizes, activations of any magnitude. All kernels must give a token the same bits. Run on the
// emulator as devices of several kinds, and on a device where the build has one.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "backends/cuda/gemm/float_linear.h"
#include "backends/cuda/uploaded_weight.h"
#include "tests/cuda/test_queue.h"

using namespace tessera;
using namespace tessera::cuda;

namespace {

constexpr Scheme kSchemes[] = {Scheme::f32, Scheme::f16, Scheme::bf16};

// Bound of a result's error relative to the sum of its terms' magnitudes: the loss of activations as
// operands, plus that of float32 sums, which tensor cores may truncate instead of rounding.
double allowed_error(Scheme scheme) { return scheme == Scheme::bf16 ? 4e-5 : 8e-6; }

struct Case {
  rig::PackedTensor weights;
  std::vector<float> bias;  // empty: none
  size_t columns = 0;
  std::vector<float> x;  // [tokens][columns]

  size_t tokens() const { return x.size() / columns; }
};

Case random_case(rig::Random& random, Scheme scheme, size_t rows, size_t columns, size_t tokens, bool bias) {
  Case made{rig::random_matrix(random, "w", scheme, rows, columns), {}, columns, {}};
  for (size_t i = 0; bias && i < rows; ++i) made.bias.push_back(rig::normal(random));
  for (size_t token = 0; token < tokens; ++token) {
    // Rows of every magnitude: as f16 the largest would overflow and the smallest become zero.
    static constexpr float kSizes[] = {1.0f, 1e5f, 1e30f, 1e-12f, 0.0f, 1.0f};
    const float size = kSizes[rig::pick(random, 0, std::size(kSizes) - 1)];
    for (size_t k = 0; k < columns; ++k) made.x.push_back(size * rig::normal(random));
  }
  return made;
}

DeviceMemory on_device(Queue& queue, std::span<const std::byte> bytes) {
  auto made = DeviceMemory::allocate(bytes.size());
  REQUIRE(made.ok());
  queue.upload(made.value().address(), bytes);
  return std::move(made.value());
}

// y [tokens][rows], computed for `together` tokens at a time and stored in the middle of rows full of NaN.
// Rows of x are followed by NaN too.
std::vector<float> product(Queue& queue, const Case& test, size_t together) {
  constexpr size_t kBefore = 3;
  DeviceMemory staging;
  auto weight = UploadedWeight::upload(queue, staging, test.weights.view());
  REQUIRE(weight.ok());
  const size_t rows = test.weights.rows();
  const size_t x_stride = tile::round_up(4 * test.columns, 64);
  const size_t y_stride = tile::round_up(4 * (kBefore + rows + 2), 64);
  std::vector<std::byte> rows_of_x(test.tokens() * x_stride, std::byte{0xff});
  for (size_t token = 0; token < test.tokens(); ++token)
    std::memcpy(rows_of_x.data() + token * x_stride, test.x.data() + token * test.columns, 4 * test.columns);
  const DeviceMemory x = on_device(queue, rows_of_x);
  std::vector<std::byte> y(test.tokens() * y_stride, std::byte{0xff});
  const DeviceMemory output = on_device(queue, y);
  DeviceMemory bias;
  if (!test.bias.empty()) bias = on_device(queue, std::as_bytes(std::span(test.bias)));
  for (size_t first = 0; first < test.tokens(); first += together) {
    LinearJob job;
    job.weights = weight.value()->matrix();
    if (!test.bias.empty()) job.bias = bias.view<const float>();
    job.x = {x.view<std::byte>(first * x_stride), x_stride};
    job.y = {output.view<std::byte>(first * y_stride), y_stride};
    job.first_column = kBefore;
    job.tokens = static_cast<uint32_t>(std::min(together, test.tokens() - first));
    linear_float(queue, job);
  }
  queue.download(y, output.address());
  const Status status = queue.finish();
  CHECK((status.ok() ? std::string() : status.error()) == "");
  std::vector<float> result;
  size_t stray = 0;
  for (size_t token = 0; token < test.tokens(); ++token) {
    for (size_t i = 0; i < y_stride / 4; ++i) {
      float value = 0;
      std::memcpy(&value, y.data() + token * y_stride + 4 * i, sizeof value);
      if (i >= kBefore && i < kBefore + rows) {
        result.push_back(value);
      } else {
        stray += std::isnan(value) ? 0 : 1;
      }
    }
  }
  CHECK(stray == 0);
  return result;
}

// The largest error of all results, relative as in allowed_error.
double worst_error(const Case& test, const std::vector<float>& got) {
  const size_t rows = test.weights.rows();
  double worst = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const size_t row = i % rows;
    const float* x = test.x.data() + i / rows * test.columns;
    double sum = test.bias.empty() ? 0.0 : double{test.bias[row]};
    double size = std::abs(sum);
    for (size_t k = 0; k < test.columns; ++k) {
      const double term = double{test.weights.values[row * test.columns + k]} * double{x[k]};
      sum += term;
      size += std::abs(term);
    }
    const double error = std::abs(sum - double{got[i]});
    if (std::isnan(error)) return error;
    // The limit of float32 itself: terms of tiny activations may be subnormal.
    worst = std::max(worst, error <= 1e-43 * static_cast<double>(test.columns) ? 0.0 : error / size);
  }
  return worst;
}

void check_case(Queue& queue, rig::Random& random, Scheme scheme, size_t rows, size_t columns,
                size_t tokens) {
  const Case test = random_case(random, scheme, rows, columns, tokens, rig::pick(random, 0, 1) == 1);
  CAPTURE(scheme_name(scheme));
  CAPTURE(rows);
  CAPTURE(columns);
  CAPTURE(tokens);
  CAPTURE(queue.facts().major);
  CAPTURE(queue.facts().processors);
  CHECK(worst_error(test, product(queue, test, tokens)) <= allowed_error(scheme));
}

// Calls check with a queue for every emulated kind of device, or for the real device.
template <class Check>
void on_all_devices(const char* what, rig::Random& random, const Check& check) {
#if defined(TESSERA_CUDA_EMULATED)
  const emulator::DeviceKind before = emulator::device_kind();
  for (const bool new_one : {false, true}) {
    // With few multiprocessors large tiles are chosen, with many small ones.
    for (const uint32_t processors : {static_cast<uint32_t>(rig::pick(random, 1, 2)), 3u, 20u}) {
      emulator::device_kind() = {new_one ? 9u : 8u, 0, processors, size_t{new_one ? 227u : 99u} << 10};
      if (const std::unique_ptr<Queue> queue = any_queue(what)) check(*queue);
    }
  }
  emulator::device_kind() = before;
#else
  (void)random;
  if (const std::unique_ptr<Queue> queue = any_queue(what)) check(*queue);
#endif
}

}  // namespace

TEST_CASE("float products of every kernel are the exact sums within their rounding") {
  rig::Random random = seeded("float products");
  static constexpr size_t kTokens[][2] = {{1, 1}, {2, 8}, {9, 16}, {17, 64}, {65, 140}};
  on_all_devices("float products", random, [&](Queue& queue) {
    for (const Scheme scheme : kSchemes) {
      for (const auto& range : kTokens) {
        check_case(queue, random, scheme, rig::pick(random, 1, 90), rig::pick(random, 1, 300),
                   rig::pick(random, range[0], range[1]));
      }
    }
  });
}

TEST_CASE("float products of the sizes where something begins or ends") {
  rig::Random random = seeded("edges of float products");
  const std::unique_ptr<Queue> queue = any_queue("edges of float products");
  if (!queue) return;
  static constexpr size_t kRows[] = {1, 15, 16, 17, 32, 33, 64, 129};
  static constexpr size_t kColumns[] = {1, 2, 31, 32, 33, 63, 64, 65, 255, 256, 257};
  static constexpr size_t kTokens[] = {1, 8, 9, 16, 17, 64, 65};
  for (const Scheme scheme : {Scheme::f16, Scheme::bf16}) {
    for (const size_t columns : kColumns) {
      check_case(*queue, random, scheme, kRows[rig::pick(random, 0, std::size(kRows) - 1)], columns,
                 kTokens[rig::pick(random, 0, std::size(kTokens) - 1)]);
    }
  }
}

TEST_CASE("rows long enough for several rounds of every warp of float products") {
  rig::Random random = seeded("long float rows");
  on_all_devices("long float rows", random, [&](Queue& queue) {
    for (const Scheme scheme : {Scheme::f16, Scheme::bf16}) {
      check_case(queue, random, scheme, rig::pick(random, 1, 70), rig::pick(random, 2000, 3000),
                 rig::pick(random, 1, 3));
    }
  });
}

TEST_CASE("a token's float products have the same bits in every batch, kernel and device") {
  rig::Random random = seeded("batches of float products");
  for (const Scheme scheme : kSchemes) {
    const Case test = random_case(random, scheme, rig::pick(random, 1, 150), rig::pick(random, 257, 700), 70,
                                  rig::pick(random, 0, 1) == 1);
    Case few = test;
    few.x.resize(18 * test.columns);
    std::vector<float> first;
    on_all_devices("batches of float products", random, [&](Queue& queue) {
      CAPTURE(scheme_name(scheme));
      const std::vector<float> all = product(queue, test, test.tokens());
      if (first.empty()) first = all;
      CHECK(all == first);
      const size_t together = std::array<size_t, 5>{1, 3, 8, 11, 17}[rig::pick(random, 0, 4)];
      const std::vector<float> got = product(queue, few, together);
      CAPTURE(together);
      CHECK(std::equal(got.begin(), got.end(), first.begin()));
    });
  }
}
