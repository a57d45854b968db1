#include "backends/cuda/device_limits.h"

#include <algorithm>
#include <chrono>

#include "backends/cuda/limits/limit_kernels.h"

namespace tessera::cuda {

namespace {

constexpr size_t kRounds = 3;

// Seconds of the fastest of kRounds runs.
template <class Work>
Result<double> fastest(Queue& queue, const Work& work) {
  double best = 0;
  for (size_t round = 0; round <= kRounds;
       ++round) {  // the first one, which raises the clocks, does not count
    if (Status status = queue.finish(); !status.ok()) return Result<double>::failure(status.error());
    const auto begun = std::chrono::steady_clock::now();
    work();
    if (Status status = queue.finish(); !status.ok()) return Result<double>::failure(status.error());
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
    if (round == 1 || (round > 1 && seconds < best)) best = seconds;
  }
  return best;
}

}  // namespace

Result<DeviceLimits> measure_device_limits(Queue& queue, size_t processors, const LimitSizes& sizes) {
  using Outcome = Result<DeviceLimits>;
  constexpr size_t kLeastBytes = size_t{1} << 27;  // fewer bytes might fit in the L2 cache
  size_t bytes = std::max<size_t>(sizes.copied_bytes / kCopyBlockBytes, 1) * kCopyBlockBytes;
  auto from = DeviceMemory::allocate(bytes);
  auto to = DeviceMemory::allocate(bytes);
  while ((!from.ok() || !to.ok()) && bytes > kLeastBytes) {
    bytes = bytes / 2 / kCopyBlockBytes * kCopyBlockBytes;
    from = Result<DeviceMemory>(DeviceMemory());
    to = Result<DeviceMemory>(DeviceMemory());
    from = DeviceMemory::allocate(bytes);
    to = DeviceMemory::allocate(bytes);
  }
  // A round of the warpgroup kernel is eight times the work of a round of the warp kernel, at about twice the
  // rate.
  const bool by_groups = queue.features().warpgroups;
  const size_t warps = processors * sizes.warps_of_processor / kMultiplyWarps * kMultiplyWarps;
  const size_t rounds = by_groups ? std::max<size_t>(sizes.rounds / 4, 1) : sizes.rounds;
  const size_t threads = by_groups ? processors * kMultiplyGroupThreads : 32 * warps;
  auto sums = DeviceMemory::allocate(threads * sizeof(uint32_t));
  for (const auto* memory : {&from, &to, &sums}) {
    if (!memory->ok()) return Outcome::failure(memory->error());
  }
  queue.fill(from.value().address(), 0, bytes);
  auto copying = fastest(queue, [&] {
    for (size_t i = 0; i < sizes.copies; ++i)
      copy_bytes(queue, from.value().view<const std::byte>(), to.value().view<std::byte>(), bytes);
  });
  if (!copying.ok()) return Outcome::failure(copying.error());
  auto multiplying = fastest(queue, [&] {
    const MultiplyJob job{sums.value().view<uint32_t>(), static_cast<uint32_t>(rounds)};
    if (by_groups) {
      multiply_ones_by_groups(queue, job, static_cast<uint32_t>(processors));
    } else {
      multiply_ones(queue, job, static_cast<uint32_t>(warps));
    }
  });
  if (!multiplying.ok()) return Outcome::failure(multiplying.error());
  DeviceLimits limits;
  limits.copy_gbps = 2e-9 * static_cast<double>(bytes * sizes.copies) / copying.value();
  const double operations =
      by_groups ? kGroupOperations * kGroupChain * static_cast<double>(kMultiplyGroups * processors)
                : kMultiplyOperations * kMultiplyChains * static_cast<double>(warps);
  limits.int8_gops = 1e-9 * operations * static_cast<double>(rounds) / multiplying.value();
  return limits;
}

}  // namespace tessera::cuda
