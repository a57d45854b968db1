// The inside of the emulated machine, for the files that implement its instructions.
#pragma once

#include <array>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "backends/cuda/emulator/fiber.h"
#include "backends/cuda/emulator/machine.h"

namespace tessera::emulator {

inline constexpr uint32_t kGroupWarps = 4;  // of a warpgroup

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
  uint32_t pending = 0;  // arrivals that the current phase still lacks
  int64_t expected = 0;  // bytes that it still lacks; copies may begin before they are announced
  uint32_t phase = 0;    // phases that are complete
  uint16_t maker = 0;    // the thread that initialized it
  uint32_t made = 0;     // and when
  std::vector<BulkCopy> copies;
  Knowledge arriving;  // of those who arrived so far
  Knowledge complete;  // of those who arrived in complete phases
};

struct NamedBarrier {
  uint32_t threads = 0;
  std::vector<uint16_t> arrived;
};

// A product of a warpgroup as one thread has it: its result waits here until it was waited for.
struct Product {
  void* sums;                    // the thread's registers
  std::vector<uint32_t> values;  // their bits
  const uint32_t* operand;       // its registers of A
  std::array<uint32_t, 4> operand_was;
  const std::byte* lent;  // only in the thread that gives the bytes back
  size_t lent_bytes;
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
  uint32_t init_fence = 0;   // when it last made its mbarriers known to asynchronous copies
  uint32_t proxy_fence = 0;  // when it last ordered its accesses before those of asynchronous units
  size_t waits_for = 0;      // mbarrier or named barrier
  uint32_t waits_phase = 0;
  std::vector<Product> products;
  uint32_t batch = 0;  // of products, the open one
  bool registers_fenced = false;
  bool followed = false;  // by griddepcontrol_wait
};

struct Warp {
  uint32_t arrived = 0;
  uint32_t clock = 0;
  const char* operation = "";  // where the lanes that have arrived wait
};

struct Warpgroup {
  uint32_t arrived = 0;
  const char* operation = "";
};

struct Cancelled {};  // unwinds a thread whose block has failed

struct Machine {
  std::vector<std::unique_ptr<Thread>> threads;  // kept: their stacks are reused
  std::vector<Warp> warps;
  std::vector<Warpgroup> groups;
  std::deque<Thread*> ready;
  SharedMemory shared;
  std::vector<Mbarrier> mbarriers;
  std::array<NamedBarrier, 16> named;
  uint32_t count = 0;  // threads of a block
  uint32_t at_barrier = 0;
  uint32_t clock = 0;
  uint32_t block_clock = 0;
  uint32_t time = 1;
  bool failed = false;
  std::string fault;
  bool early = false;  // of the grid that runs
  Thread* current = nullptr;
  const std::function<void()>* body = nullptr;

  std::string run_block(const GridShape& shape, const Coordinates& block, bool backwards);
  std::string stuck() const;
  void fail(const std::string& line);
};

Machine& machine();
// The thread that runs; throws Fault outside kernels.
Thread& self();
Visitor visitor(const Thread& thread);
// Suspends the thread; throws Cancelled when its block has failed in the meantime.
void wait_until_ready(Thread& thread, State state);
void make_ready(Thread& thread);

}  // namespace tessera::emulator
