// Properties of the whole CUDA backend: the same bits whatever else is in a batch, quantized rows with the
// reference backend's bytes, and a one-line error for whatever it cannot do.
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "backends/cuda/cuda_backend.h"
#include "backends/cuda/elementwise/row_kernels.h"
#include "backends/reference/quantized_row.h"
#include "backends/reference/reference_backend.h"
#include "graph/q8_row.h"
#include "tests/cuda/test_queue.h"
#include "tests/unit/backend_faults.h"
#include "tests/unit/op_cases.h"

using namespace tessera;

namespace {

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// The error with which a case is refused; empty if it runs.
std::string refusal(Backend& backend, const rig::OpCase& test) {
  try {
    rig::run_case(backend, test);
  } catch (const std::exception& error) {
    return error.what();
  }
  return {};
}

}  // namespace

TEST_CASE("a token's result does not depend on what is in its batch, nor on the run") {
  const std::unique_ptr<Backend> cuda = cuda::any_backend("cuda backend");
  if (!cuda) return;
  rig::Random random = cuda::seeded("batches");
  constexpr size_t kBefore = 150;
  constexpr size_t kAfter = 3;
  const std::unique_ptr<Backend> reference = make_reference_backend();
  for (const unsigned bits : {16u, 8u, 4u}) {
    rig::OpCase whole = rig::attention_case(random, {6, 2, 24, bits, 1, 0, 1, 1});
    const auto vocabulary = static_cast<uint32_t>(whole.weights.front().rows());
    const size_t pages = (kBefore + kAfter) / kKvPageTokens + 1;
    whole.pages = pages;
    std::vector<uint32_t> tokens(kBefore + kAfter);
    for (uint32_t& token : tokens) token = static_cast<uint32_t>(rig::pick(random, 0, vocabulary - 1));
    std::vector<uint32_t> ids(pages);
    std::iota(ids.rbegin(), ids.rend(), 0u);
    rig::OpCase single = whole;
    whole.runs = {{tokens, {{tokens.size(), 0, ids}}, {kBefore, kBefore + 1, kBefore + 2}}};
    whole.limits = {tokens.size(), kAfter};
    single.limits = {kBefore, 1};
    single.runs = {{{tokens.begin(), tokens.begin() + kBefore}, {{kBefore, 0, ids}}, {0}}};
    for (size_t i = 0; i < kAfter; ++i)
      single.runs.push_back({{tokens[kBefore + i]}, {{1, kBefore + i, ids}}, {0}});
    const std::vector<float> at_once = rig::run_case(*cuda, whole);
    const std::vector<float> one_by_one = rig::run_case(*cuda, single);
    const auto columns = static_cast<std::ptrdiff_t>(at_once.size() / kAfter);
    CAPTURE(bits);
    CHECK(rig::difference(whole, rig::run_case(*reference, whole), at_once) == "");
    CHECK(std::vector<float>(one_by_one.begin() + columns, one_by_one.end()) == at_once);
    CHECK(rig::run_case(*cuda, whole) == at_once);
  }
}

TEST_CASE("products agree bit for bit whichever kernel the number of tokens chooses") {
  const std::unique_ptr<Backend> cuda = cuda::any_backend("cuda backend");
  if (!cuda) return;
  rig::Random random = cuda::seeded("token counts");
  for (const Scheme scheme :
       {Scheme::f32, Scheme::f16, Scheme::bf16, Scheme::w8a8, Scheme::w4a8, Scheme::w4a8_g128}) {
    rig::OpCase test = rig::linear_case(random, scheme, {{21}, 200, 1, true, false});
    constexpr size_t kTokens = 67;
    std::vector<uint32_t> tokens(kTokens);
    for (uint32_t& token : tokens) token = static_cast<uint32_t>(rig::pick(random, 0, 36));
    const std::vector<uint32_t> pages = {0, 1};
    test.pages = 2;
    test.limits = {kTokens, kTokens};
    std::vector<float> expected;
    for (const size_t together :
         {kTokens, size_t{1}, size_t{2}, size_t{8}, size_t{9}, size_t{17}, size_t{64}}) {
      test.runs.clear();
      for (size_t first = 0; first < kTokens; first += together) {
        const size_t count = std::min(together, kTokens - first);
        rig::CaseRun run;
        run.tokens.assign(tokens.begin() + static_cast<std::ptrdiff_t>(first),
                          tokens.begin() + static_cast<std::ptrdiff_t>(first + count));
        run.sequences = {{count, first, pages}};
        run.output_rows.resize(count);
        std::iota(run.output_rows.begin(), run.output_rows.end(), 0u);
        test.runs.push_back(std::move(run));
      }
      const std::vector<float> got = rig::run_case(*cuda, test);
      if (expected.empty()) expected = got;
      CAPTURE(test.name);
      CAPTURE(together);
      CHECK(got == expected);
    }
#if defined(TESSERA_CUDA_EMULATED)
    // An older device has other kernels but must give the same bits.
    const emulator::DeviceKind before = emulator::device_kind();
    emulator::device_kind() = {8, 6, 5, size_t{99} << 10};
    CHECK(rig::run_case(*rig::unwrap(make_cuda_backend(), "cuda"), test) == expected);
    emulator::device_kind() = before;
#endif
  }
}

