// Where threads leave partial results when one query's attention over a long context is split over them. A
// unit is one KV head of one sequence; its chunks of keys are numbered in order. All layers share the memory,
// one layer at a time.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <vector>

#include "backends/cpu/reserved_memory.h"

namespace tessera::cpu {

class SplitAttention {
 public:
  // Grows the reservation to at least units x chunks results of `floats` floats each.
  void reserve_at_least(size_t units, size_t chunks, size_t floats);
  // Takes the memory once every layer has reserved; false when the system has none.
  bool allocate();

  // Before a run: a unit has this many chunks.
  void begin_unit(size_t unit, size_t chunks);
  // Called by the thread that finished a chunk. True for the last chunk of its unit: that thread sees the
  // results of all others. The unit is then ready for the next layer.
  bool finish_chunk(size_t unit);
  // The result of one chunk: as many floats as were reserved, aligned to a cache line.
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
