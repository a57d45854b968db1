// Products with table weights, by every kernel, and rows of bfloat16. With 8-bit activations results must
// have the bits that backends/cpu/kernels/table_kernels.h specifies, with bfloat16 they must equal exact sums
// up to float32's rounding. Run on the emulator as devices of every kind, and on a device where the build has
// one.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <iostream>
#include <limits>
#include <random>
#include <vector>

#include "backends/cuda/elementwise/row_kernels.h"
#include "backends/cuda/gemm/choice/table_choice.h"
#include "backends/cuda/gemm/table_linear.h"
#include "backends/cuda/uploaded_weight.h"
#include "backends/reference/bf16_row.h"
#include "backends/reference/quantized_row.h"
#include "graph/bf16_row.h"
#include "graph/q8_row.h"
#include "tests/cuda/test_queue.h"

using namespace tessera;
using namespace tessera::cuda;

namespace {

DeviceMemory on_device(Queue& queue, std::span<const std::byte> bytes) {
  auto made = DeviceMemory::allocate(bytes.size());
  REQUIRE(made.ok());
  queue.upload(made.value().address(), bytes);
  return std::move(made.value());
}

// Weights, a bias and rows of activations in the type that the weights need.
struct Case {
  SchemeFacts format;
  rig::PackedTensor weights;
  std::vector<float> bias;
  size_t stride = 0;
  std::vector<std::byte> x;  // rows, stride bytes apart

