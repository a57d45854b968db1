#include "engine/quantize/plan/row_blocks.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace tessera {

size_t worker_count(size_t blocks, size_t threads) {
  const size_t wanted = threads != 0 ? threads : std::max<size_t>(1, std::thread::hardware_concurrency());
  return std::max<size_t>(1, std::min(wanted, blocks));
}

void run_row_blocks(size_t blocks, size_t threads, const std::function<void(size_t, size_t)>& job) {
  std::atomic<size_t> next{0};
  std::atomic<bool> failed{false};
  std::mutex mutex;
  std::exception_ptr failure;
  size_t failed_block = blocks;

  // Blocks are handed out in order, so every block below a failing one has been started and will finish.
  const auto work = [&](size_t worker) {
    while (!failed.load(std::memory_order_relaxed)) {
      const size_t block = next.fetch_add(1);
      if (block >= blocks) return;
      try {
        job(block, worker);
      } catch (...) {
        const std::lock_guard<std::mutex> lock(mutex);
        failed = true;
        if (block < failed_block) {
          failed_block = block;
          failure = std::current_exception();
        }
      }
    }
  };

  {
    const size_t workers = worker_count(blocks, threads);
    std::vector<std::jthread> others;
    others.reserve(workers - 1);
    try {
      for (size_t worker = 1; worker < workers; ++worker) others.emplace_back(work, worker);
    } catch (const std::system_error&) {
      // The system has no thread to spare: those that did start share the work with this one.
    }
    work(0);
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace tessera
