#include "backends/cpu/thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <system_error>

#include "backends/cpu/cpu_features.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tessera::cpu {

namespace {

// Rounds of pausing before a waiting thread sleeps. With a core for every thread it is worth waiting about
// half a millisecond, longer than any task: a sleeper hands its core to other processes and takes long to get
// it back. With fewer cores than threads the one that is waited for may need this very core.
constexpr size_t kLongSpins = 20000;
constexpr size_t kShortSpins = 100;

void pause_briefly() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

void pin_to(pthread_t thread, size_t cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  // A refusal only costs speed, so it is not an error.
  (void)pthread_setaffinity_np(thread, sizeof set, &set);
}

// Keeps the calling thread on one core while a region runs, and gives it its old cores back afterwards:
// outside regions it belongs to the program, and threads it starts there must not inherit a single core.
class PinnedCaller {
 public:
  PinnedCaller(bool pinned, size_t cpu)
      : active_(pinned && sched_getaffinity(0, sizeof before_, &before_) == 0) {
    if (active_) pin_to(pthread_self(), cpu);
  }
  ~PinnedCaller() {
    if (active_) (void)sched_setaffinity(0, sizeof before_, &before_);
  }
  PinnedCaller(const PinnedCaller&) = delete;
  PinnedCaller& operator=(const PinnedCaller&) = delete;

 private:
  cpu_set_t before_;
  bool active_;
};

}  // namespace

ThreadPool::ThreadPool(size_t threads, Pinning pinning) : threads_(threads) {
  const std::vector<size_t> cpus = allowed_cpus();
  pinned_ = threads > 1 && (pinning == Pinning::every_core ? threads == cpus.size() : threads <= cpus.size());
  // Workers take the last cores of the mask, one each; the caller takes the first while a region runs.
  for (size_t i = 0; pinned_ && i < threads; ++i)
    cores_.push_back(i == 0 ? cpus.front() : cpus[cpus.size() - i]);
  spins_ = threads <= cpus.size() ? kLongSpins : kShortSpins;
  workers_.reserve(threads_ - 1);
  for (size_t i = 1; i < threads_; ++i) {
    try {
      workers_.emplace_back([this, i] { worker(i); });
    } catch (const std::system_error&) {
      threads_ = i;  // the system gives no more threads: work with those there are
      break;
    }
    if (pinned_) pin_to(workers_.back().native_handle(), cores_[i]);
  }
}

ThreadPool::~ThreadPool() {
  stopping_ = true;
  region_.fetch_add(1, std::memory_order_seq_cst);  // as in barrier: ordered before the look for sleepers
  region_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

std::optional<size_t> ThreadPool::core_of(size_t index) const {
  return pinned_ ? std::optional<size_t>(cores_[index]) : std::nullopt;
}

uint32_t ThreadPool::await_change(const std::atomic<uint32_t>& word, uint32_t old) const {
  for (size_t i = 0; i < spins_; ++i) {
    const uint32_t now = word.load(std::memory_order_acquire);
    if (now != old) return now;
    pause_briefly();
  }
  word.wait(old, std::memory_order_acquire);
  return word.load(std::memory_order_acquire);
}

void ThreadPool::worker(size_t index) {
  uint32_t seen = 0;
  for (;;) {
    seen = await_change(region_, seen);
    if (stopping_) return;
    (*job_)(index);
    barrier();
  }
}

void ThreadPool::run(const std::function<void(size_t)>& job) {
  const PinnedCaller pinned(pinned_, pinned_ ? cores_.front() : 0);
  job_ = &job;
  region_.fetch_add(1, std::memory_order_seq_cst);  // as in barrier: ordered before the look for sleepers
  region_.notify_all();
  job(0);
  barrier();
}

void ThreadPool::barrier() {
  const uint32_t phase = phase_.load(std::memory_order_acquire);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
    arrived_.store(0, std::memory_order_relaxed);
    // Sequentially consistent, not just release: notify_all first looks whether anybody sleeps, and that look
    // must not overtake the store, or a thread about to sleep could be missed and sleep for ever.
    phase_.store(phase + 1, std::memory_order_seq_cst);
    phase_.notify_all();
  } else {
    while (await_change(phase_, phase) == phase) {
    }
  }
}

}  // namespace tessera::cpu