  size_t tokens() const { return x.size() / stride; }
  const std::byte* row(size_t token) const { return x.data() + token * stride; }
};

Case random_case(rig::Random& random, Scheme scheme, size_t rows, size_t columns, size_t tokens) {
  Case made{scheme_facts(scheme), rig::random_matrix(random, "w", scheme, rows, columns), {}, 0, {}};
  for (size_t i = 0; i < rows; ++i) made.bias.push_back(rig::normal(random));
  const bool int8 = made.format.activations == ActivationType::int8;
  made.stride = int8 ? q8::row_stride(columns) : bf16_row::row_stride(columns);
  made.x.resize(tokens * made.stride);
  std::vector<float> values(columns);
  for (size_t token = 0; token < tokens; ++token) {
    for (float& value : values) value = rig::normal(random);
    if (token % 5 == 2) std::fill(values.begin(), values.end(), 0.0f);
    if (int8) {
      reference::quantize_row(values, made.x.data() + token * made.stride);
    } else {
      reference::round_row(values, made.x.data() + token * made.stride);
    }
  }
  return made;
}

// y [tokens][rows] of each case, all with the first case's activations, computed for `together` tokens at a
// time in one launch for all cases and stored side by side in the middle of rows full of NaN.
std::vector<std::vector<float>> products(Queue& queue, const std::vector<Case>& cases, size_t together) {
  constexpr size_t kBefore = 3;
  const Case& common = cases.front();
  std::vector<std::unique_ptr<UploadedWeight>> weights;
  std::vector<DeviceMemory> biases;
  size_t y_columns = kBefore;
  for (const Case& test : cases) {
    DeviceMemory staging;
    auto weight = UploadedWeight::upload(queue, staging, test.weights.view());
    REQUIRE(weight.ok());
    weights.push_back(std::move(weight.value()));
    biases.push_back(on_device(queue, std::as_bytes(std::span(test.bias))));
    y_columns += test.weights.rows() + 1;
  }
  const size_t y_stride = tile::round_up(4 * (y_columns + 1), 64);
  const DeviceMemory x = on_device(queue, common.x);
  std::vector<std::byte> y(common.tokens() * y_stride, std::byte{0xff});
  const DeviceMemory output = on_device(queue, y);
  for (size_t first = 0; first < common.tokens(); first += together) {
    TableLinearJobs jobs;
    TableLinearJob job;
    job.x = {x.view<std::byte>(first * common.stride), common.stride};
    job.x_columns = static_cast<uint32_t>(common.weights.columns());
    job.y = {output.view<std::byte>(first * y_stride), y_stride};
    job.first_column = kBefore;
    for (size_t i = 0; i < cases.size(); ++i) {
      job.weights = weights[i]->table();
      job.bias = biases[i].view<const float>();
      REQUIRE(jobs.add(job));
      job.first_column += job.weights.rows + 1;
    }
    jobs.set_tokens(static_cast<uint32_t>(std::min(together, common.tokens() - first)));
    linear_table(queue, jobs);
  }
  queue.download(y, output.address());
  const Status status = queue.finish();
  CHECK((status.ok() ? std::string() : status.error()) == "");
  std::vector<std::vector<float>> results(cases.size());
  size_t stray = 0;
  std::vector<float> row(y_stride / 4);
  for (size_t token = 0; token < common.tokens(); ++token) {
    std::memcpy(row.data(), y.data() + token * y_stride, y_stride);
    const auto skip = [&](size_t from, size_t to) {
      for (size_t i = from; i < to; ++i) stray += std::isnan(row[i]) ? 0 : 1;
    };
    skip(0, kBefore);
    size_t column = kBefore;
    for (size_t i = 0; i < cases.size(); ++i) {
      for (size_t end = column + cases[i].weights.rows(); column < end; ++column)
        results[i].push_back(row[column]);
      skip(column, column + 1);
      ++column;
    }
    skip(column, row.size());
  }
  CHECK(stray == 0);
  return results;
}

std::vector<float> product(Queue& queue, const Case& test, size_t together) {
  return products(queue, {test}, together).front();
}

// The result in the order and with the roundings of backends/cpu/kernels/table_kernels.h.
float int8_result(const Case& test, size_t row, size_t token) {
  const size_t columns = test.weights.columns();
  const size_t groups = (columns + test.format.group - 1) / test.format.group;
  const auto codes = reference::codes_of(test.row(token), columns);
  const float x_scale = reference::scale_of(test.row(token), columns);
  float sum = 0;
  for (size_t g = 0; g * test.format.group < columns; ++g) {
    int32_t dot = 0;
    int32_t total = 0;
    for (size_t k = g * test.format.group; k < std::min(columns, (g + 1) * test.format.group); ++k) {
      dot += test.weights.integers[row * columns + k] * codes[k];
      total += codes[k];
    }
    const size_t level = row * groups + g;
    const auto inputs = static_cast<float>(total);
    const float d = std::fma(-test.weights.zeros[level], inputs, static_cast<float>(dot));
    sum = std::fma(test.weights.scales[level], d, sum);
    if (test.format.offset == GroupOffset::minimum) sum = std::fma(test.weights.minimums[level], inputs, sum);
  }
  const float scaled = sum * (test.format.table ? x_scale / 127.0f : x_scale);
  return scaled + test.bias[row];
}

// The error of a result relative to the sum of its terms' magnitudes, including those of zero points and
// minimums.
double bf16_error(const Case& test, size_t row, size_t token, float got) {
  const size_t columns = test.weights.columns();
  const size_t groups = (columns + test.format.group - 1) / test.format.group;
  std::vector<double> x(columns);
  reference::read_bf16_row(test.row(token), x);
  double sum = test.bias[row];
  double size = std::abs(sum);
  for (size_t k = 0; k < columns; ++k) {
    const size_t g = row * groups + k / test.format.group;
    const double value = test.weights.values[row * columns + k];
    sum += value * x[k];
    const double offset = std::abs(double{test.weights.scales[g]} * test.weights.zeros[g]) +
                          std::abs(double{test.weights.minimums[g]});
    size += (std::abs(value) + 2.0 * offset) * std::abs(x[k]);
  }
  return std::abs(sum - double{got}) / size;
}

size_t wrong_results(const Case& test, const std::vector<float>& got) {
  const size_t rows = test.weights.rows();
  size_t wrong = 0;
  const size_t stride = 1 + got.size() / 200'000;  // of many results only some are checked
  for (size_t i = 0; i < got.size(); i += stride) {
    if (test.format.activations == ActivationType::int8) {
      wrong += got[i] == int8_result(test, i % rows, i / rows) ? 0 : 1;
    } else {
      wrong += bf16_error(test, i % rows, i / rows, got[i]) < 1e-5 ? 0 : 1;
    }
  }
  return wrong;
}

size_t wrong_results(Queue& queue, const Case& test, size_t together) {
  return wrong_results(test, product(queue, test, together));
}

// The schemes with scales per group, those that differ in their groups alone together.
std::vector<std::vector<Scheme>> kinds() {
  std::vector<std::vector<Scheme>> all;
  for (const Scheme scheme : matrix_schemes()) {
    const SchemeFacts& facts = scheme_facts(scheme);
    if (!facts.group_scales()) continue;
    const auto same = [&](const std::vector<Scheme>& kind) {
      const SchemeFacts& other = scheme_facts(kind.front());
      return other.kind == facts.kind && other.activations == facts.activations;
    };
    const auto known = std::find_if(all.begin(), all.end(), same);
    if (known == all.end()) {
      all.push_back({scheme});
    } else {
      known->push_back(scheme);
    }
  }
  return all;
}

Scheme any_of(rig::Random& random, const std::vector<Scheme>& kind) {
  return kind[rig::pick(random, 0, kind.size() - 1)];
}

#if defined(TESSERA_CUDA_EMULATED)
constexpr bool kEmulated = true;
#else
constexpr bool kEmulated = false;
#endif

// A queue for an emulated device with `processors` multiprocessors, or for the real device.
std::unique_ptr<Queue> queue_of([[maybe_unused]] size_t processors) {
#if defined(TESSERA_CUDA_EMULATED)
  const emulator::DeviceKind before = emulator::device_kind();
  emulator::device_kind().processors = static_cast<uint32_t>(processors);
#endif
  auto queue = Queue::create();
#if defined(TESSERA_CUDA_EMULATED)
  emulator::device_kind() = before;
#endif
  REQUIRE(queue.ok());
  return std::move(queue.value());
}

}  // namespace

