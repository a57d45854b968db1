// The emulated machine: runs a kernel's threads, block after block, one fiber each, with real barriers and
// operations that a whole warp takes part in. Whatever hardware forbids or leaves undefined ends the run with
// a Fault. One operating system thread at a time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "backends/cuda/emulator/memory.h"

namespace tessera::emulator {

inline constexpr uint32_t kWarpLanes = 32;

struct GridShape {
  uint32_t grid_x = 1;
  uint32_t grid_y = 1;
  uint32_t grid_z = 1;
  uint32_t threads = kWarpLanes;  // of a block: a multiple of 32, at most 1024
  size_t shared_bytes = 0;        // at most what the device kind has
  // Begins before the kernels before it end: until a thread has waited for them it may only read what is
  // sealed, and it must have waited in the end.
  bool early = false;
};

// What the emulator pretends to be. Instructions that such a device does not have are faults.
struct DeviceKind {
  unsigned major = 9;
  unsigned minor = 0;
  uint32_t processors = 3;
  size_t shared_bytes = size_t{227} << 10;  // that a block may have
};
DeviceKind& device_kind();

// Calls body once for every thread of every block. Throws Fault, with the block and thread, for the first
// thing that is wrong; the threads are unwound before. Which thread begins changes from block to block.
void run_grid(const GridShape& shape, const std::function<void()>& body);

// What follows is for the thread that runs.

struct Coordinates {
  uint32_t thread = 0;  // within its block
  uint32_t block_x = 0;
  uint32_t block_y = 0;
  uint32_t block_z = 0;
};
const Coordinates& here();
uint32_t block_threads();
std::byte* shared_base();

void check_shared(const void* at, size_t bytes, Access access);
void block_barrier();
void warp_barrier();

// Asynchronous copies of 16 bytes: source is read at once, bytes beyond `real` become zero; the copy lands
// when its thread waits for the group that it was committed to.
void begin_async_copy(void* shared, const void* global, size_t real);
void commit_async_copies();
void wait_async_copies(size_t groups_left);

namespace detail {
// True for the lane that arrives last; it must combine and then call depart. The others return once it did.
bool meet(const char* operation, const void* operand, void* result);
void depart();
const void* operand_of(uint32_t lane);
void* result_of(uint32_t lane);
// Attributes a shared access of the last lane to another one.
void check_shared_for(uint32_t lane, const void* at, size_t bytes, Access access);
}  // namespace detail

// An operation of the whole warp: all 32 lanes must arrive at the same one. combine gets all operands and
// results, by lane.
template <class Result, class Operand, class Combine>
Result collective(const char* operation, const Operand& operand, const Combine& combine) {
  Result result{};
  if (detail::meet(operation, &operand, &result)) {
    std::array<const Operand*, kWarpLanes> operands;
    std::array<Result*, kWarpLanes> results;
    for (uint32_t lane = 0; lane < kWarpLanes; ++lane) {
      operands[lane] = static_cast<const Operand*>(detail::operand_of(lane));
      results[lane] = static_cast<Result*>(detail::result_of(lane));
    }
    combine(operands, results);
    detail::depart();
  }
  return result;
}

}  // namespace tessera::emulator
