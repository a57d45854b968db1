// Where threads leave their parts of one query's attention when a long context is split over them. A unit is
// one sequence's KV head; its chunks are numbered in order. One layer uses it at a time.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <vector>

#include "backends/cpu/reserved_memory.h"

namespace tessera::cpu {

class SplitAttention {
 public:
  // Room for so many units of so many chunks of so many floats; the largest wish of each counts.
  void want(size_t units, size_t chunks, size_t floats);
  bool allocate();  // after all wishes; false when the system has no memory

  void expect(size_t unit, size_t chunks);  // before a run
  // Called when a chunk is done: true for the last of its unit, which then sees what the others wrote. The
  // unit starts anew for the next layer.
  bool last(size_t unit);
  float* at(size_t unit, size_t chunk) const {
    return reinterpret_cast<float*>(memory_.base()) + (unit * chunks_ + chunk) * floats_;
  }

 private:
  struct alignas(64) Unit {
    std::atomic<size_t> left{0};
    size_t chunks = 0;
  };
  size_t units_ = 0;
  size_t chunks_ = 0;
  size_t floats_ = 0;
  std::unique_ptr<Unit[]> counts_;
  ReservedMemory memory_;
};

}  // namespace tessera::cpu