TEST_CASE("table products are what the format means, for every group size") {
  const std::unique_ptr<Queue> queue = any_queue("table products");
  if (!queue) return;
  rig::Random random = seeded("table products");
  for (const std::vector<Scheme>& kind : kinds()) {
    for (const Scheme scheme : kind) {
      const size_t columns = rig::pick(random, 1, 700);
      static constexpr size_t kCounts[] = {1, 2, 7, 8, 9, 16, 17, 30};
      const size_t tokens = kCounts[rig::pick(random, 0, std::size(kCounts) - 1)];
      const Case test = random_case(random, scheme, rig::pick(random, 1, 40), columns, tokens);
      CAPTURE(scheme_name(test.weights.scheme));
      CAPTURE(test.weights.rows());
      CAPTURE(columns);
      CAPTURE(tokens);
      CHECK(wrong_results(*queue, test, tokens) == 0);
    }
  }
}

TEST_CASE("rows long enough for several rounds of every warp") {
  const std::unique_ptr<Queue> queue = any_queue("table products");
  if (!queue) return;
  rig::Random random = seeded("long table rows");
  for (const std::vector<Scheme>& kind : kinds()) {
    const size_t columns = rig::pick(random, 5000, 8000);
    const Case test = random_case(random, any_of(random, kind), 3, columns, 2);
    CAPTURE(scheme_name(test.weights.scheme));
    CAPTURE(columns);
    CHECK(wrong_results(*queue, test, 2) == 0);
  }
}

TEST_CASE("table products agree bit for bit whichever kernel the number of tokens chooses") {
  const std::unique_ptr<Queue> queue = any_queue("table products");
  if (!queue) return;
  rig::Random random = seeded("table token counts");
  for (const std::vector<Scheme>& kind : kinds()) {
    const Case test =
        random_case(random, any_of(random, kind), rig::pick(random, 1, 33), rig::pick(random, 1, 600), 70);
    const std::vector<float> all = product(*queue, test, 70);
    Case few = test;
    few.x.resize(19 * test.stride);
    for (const size_t together : {1, 8, 9, 16, 19}) {
      CAPTURE(scheme_name(test.weights.scheme));
      CAPTURE(together);
      const bool int8 = test.format.activations == ActivationType::int8;
      if (int8 || kEmulated || !queue->features().warpgroups) {
        const std::vector<float> got = product(*queue, few, together);
        CHECK(std::equal(got.begin(), got.end(), all.begin()));
      } else {  // how wgmma rounds sums of bfloat16 is not documented
        CHECK(wrong_results(*queue, few, together) == 0);
      }
    }
  }
}

