// The emulated machine: runs the threads of a kernel, block after block, each on a fiber, with real barriers
// and operations of whole warps. Whatever hardware forbids or leaves undefined ends the run with a Fault. To
// be used by one operating system thread at a time.
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
  // The kernel may begin before earlier ones end: before griddepcontrol_wait a thread may only read sealed
  // memory, and every thread must call it.
  bool early = false;
};

// The device that is emulated. Instructions that it does not have are faults.
struct DeviceKind {
  unsigned major = 9;
  unsigned minor = 0;
  uint32_t processors = 3;
  size_t shared_bytes = size_t{227} << 10;  // largest shared memory of a block
};
DeviceKind& device_kind();

// Calls body once for every thread of every block. Throws Fault, with block and thread, for the first error,
// after unwinding the threads. Every second block starts its threads in reverse order.
void run_grid(const GridShape& shape, const std::function<void()>& body);

// The functions below are for the running thread of a kernel.

struct Coordinates {
  uint32_t thread = 0;  // within its block
  uint32_t block_x = 0;
  uint32_t block_y = 0;
  uint32_t block_z = 0;
};
const Coordinates& coordinates();
uint32_t block_threads();
std::byte* shared_base();

void check_shared(const void* at, size_t bytes, Access access);
void block_barrier();
void warp_barrier();

// Asynchronous copies of 16 bytes: the source is read at once, bytes beyond `real` become zero; the copy
// lands when its thread waits for its group.
void begin_async_copy(void* shared, const void* global, size_t real);
void commit_async_copies();
void wait_async_copies(size_t groups_left);

namespace detail {
// Waits for all lanes of the warp. Returns true in the last one to arrive, which must compute the results and
// call release_lanes(); the others return false after that.
bool arrive(const char* operation, const void* operand, void* result);
void release_lanes();
const void* operand_of(uint32_t lane);
void* result_of(uint32_t lane);
// Checks a shared access on behalf of another lane of the warp.
void check_shared_for(uint32_t lane, const void* at, size_t bytes, Access access);
}  // namespace detail

// An operation of a whole warp, which all 32 lanes must call. combine(operands, results) gets pointers to
// those of all lanes.
template <class Result, class Operand, class Combine>
Result collective(const char* operation, const Operand& operand, const Combine& combine) {
  Result result{};
  if (detail::arrive(operation, &operand, &result)) {
    std::array<const Operand*, kWarpLanes> operands;
    std::array<Result*, kWarpLanes> results;
    for (uint32_t lane = 0; lane < kWarpLanes; ++lane) {
      operands[lane] = static_cast<const Operand*>(detail::operand_of(lane));
      results[lane] = static_cast<Result*>(detail::result_of(lane));
    }
    combine(operands, results);
    detail::release_lanes();
  }
  return result;
}

}  // namespace tessera::emulator
