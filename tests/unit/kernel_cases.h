// What the kernel tests share: the tables this machine can run, seeds that are printed, and arrays that end
// at a protected page, so that a kernel that reads or writes too far crashes or is caught by its poison.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <limits>
#include <new>
#include <random>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "backends/cpu/instruction_sets.h"
#include "gguf-like-format/tile_layout.h"
#include "graph/q8_row.h"

namespace tessera::kernel_cases {

using Random = std::mt19937_64;

inline std::vector<const cpu::Kernels*> runnable_kernels() { return cpu::usable_kernels(); }

// A fresh seed each run; TESSERA_TEST_SEED repeats one.
inline Random seeded(const char* test) {
  const char* fixed = std::getenv("TESSERA_TEST_SEED");
  const uint64_t seed = fixed != nullptr ? std::strtoull(fixed, nullptr, 10) : std::random_device{}();
  std::cout << test << ": seed " << seed << '\n';
  return Random(seed);
}

inline size_t pick(Random& random, size_t low, size_t high) {  // both ends included
  return std::uniform_int_distribution<size_t>(low, high)(random);
}

inline float normal(Random& random, float deviation = 1.0f) {
  return std::normal_distribution<float>(0.0f, deviation)(random);
}

// `count` values that end `skew` values before a page no one may touch. Starts poisoned: every byte is 0xff,
// which makes floats NaN. Margins before and after the values keep their pattern or untouched() is false.
template <class T>
class EdgeArray {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  explicit EdgeArray(size_t count, size_t skew = 0) : count_(count) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t used = tile::round_up((count + skew) * sizeof(T) + kMargin, page);
    bytes_ = used + page;
    base_ = static_cast<unsigned char*>(
        mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (base_ == MAP_FAILED || mprotect(base_ + used, page, PROT_NONE) != 0) throw std::bad_alloc();
    limit_ = base_ + used;
    first_ = limit_ - (count + skew) * sizeof(T);
    std::memset(base_, kPattern, used);
    poison();
  }
  ~EdgeArray() { munmap(base_, bytes_); }
  EdgeArray(const EdgeArray&) = delete;
  EdgeArray& operator=(const EdgeArray&) = delete;

  T* data() { return reinterpret_cast<T*>(first_); }
  const T* data() const { return reinterpret_cast<const T*>(first_); }
  size_t size() const { return count_; }
  T& operator[](size_t i) { return data()[i]; }
  const T& operator[](size_t i) const { return data()[i]; }
  std::span<T> values() { return {data(), count_}; }

  void poison() { std::memset(first_, 0xff, count_ * sizeof(T)); }
  bool untouched() const {
    for (const unsigned char* at = base_; at < first_; ++at) {
      if (*at != kPattern) return false;
    }
    for (const unsigned char* at = first_ + count_ * sizeof(T); at < limit_; ++at) {
      if (*at != kPattern) return false;
    }
    return true;
  }

 private:
  static constexpr size_t kMargin = 256;
  static constexpr unsigned char kPattern = 0xa5;
  size_t count_;
  size_t bytes_ = 0;
  unsigned char* base_ = nullptr;
  unsigned char* first_ = nullptr;
  unsigned char* limit_ = nullptr;
};

// Half of all arrays end exactly at the protected page, the others a few values before it: every alignment
// occurs.
inline size_t any_skew(Random& random) { return pick(random, 0, 1) == 0 ? 0 : pick(random, 1, 63); }

inline bool same_bits(float a, float b) { return std::memcmp(&a, &b, sizeof a) == 0; }

// Unit roundoff of float: one operation changes its exact result by at most this factor (or half a denormal
// step).
inline constexpr double kRoundoff = 0x1p-24;
inline constexpr double kDenormalStep = 0x1p-149;

}  // namespace tessera::kernel_cases