TEST_CASE("quantized rows are the reference's, byte for byte") {
  const std::unique_ptr<cuda::Queue> queue = cuda::any_queue("quantized rows");
  if (!queue) return;
  rig::Random random = cuda::seeded("quantized rows");
  for (const size_t columns : {1, 3, 127, 128, 129, 300, 1024, 1111}) {
    constexpr uint32_t kRows = 9;
    const size_t x_stride = tile::round_up(4 * columns, 64);
    const size_t y_stride = q8::row_stride(columns);
    std::vector<std::byte> x(kRows * x_stride, std::byte{0xff});
    std::vector<std::vector<float>> rows(kRows, std::vector<float>(columns));
    for (uint32_t row = 0; row < kRows; ++row) {
      for (float& value : rows[row]) {
        value = rig::normal(random);
        if (row == 1) value = 0.0f;
        if (row == 2) value *= 1e-41f;
        if (row == 3) value *= 1e35f;
        if (row == 4) value = std::round(value * 20) + 0.5f;
      }
      if (row == 4) rows[row][0] = 127.0f;
      if (row == 5) rows[row][columns / 2] = std::numeric_limits<float>::infinity();
      if (row == 6) rows[row][columns - 1] = std::numeric_limits<float>::quiet_NaN();
      std::memcpy(x.data() + row * x_stride, rows[row].data(), 4 * columns);
    }
    auto input = cuda::DeviceMemory::allocate(x.size());
    auto output = cuda::DeviceMemory::allocate(kRows * y_stride);
    REQUIRE(input.ok());
    REQUIRE(output.ok());
    queue->upload(input.value().address(), x);
    queue->fill(output.value().address(), 0xa5, kRows * y_stride);
    cuda::quantize(*queue,
                   {{input.value().view<std::byte>(), x_stride},
                    {output.value().view<std::byte>(), y_stride},
                    static_cast<uint32_t>(columns)},
                   kRows);
    std::vector<std::byte> got(kRows * y_stride);
    queue->download(got, output.value().address());
    REQUIRE(queue->finish().ok());
    const size_t used = q8::fine_sums_offset(columns) + 4 * q8::fine_groups(columns);
    for (uint32_t row = 0; row < kRows; ++row) {
      std::vector<std::byte> correct(y_stride);
      reference::quantize_row(rows[row], correct.data());
      CAPTURE(columns);
      CAPTURE(row);
      std::byte* mine = got.data() + row * y_stride;
      if (std::isnan(reference::scale_of(correct.data(), columns))) {  // any NaN is right
        CHECK(std::isnan(reference::scale_of(mine, columns)));
        std::memcpy(mine + q8::scale_offset(columns), correct.data() + q8::scale_offset(columns), 4);
      }
      CHECK(std::memcmp(mine, correct.data(), used) == 0);
    }
  }
}

TEST_CASE("what the backend cannot do is refused in one line") {
  const std::unique_ptr<Backend> cuda = cuda::any_backend("cuda backend");
  if (!cuda) return;
  rig::Random random = cuda::seeded("refusals");
  auto long_heads = cuda->create_kv({1, 1, 264, 16, 0}, 1);
  REQUIRE_FALSE(long_heads.ok());
  CHECK(contains(long_heads.error(), "heads of up to 256 elements, found 264"));
  auto huge = cuda->create_kv({80, 8, 128, 16, 0}, size_t{1} << 39);
  REQUIRE_FALSE(huge.ok());
  CHECK(contains(huge.error(), "kv cache: 549755813888 pages of"));
  CHECK(contains(huge.error(), "no room for"));

  rig::OpCase test = rig::linear_case(random, Scheme::w8a8, {{16}, 40, 3, true, false});
  CHECK(refusal(*cuda, test) == "");
  rig::OpCase bad = test;
  bad.runs[0].tokens[0] = 37;
  CHECK(contains(refusal(*cuda, bad), "expected token ids below 37, found 37"));
  bad = test;
  bad.runs[0].sequences[0].pages[0] = 1000;
  CHECK(contains(refusal(*cuda, bad), "kv page 1000 of"));
  bad = test;
  bad.runs[0].sequences[0].position = 1000;
  CHECK(contains(refusal(*cuda, bad), "tokens need 16 kv pages, found"));
  bad = test;
  bad.runs[0].sequences[0].position = std::numeric_limits<size_t>::max() - 1;
  CHECK(contains(refusal(*cuda, bad), "out of range"));
  bad = test;
  bad.runs[0].sequences[0].token_count += 1;
  CHECK(contains(refusal(*cuda, bad), "batch: sequence"));
  bad = test;
  bad.runs[0].output_rows.back() = 1000;
  CHECK(contains(refusal(*cuda, bad), "output row 1000"));
  bad = test;
  bad.limits.max_tokens = 0;
  CHECK(contains(refusal(*cuda, bad), "were planned"));
  bad = test;
  bad.graph.weights[0].rows += 1;
  CHECK_FALSE(refusal(*cuda, bad).empty());

  // Every fault that the other backends are tested with, and the same lines.
  rig::check_all_faults(*cuda, *rig::unwrap(make_cuda_backend(), "cuda"), random);

  const std::unique_ptr<Backend> reference = make_reference_backend();
  auto other_kv = reference->create_kv(test.kv, 4);
  REQUIRE(other_kv.ok());
  std::vector<WeightHandle> handles;
  for (const rig::PackedTensor& weight : test.weights)
    handles.push_back(rig::unwrap(cuda->adopt(weight.view()), "adopt"));
  auto program = cuda->compile(test.graph, plan_memory(test.graph, test.limits), handles, *other_kv.value());
  REQUIRE_FALSE(program.ok());
  CHECK(program.error() == "the kv cache belongs to another backend");
}
