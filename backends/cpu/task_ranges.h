// The tasks of one step, split into one range of neighbouring tasks per thread, so that a thread that reads
// memory in task order reads one long piece of it. A thread that has finished its range works on the others.
#pragma once

#include <atomic>
#include <cstddef>
#include <limits>
#include <memory>

namespace tessera::cpu {

class TaskRanges {
 public:
  static constexpr size_t kNone = std::numeric_limits<size_t>::max();

  explicit TaskRanges(size_t threads) : threads_(threads), ranges_(std::make_unique<Range[]>(threads)) {}

  // The first task of a thread's range, out of `tasks` for `threads` threads.
  static size_t first(size_t tasks, size_t thread, size_t threads) { return tasks * thread / threads; }

  // Called by one thread before the step: splits tasks 0 … tasks - 1.
  void deal(size_t tasks) {
    for (size_t t = 0; t < threads_; ++t) {
      ranges_[t].next.store(first(tasks, t, threads_), std::memory_order_relaxed);
      ranges_[t].end = first(tasks, t + 1, threads_);
    }
  }
  // The next task for a thread, from its own range first; kNone when all are given out.
  size_t next_task(size_t thread) {
    for (size_t i = 0; i < threads_; ++i) {
      Range& range = ranges_[(thread + i) % threads_];
      if (range.next.load(std::memory_order_relaxed) >= range.end) continue;
      const size_t task = range.next.fetch_add(1, std::memory_order_relaxed);
      if (task < range.end) return task;
    }
    return kNone;
  }

 private:
  struct alignas(64) Range {
    std::atomic<size_t> next{0};
    size_t end = 0;
  };
  size_t threads_;
  std::unique_ptr<Range[]> ranges_;
};

}  // namespace tessera::cpu