TEST_CASE("table products of every kernel for more than 8 tokens, for every group size") {
  using tables::TableKernel;
  const std::unique_ptr<Queue> any = any_queue("kernels of table products");
  if (!any) return;
  rig::Random random = seeded("kernels of table products");
  std::vector<TableKernel> kernels = {TableKernel::few16, TableKernel::few32};
  const bool warpgroups = any->features().warpgroups;
  if (warpgroups) kernels.insert(kernels.end(), {TableKernel::tiles64, TableKernel::tiles128});
  if (!warpgroups) kernels.push_back(TableKernel::many);
  for (const std::vector<Scheme>& kind : kinds()) {
    const size_t groups_of_many_rows[] = {size_t{32} << rig::pick(random, 0, kind.size() > 1 ? 1 : 0),
                                          size_t{128} << rig::pick(random, 0, 1)};
    for (const Scheme scheme : kind) {
      const SchemeFacts& format = scheme_facts(scheme);
      const size_t group = format.group;
      const bool int8 = format.activations == ActivationType::int8;
      // As launch_table has them.
      const bool few16 = group >= 128;
      const bool few32 = few16 && (int8 || format.bits < 8);
      for (const TableKernel kernel : kernels) {
        if (!few16 && kernel == TableKernel::few16) continue;
        if (!few32 && kernel == TableKernel::few32) continue;
        // On a device with many multiprocessors they are chosen for many rows.
        if (!kEmulated && group != groups_of_many_rows[group / 128 > 0 ? 1 : 0]) continue;
        tables::TableChoices choices{any->facts().processors, warpgroups, few16, few32};
        TableLinearJobs jobs;
        TableLinearJob job;
        job.weights.bits = format.bits;
        job.weights.int8_activations = int8;
        do {
          if (kEmulated) choices.processors = rig::pick(random, 1, 9);
          const size_t most_rows = kEmulated ? 180 : 80 * choices.processors;
          job.weights.rows = static_cast<uint32_t>(rig::pick(random, 1, most_rows));
          job.tokens = static_cast<uint32_t>(rig::pick(random, 9, 150));
          jobs = {};
          jobs.add(job);
        } while (tables::choose_table_kernel(choices, jobs) != kernel);
        const bool several_rounds = rig::pick(random, 0, 5) == 0;  // of the few-tokens kernel
        const size_t columns = several_rounds ? rig::pick(random, 900, 1500) : rig::pick(random, 1, 400);
        const Case test = random_case(random, scheme, job.weights.rows, columns, job.tokens);
        const std::unique_ptr<Queue> queue = queue_of(choices.processors);
        CAPTURE(static_cast<int>(kernel));
        CAPTURE(scheme_name(test.weights.scheme));
        CAPTURE(job.weights.rows);
        CAPTURE(columns);
        CAPTURE(job.tokens);
        CAPTURE(choices.processors);
        CHECK(wrong_results(*queue, test, job.tokens) == 0);
      }
    }
  }
}

TEST_CASE("several matrices with tables of their own are one launch") {
  const std::unique_ptr<Queue> any = any_queue("several matrices");
  if (!any) return;
  rig::Random random = seeded("several matrices");
  for (const std::vector<Scheme>& kind : kinds()) {
    for (const size_t most_tokens : {8, 16, 40, 150}) {
      const Scheme scheme = any_of(random, kind);
      const size_t tokens = rig::pick(random, most_tokens / 2, most_tokens);
      const size_t columns = rig::pick(random, 1, 400);
      std::vector<Case> cases;
      for (size_t i = rig::pick(random, 2, TableLinearJobs::kMost); i > 0; --i) {
        cases.push_back(random_case(random, scheme, rig::pick(random, 1, 150), columns, tokens));
        cases.back().x = cases.front().x;
      }
      const std::unique_ptr<Queue> queue = queue_of(rig::pick(random, 1, 9));
      const auto results = products(*queue, cases, tokens);
      for (size_t i = 0; i < cases.size(); ++i) {
        CAPTURE(i);
        CAPTURE(scheme_name(cases[i].weights.scheme));
        CAPTURE(cases[i].weights.rows());
        CAPTURE(columns);
        CAPTURE(tokens);
        CHECK(wrong_results(cases[i], results[i]) == 0);
      }
    }
  }
}

