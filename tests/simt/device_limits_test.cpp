// The kernels behind the device's limits do what is counted as theirs: a copy copies, products are made.
#include "backends/cuda/device_limits.h"

#include <doctest/doctest.h>

#include <iostream>
#include <random>
#include <vector>

#include "backends/cuda/limits/limit_kernels.h"

using namespace tessera;

TEST_CASE("what is measured is done") {
  auto devices = cuda::find_devices();
  if (!devices.ok()) {
    std::cout << "skipped: device limits: " << devices.error() << "\n";
    return;
  }
  auto made = cuda::Queue::create();
  REQUIRE(made.ok());
  cuda::Queue& queue = *made.value();
  const uint64_t seed = std::random_device{}();
  std::cout << "device limits: seed " << seed << "\n";
  std::mt19937_64 random(seed);
  std::vector<std::byte> bytes(3 * cuda::kCopyBlockBytes);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random() & 255);
  auto from = cuda::DeviceMemory::allocate(bytes.size());
  auto to = cuda::DeviceMemory::allocate(bytes.size());
  REQUIRE(from.ok());
  REQUIRE(to.ok());
  queue.upload(from.value().address(), bytes);
  cuda::copy_bytes(queue, from.value().view<const std::byte>(), to.value().view<std::byte>(), bytes.size());
  std::vector<std::byte> copied(bytes.size());
  queue.download(copied, to.value().address());
  REQUIRE(queue.finish().ok());
  CHECK(copied == bytes);

  constexpr uint32_t kWarps = 2 * cuda::kMultiplyWarps;
  constexpr uint32_t kRounds = 5;
  auto sums = cuda::DeviceMemory::allocate(kWarps * 32 * sizeof(uint32_t));
  REQUIRE(sums.ok());
  cuda::multiply_ones(queue, {sums.value().view<uint32_t>(), kRounds}, kWarps);
  std::vector<uint32_t> results(kWarps * 32);
  queue.download(std::as_writable_bytes(std::span(results)), sums.value().address());
  REQUIRE(queue.finish().ok());
  // Each thread has 4 results of every chain, each a sum of 32 ones a round.
  CHECK(results == std::vector<uint32_t>(results.size(), cuda::kMultiplyChains * 4 * 32 * kRounds));

  auto limits = cuda::measure_device_limits(queue, devices.value().front().processors,
                                            {2 * cuda::kCopyBlockBytes, 1, 2, cuda::kMultiplyWarps});
  REQUIRE(limits.ok());
  CHECK(limits.value().copy_gbps > 0);
  CHECK(limits.value().int8_gops > 0);
}
