#include "backends/cpu/machine_limits.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

#include "backends/cpu/cpu_features.h"
#include "backends/cpu/instruction_sets.h"
#include "backends/cpu/thread_pool.h"

namespace tessera {

namespace {

// All threads' buffers together exceed any last-level cache, and are still small for a machine of many cores.
// They are kept between calls, so that only the first one pays for page faults.
size_t bytes_per_thread(size_t threads) {
  constexpr size_t kAll = size_t{2} << 30;
  return std::clamp(kAll / threads, size_t{32} << 20, size_t{256} << 20) & ~size_t{4095};
}

// Anonymous memory that is written once, so that every page is real.
class ReadBuffer {
 public:
  explicit ReadBuffer(size_t bytes) : bytes_(bytes) {
    void* base = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) return;
    base_ = static_cast<uint8_t*>(base);
    madvise(base, bytes, MADV_HUGEPAGE);
    for (size_t i = 0; i < bytes; i += 4096) base_[i] = static_cast<uint8_t>(i >> 12);
  }
  ~ReadBuffer() {
    if (base_ != nullptr) munmap(base_, bytes_);
  }
  ReadBuffer(const ReadBuffer&) = delete;
  ReadBuffer& operator=(const ReadBuffer&) = delete;
  const uint8_t* data() const { return base_; }
  size_t bytes() const { return base_ == nullptr ? 0 : bytes_; }

 private:
  uint8_t* base_ = nullptr;
  size_t bytes_;
};

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

MachineLimits measure_machine_limits(size_t threads) {
  if (threads == 0) threads = cpu::usable_threads();
  const cpu::LimitLoops& loops = cpu::best_kernels().limits;
  static std::vector<std::unique_ptr<ReadBuffer>> buffers;
  if (buffers.size() != threads) buffers.clear();
  while (buffers.size() < threads) buffers.push_back(std::make_unique<ReadBuffer>(bytes_per_thread(threads)));
  size_t bytes = 0;
  for (const auto& buffer : buffers) bytes += buffer->bytes();
  cpu::ThreadPool pool(threads);
  std::atomic<uint64_t> sink{0};
  std::atomic<uint64_t> operations{0};

  MachineLimits limits;
  for (size_t round = 0; round < 5; ++round) {
    double start = 0;
    pool.run([&](size_t thread) {
      pool.barrier();
      if (thread == 0) start = seconds_now();
      const ReadBuffer& buffer = *buffers[thread];
      if (buffer.bytes() > 0) sink += loops.read(buffer.data(), buffer.bytes());
    });
    const double read_seconds = seconds_now() - start;
    limits.read_gbps = std::max(limits.read_gbps, static_cast<double>(bytes) / read_seconds / 1e9);

    operations = 0;
    pool.run([&](size_t thread) {
      pool.barrier();
      if (thread == 0) start = seconds_now();
      operations += loops.multiply(2'000'000);
    });
    const double multiply_seconds = seconds_now() - start;
    limits.int8_gops =
        std::max(limits.int8_gops, static_cast<double>(operations.load()) / multiply_seconds / 1e9);
  }
  return limits;
}

}  // namespace tessera
