// The thread pool: every region runs on every thread, barriers publish every write, idle pools sleep.
#include "backends/cpu/thread_pool.h"

#include <doctest/doctest.h>
#include <sys/resource.h>

#include <chrono>
#include <cstdint>
#include <iostream>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "backends/cpu/cpu_features.h"

using tessera::cpu::Pinning;
using tessera::cpu::ThreadPool;

namespace {

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

uint64_t fresh_seed() {
  const uint64_t seed = std::random_device{}();
  std::cout << "thread pool: seed " << seed << '\n';
  return seed;
}

}  // namespace

TEST_CASE("every region runs once on every thread, with one thread for each index") {
  for (size_t threads = 1; threads <= 8; ++threads) {
    ThreadPool pool(threads);
    REQUIRE(pool.size() == threads);
    std::vector<size_t> runs(threads, 0);  // plain: the pool must order regions
    std::vector<std::thread::id> owners(threads);
    for (size_t region = 0; region < 80; ++region) {
      pool.run([&](size_t index) {
        ++runs[index];
        if (region == 0) owners[index] = std::this_thread::get_id();
        if (owners[index] != std::this_thread::get_id()) runs[index] = 1'000'000;
      });
    }
    for (size_t i = 0; i < threads; ++i) CHECK(runs[i] == 80);
    CHECK(std::set<std::thread::id>(owners.begin(), owners.end()).size() == threads);
    CHECK(owners[0] == std::this_thread::get_id());
  }
}

TEST_CASE("writes before a barrier are seen by every thread after it") {
  for (size_t threads = 1; threads <= 8; ++threads) {
    ThreadPool pool(threads);
    constexpr size_t kRounds = 40;
    std::vector<uint64_t> cells(threads, 0);  // written by their owner only, plain
    std::vector<size_t> stale(threads, 0);
    for (size_t region = 0; region < 3; ++region) {
      pool.run([&](size_t index) {
        for (size_t round = 1; round <= kRounds; ++round) {
          cells[index] = region * kRounds + round;
          pool.barrier();
          for (const uint64_t cell : cells) stale[index] += cell == region * kRounds + round ? 0 : 1;
          pool.barrier();
        }
      });
    }
    for (size_t i = 0; i < threads; ++i) CHECK(stale[i] == 0);
  }
}

TEST_CASE("threads that arrive late at a barrier find the others asleep and wake them") {
  std::mt19937_64 random(fresh_seed());
  for (const size_t threads : {2, 3, 5}) {
    ThreadPool pool(threads);
    for (size_t round = 0; round < 10; ++round) {
      const size_t late = random() % threads;
      std::vector<uint64_t> cells(threads, 0);
      std::vector<uint64_t> sums(threads, 0);
      pool.run([&](size_t index) {
        // 2 ms are far beyond the spinning, so the others wait in the kernel.
        if (index == late) std::this_thread::sleep_for(std::chrono::milliseconds(2));
        cells[index] = index + 1;
        pool.barrier();
        for (const uint64_t cell : cells) sums[index] += cell;
      });
      for (const uint64_t sum : sums) CHECK(sum == threads * (threads + 1) / 2);
      // Now and then the workers sleep between regions as well.
      if (round % 3 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }
}

TEST_CASE("pools come and go, used or not, side by side") {
  for (size_t i = 0; i < 40; ++i) {
    ThreadPool first(1 + i % 8);
    ThreadPool second(1 + (i + 3) % 8);
    if (i % 4 == 0) continue;  // destroyed without ever having run
    size_t a = 0;
    size_t b = 0;
    first.run([&](size_t index) {
      if (index == 0) ++a;
    });
    second.run([&](size_t index) {
      if (index + 1 == second.size()) ++b;
    });
    CHECK(a == 1);
    CHECK(b == 1);
  }
}

TEST_CASE("threads stay on cores of their own only where no other place would be better") {
  const size_t cores = tessera::cpu::allowed_cpus().size();
  for (const size_t threads : {size_t{1}, size_t{2}, cores, cores + 1}) {
    CAPTURE(threads);
    for (const Pinning pinning : {Pinning::every_core, Pinning::enough_cores}) {
      const bool all = pinning == Pinning::every_core;
      const ThreadPool pool(threads, pinning);
      std::set<size_t> used;
      for (size_t i = 0; i < threads; ++i)
        if (const auto core = pool.core_of(i)) used.insert(*core);
      const bool pinned = threads > 1 && (all ? threads == cores : threads <= cores);
      CHECK(used.size() == (pinned ? threads : 0));
    }
  }
}

TEST_CASE("an idle pool uses no processor time") {
  ThreadPool pool(4);
  size_t ran = 0;
  pool.run([&](size_t index) {
    if (index == 0) ++ran;
  });
  CHECK(ran == 1);
  std::this_thread::sleep_for(std::chrono::milliseconds(100));  // spinning ends long before
  const double before = cpu_seconds();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  const double used = cpu_seconds() - before;
  // One spinning thread would use 0.3 s.
  CHECK(used < 0.05);
  pool.run([&](size_t index) {
    if (index == 0) ++ran;
  });
  CHECK(ran == 2);
}
