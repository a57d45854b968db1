// Work that is recorded and replayed: by a queue alone, and by a program whose decoding steps are replayed
// with other tokens, positions and pages. An argument that was recorded by value but changes between batches
// gives wrong logits here, or an access to freed memory.
#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>
#include <vector>

#include "backends/cuda/cuda_program.h"
#include "backends/cuda/elementwise/row_kernels.h"
#include "tests/cuda/test_queue.h"
#include "tests/unit/op_cases.h"

using namespace tessera;

TEST_CASE("recorded work is done when it is replayed, with what then lies in memory") {
  const std::unique_ptr<cuda::Queue> made = cuda::any_queue("recorded launches");
  if (!made) return;
  cuda::Queue& queue = *made;
  rig::Random random = cuda::seeded("recorded launches");
  constexpr size_t kColumns = 33;
  constexpr size_t kStride = 256;
  auto x = cuda::DeviceMemory::allocate(2 * kStride);
  auto y = cuda::DeviceMemory::allocate(kStride);
  REQUIRE(x.ok());
  REQUIRE(y.ok());
  std::vector<float> gate(2 * kColumns);
  const auto upload = [&] {
    for (float& value : gate) value = rig::normal(random);
    queue.upload(x.value().address(), std::as_bytes(std::span(gate)));
  };
  const auto downloaded = [&] {
    std::vector<float> result(kColumns);
    queue.download(std::as_writable_bytes(std::span(result)), y.value().address());
    REQUIRE(queue.finish().ok());
    return result;
  };
  const auto work = [&] {
    queue.fill(y.value().address(), 0, kStride);
    cuda::gate(queue,
               {{x.value().view<std::byte>(), 2 * kStride},
                {y.value().view<std::byte>(), kStride},
                kColumns,
                ElementType::f32},
               1);
  };
  upload();
  queue.fill(y.value().address(), 0x11, kStride);
  queue.begin_recording();
  work();
  auto recording = queue.end_recording();
  REQUIRE(recording.ok());
  float untouched = 0;
  std::memset(&untouched, 0x11, sizeof untouched);
  CHECK(downloaded() == std::vector<float>(kColumns, untouched));
  for (size_t round = 0; round < 3; ++round) {
    upload();
    queue.replay(recording.value());
    const std::vector<float> replayed = downloaded();
    work();
    CHECK(replayed == downloaded());
  }
  // An earlier error is not reported by the recording, and not lost.
  queue.remember_error("an earlier fault");
  queue.begin_recording();
  work();
  CHECK(queue.end_recording().ok());
  CHECK(queue.finish().error() == "an earlier fault");
  CHECK(queue.finish().ok());
}

TEST_CASE("decoding steps that are replayed give what steps that are queued one by one give") {
  const std::unique_ptr<Backend> backend = cuda::any_backend("replayed decoding steps");
  if (!backend) return;
  rig::Random random = cuda::seeded("replayed decoding steps");
  for (const unsigned bits : {16u, 4u}) {
    const rig::OpCase test = rig::layers_case(random, bits == 16 ? Scheme::w4a8_g128 : Scheme::w8a8, bits);
    std::vector<WeightHandle> handles;
    for (const rig::PackedTensor& weight : test.weights)
      handles.push_back(rig::unwrap(backend->adopt(weight.view()), "adopt"));
    constexpr size_t kSequences = 3;
    constexpr size_t kPages = 5;
    const PlanLimits limits{80, 8};
    const auto compiled = [&](KvStorage& kv) {
      return rig::unwrap(backend->compile(test.graph, plan_memory(test.graph, limits), handles, kv),
                         "compile");
    };
    const auto kv = rig::unwrap(backend->create_kv(test.kv, kSequences * kPages), "create_kv");
    const auto other_kv = rig::unwrap(backend->create_kv(test.kv, kSequences * kPages), "create_kv");
    const auto program = compiled(*kv);
    std::vector<uint32_t> ids(kSequences * kPages);
    std::iota(ids.begin(), ids.end(), 0u);
    std::shuffle(ids.begin(), ids.end(), random);
    std::vector<size_t> lengths(kSequences);
    const auto run = [&](const std::vector<size_t>& counts, bool best) {
      std::vector<uint32_t> tokens;
      std::vector<BatchSequence> sequences;
      std::vector<uint32_t> outputs;
      for (size_t s = 0; s < kSequences; ++s) {
        if (counts[s] == 0) continue;
        sequences.push_back(
            {tokens.size(), counts[s], lengths[s], std::span(ids).subspan(s * kPages, kPages)});
        for (size_t i = 0; i < counts[s]; ++i)
          tokens.push_back(static_cast<uint32_t>(rig::pick(random, 0, 52)));
        outputs.push_back(static_cast<uint32_t>(tokens.size() - 1));
        lengths[s] += counts[s];
      }
      const Batch batch{tokens, sequences, outputs};
      // A program that has not run has no recordings.
      const auto fresh = compiled(*other_kv);
      std::vector<float> logits(outputs.size() * 53);
      std::vector<float> expected(logits.size());
      REQUIRE(fresh->run(batch, expected).ok());
      if (best) {
        std::vector<TokenLogit> few(outputs.size() * 4);
        REQUIRE(program->run_best(batch, 4, few).ok());
        for (size_t row = 0; row < outputs.size(); ++row) {
          const TokenLogit& first = few[4 * row];
          CHECK(expected[row * 53 + first.token] == first.logit);
        }
      }
      // A second run stores the same keys and values in the same places.
      REQUIRE(program->run(batch, logits).ok());
      CHECK(logits == expected);
    };
    // All contexts are about to begin another page, which would move any array that is stored after the page
    // ids. With the other precision one context is about to become long enough to be split.
    const auto other_length = [&] {
      return bits == 16 ? rig::pick(random, 61, 63) : rig::pick(random, 2, 5);
    };
    run({other_length(), 0, 0}, false);
    run({0, 60, 0}, false);
    run({0, 0, other_length()}, false);
    for (size_t i = 0; bits == 4 && i < 3; ++i) run({0, 64, 0}, false);
    for (size_t step = 0; step < 4; ++step) run({1, 1, 1}, step % 2 == 1);
    for (size_t step = 0; step < 3; ++step) run({0, 1, 0}, false);
    run({0, 4, 1}, false);
    for (size_t step = 0; step < 3; ++step) run({1, 0, 1}, step == 1);
    run({1, 1, 1}, false);
    CHECK(lengths[1] > 64);
    CHECK(dynamic_cast<cuda::CudaProgram&>(*program).recordings() == 3);
  }
}
