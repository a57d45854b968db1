// Persistent pinned workers for one parallel region at a time. Inside a region threads meet at spin barriers;
// a thread that waits too long sleeps (futex), so an idle pool uses no CPU and an oversubscribed machine
// makes progress.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <optional>
#include <thread>
#include <vector>

namespace tessera::cpu {

// When threads are pinned, one to a core. With fewer threads than cores the system places them better: it
// knows which cores other programs use and which share one.
enum class Pinning {
  every_core,    // only when there is a thread for every core that the process may use
  enough_cores,  // whenever no two would share a core
};

class ThreadPool {
 public:
  // threads >= 1, the caller counted as thread 0.
  explicit ThreadPool(size_t threads, Pinning pinning = Pinning::every_core);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  size_t size() const { return threads_; }
  // The core a thread runs on inside regions; nothing when threads are not pinned.
  std::optional<size_t> core_of(size_t index) const;
  // Runs job(thread index) on every thread and returns when all are done. job must not throw.
  void run(const std::function<void(size_t)>& job);
  // Called by every thread of the running region: returns when all have arrived; writes before it are seen
  // after it.
  void barrier();

 private:
  void worker(size_t index);
  uint32_t await_change(const std::atomic<uint32_t>& word, uint32_t old) const;

  size_t threads_;
  bool pinned_ = false;
  std::vector<size_t> cores_;  // by thread index, when pinned
  size_t spins_ = 0;           // rounds of pausing before a waiting thread sleeps
  const std::function<void(size_t)>* job_ = nullptr;
  alignas(64) std::atomic<uint32_t> region_{0};   // counts regions; workers wait for it to move
  alignas(64) std::atomic<uint32_t> arrived_{0};  // threads at the current barrier
  alignas(64) std::atomic<uint32_t> phase_{0};    // counts barriers
  bool stopping_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace tessera::cpu
