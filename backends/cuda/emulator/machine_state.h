// Internal state of the emulated machine, for the files that implement its instructions.
#pragma once

#include <array>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "backends/cuda/emulator/fiber.h"
#include "backends/cuda/emulator/machine.h"

namespace tessera::emulator {

inline constexpr uint32_t kGroupWarps = 4;  // warps of a warpgroup

struct AsyncCopy {
  void* to;
  std::array<std::byte, 16> bytes;
};

struct BulkCopy {
  std::byte* to;
  const std::byte* from;
  size_t bytes;
};

struct Mbarrier {
  size_t offset = 0;  // in shared memory
  uint32_t count = 0;
  uint32_t pending = 0;  // arrivals missing in the current phase
  int64_t expected = 0;  // bytes announced in the current phase; copies may begin before
  uint32_t phase = 0;    // phases that are complete
  uint16_t maker = 0;    // thread that initialized it
  uint32_t made = 0;     // time of the initialization
  std::vector<BulkCopy> copies;
  Knowledge arriving;  // of the threads that have arrived in the current phase
  Knowledge complete;  // of the threads that arrived in completed phases
};

struct NamedBarrier {
  uint32_t threads = 0;
  std::vector<uint16_t> arrived;
};

// One thread's part of a product of a warpgroup, whose result is kept here until wgmma_wait.
struct Product {
  void* sums;                    // the thread's registers
  std::vector<uint32_t> values;  // their bits
  const uint32_t* operand;       // the thread's registers of A
  std::array<uint32_t, 4> operand_was;
  const std::byte* tile;  // tile of B; only in the thread that returns it
  size_t tile_bytes;
  uint32_t batch;
};

enum class State : uint8_t { ready, at_warp, at_group, at_block, at_named, at_mbarrier, done };

struct Thread {
  Fiber fiber;
  Coordinates at;
  uint32_t warp = 0;
  State state = State::done;
  const void* operand = nullptr;
  void* result = nullptr;
  std::deque<std::vector<AsyncCopy>> groups;  // committed, oldest first
  std::vector<AsyncCopy> open;                // not yet committed
  Knowledge knowledge;
  uint32_t init_fence = 0;   // time of its last mbarrier_init_fence
  uint32_t proxy_fence = 0;  // time of its last proxy_fence
  size_t waits_for = 0;      // index of the mbarrier or named barrier
  uint32_t waits_phase = 0;
  std::vector<Product> products;
  uint32_t batch = 0;  // number of the open group of products
  bool registers_fenced = false;
  bool waited_for_grid = false;  // has called griddepcontrol_wait
};

struct Warp {
  uint32_t arrived = 0;
  uint32_t clock = 0;
  const char* operation = "";  // where the arrived lanes wait
};

struct Warpgroup {
  uint32_t arrived = 0;
  const char* operation = "";
};

struct Cancelled {};  // thrown to unwind the threads of a failed block

struct Machine {
  std::vector<std::unique_ptr<Thread>> threads;  // kept between blocks to reuse their stacks
  std::vector<Warp> warps;
  std::vector<Warpgroup> groups;
  std::deque<Thread*> ready;
  SharedMemory shared;
  std::vector<Mbarrier> mbarriers;
  std::array<NamedBarrier, 16> named;
  uint32_t count = 0;  // threads of the current block
  uint32_t at_barrier = 0;
  uint32_t clock = 0;
  uint32_t block_clock = 0;
  uint32_t time = 1;
  bool failed = false;
  std::string fault;
  bool early = false;  // GridShape::early of the current grid
  Thread* current = nullptr;
  const std::function<void()>* body = nullptr;

  std::string run_block(const GridShape& shape, const Coordinates& block, bool backwards);
  std::string describe_deadlock() const;
  void fail(const std::string& line);
};

Machine& machine();
// The running thread; throws Fault outside kernels.
Thread& current_thread();
Accessor accessor(const Thread& thread);
// Suspends the thread until make_ready(); throws Cancelled if its block has failed meanwhile.
void wait_until_ready(Thread& thread, State state);
void make_ready(Thread& thread);

}  // namespace tessera::emulator
