// The kernels that measure the device's limits do the work that is counted for them: all bytes are copied,
// all products computed.
#include "backends/cuda/device_limits.h"

#include <algorithm>
#include <span>
#include <vector>

#include "backends/cuda/limits/limit_kernels.h"
#include "tests/cuda/test_queue.h"
#if defined(TESSERA_CUDA_EMULATED)
#include "backends/cuda/emulator/machine.h"
#endif

using namespace tessera;

namespace {

std::vector<uint32_t> sums_of(cuda::Queue& queue, size_t threads, const auto& multiply) {
  auto sums = cuda::DeviceMemory::allocate(threads * sizeof(uint32_t));
  REQUIRE(sums.ok());
  queue.fill(sums.value().address(), 0xff, sums.value().size());
  multiply(sums.value().template view<uint32_t>());
  std::vector<uint32_t> results(threads);
  queue.download(std::as_writable_bytes(std::span(results)), sums.value().address());
  const Status status = queue.finish();
  CHECK((status.ok() ? std::string() : status.error()) == "");
  return results;
}

void check_limits(cuda::Queue& queue, size_t processors) {
  auto limits =
      cuda::measure_device_limits(queue, processors, {2 * cuda::kCopyBlockBytes, 1, 2, cuda::kMultiplyWarps});
  REQUIRE(limits.ok());
  CHECK(limits.value().copy_gbps > 0);
  CHECK(limits.value().int8_gops > 0);
}

}  // namespace

TEST_CASE("what is measured is done") {
  const std::unique_ptr<cuda::Queue> made = cuda::any_queue("device limits");
  if (!made) return;
  cuda::Queue& queue = *made;
  rig::Random random = cuda::seeded("device limits");
  std::vector<std::byte> bytes(3 * cuda::kCopyBlockBytes);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random() & 255);
  auto from = cuda::DeviceMemory::allocate(bytes.size());
  auto to = cuda::DeviceMemory::allocate(bytes.size());
  REQUIRE(from.ok());
  REQUIRE(to.ok());
  queue.upload(from.value().address(), bytes);
  cuda::copy_bytes(queue, from.value().view<const std::byte>(), to.value().view<std::byte>(), bytes.size());
  CHECK(cuda::downloaded(queue, to.value().address(), bytes.size()) == bytes);

  constexpr uint32_t kWarps = 2 * cuda::kMultiplyWarps;
  const auto rounds = static_cast<uint32_t>(rig::pick(random, 1, 7));
  // Each thread has 4 results of every chain, each a sum of 32 ones a round.
  const auto of_warps = sums_of(queue, 32 * kWarps, [&](const auto& out) {
    cuda::multiply_ones(queue, {out, rounds}, kWarps);
  });
  CHECK(std::count(of_warps.begin(), of_warps.end(), cuda::kMultiplyChains * 4 * 32 * rounds) == 32 * kWarps);
  if (queue.features().warpgroups) {
    constexpr uint32_t kBlocks = 2;
    constexpr size_t kThreads = size_t{kBlocks} * cuda::kMultiplyGroupThreads;
    // 128 results, to which every product of the chain adds 32 ones.
    const auto of_groups = sums_of(queue, kThreads, [&](const auto& out) {
      cuda::multiply_ones_by_groups(queue, {out, 2}, kBlocks);
    });
    CHECK(std::count(of_groups.begin(), of_groups.end(), cuda::kGroupChain * 128 * 32 * 2) == kThreads);
  }
  check_limits(queue, queue.facts().processors);
}

#if defined(TESSERA_CUDA_EMULATED)
TEST_CASE("products are measured on devices with and without warpgroups") {
  const emulator::DeviceKind before = emulator::device_kind();
  for (const uint32_t major : {8u, 9u, 10u}) {
    emulator::device_kind() = {major, 0, 2, before.shared_bytes};
    const std::unique_ptr<cuda::Queue> queue = cuda::any_queue("device limits");
    REQUIRE(queue);
    CHECK(queue->features().warpgroups == (major == 9));
    check_limits(*queue, 2);
  }
  emulator::device_kind() = before;
}
#endif