#if defined(TESSERA_CUDA_EMULATED)
TEST_CASE("table products of more than 8 tokens on devices without warpgroups") {
  rig::Random random = seeded("table products of devices");
  const emulator::DeviceKind before = emulator::device_kind();
  for (const unsigned major : {8u, 10u, 12u}) {
    emulator::device_kind() = {major, 0, static_cast<uint32_t>(rig::pick(random, 1, 9)),
                               size_t{major == 10 ? 227u : 99u} << 10};
    auto queue = Queue::create();
    REQUIRE(queue.ok());
    for (const std::vector<Scheme>& kind : kinds()) {
      const size_t tokens = rig::pick(random, 9, 150);
      const Case test = random_case(random, any_of(random, kind), rig::pick(random, 1, 140),
                                    rig::pick(random, 1, 300), tokens);
      CAPTURE(major);
      CAPTURE(scheme_name(test.weights.scheme));
      CHECK(wrong_results(*queue.value(), test, tokens) == 0);
    }
  }
  emulator::device_kind() = before;
}
#endif

TEST_CASE("rows of bfloat16 are the reference's") {
  const std::unique_ptr<Queue> queue = any_queue("table products");
  if (!queue) return;
  rig::Random random = seeded("bf16 rows");
  for (const size_t columns : {1, 3, 31, 127, 256, 300, 1024, 1111}) {
    constexpr uint32_t kRows = 7;
    const size_t x_stride = tile::round_up(4 * columns, 64);
    const size_t y_stride = bf16_row::row_stride(columns);
    std::vector<std::byte> x(kRows * x_stride, std::byte{0xff});
    std::vector<std::vector<float>> rows(kRows, std::vector<float>(columns));
    for (uint32_t row = 0; row < kRows; ++row) {
      for (float& value : rows[row]) {
        value = rig::normal(random);
        if (row == 1) value = 0.0f;
        if (row == 2) value *= 1e-41f;
        if (row == 3) value *= 1e35f;
        if (row == 4) value = std::round(value * 20) + 0.00390625f;  // ties among them
      }
      if (row == 5) rows[row][columns / 2] = -std::numeric_limits<float>::infinity();
      if (row == 6) rows[row][columns - 1] = std::numeric_limits<float>::quiet_NaN();
      std::memcpy(x.data() + row * x_stride, rows[row].data(), 4 * columns);
    }
    const DeviceMemory input = on_device(*queue, x);
    std::vector<std::byte> got(kRows * y_stride, std::byte{0xa5});
    const DeviceMemory output = on_device(*queue, got);
    quantize(*queue,
             {{input.view<std::byte>(), x_stride},
              {output.view<std::byte>(), y_stride},
              static_cast<uint32_t>(columns),
              ElementType::bf16},
             kRows);
    queue->download(got, output.address());
    REQUIRE(queue->finish().ok());
    for (uint32_t row = 0; row < kRows; ++row) {
      std::vector<std::byte> correct(y_stride);
      reference::round_row(rows[row], correct.data());
      const std::byte* mine = got.data() + row * y_stride;
      CAPTURE(columns);
      CAPTURE(row);
      CHECK(std::memcmp(mine, correct.data(), bf16_row::sums_offset(columns)) == 0);
      for (size_t group = 0; group < bf16_row::groups(columns); ++group) {
        float sum = 0;
        float expected = 0;
        std::memcpy(&sum, mine + bf16_row::sums_offset(columns) + 4 * group, sizeof sum);
        std::memcpy(&expected, correct.data() + bf16_row::sums_offset(columns) + 4 * group, sizeof expected);
        double size = 0;
        for (size_t k = 32 * group; k < std::min(columns, 32 * (group + 1)); ++k)
          size += std::abs(double{rows[row][k]});
        const bool both_nan = std::isnan(sum) && std::isnan(expected);
        const bool close = sum == expected || std::abs(double{sum} - double{expected}) <= 4e-6 * size;
        CHECK((both_nan || close));
      }
    }
  }
}
