#include "backends/cuda/emulator/machine.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "backends/cuda/emulator/machine_state.h"

namespace tessera::emulator {

namespace {

constexpr uint32_t kMostThreads = 1024;

Machine only;

}  // namespace

Machine& machine() { return only; }

DeviceKind& device_kind() {
  static DeviceKind kind;
  return kind;
}

Thread& current_thread() {
  Thread* thread = machine().current;
  if (thread == nullptr) throw Fault("a device function was called outside a kernel");
  return *thread;
}

Accessor accessor(const Thread& thread) {
  const Machine& m = machine();
  return {static_cast<uint16_t>(thread.at.thread), static_cast<uint16_t>(thread.warp), m.block_clock,
          m.warps[thread.warp].clock, m.time};
}

void wait_until_ready(Thread& thread, State state) {
  Machine& m = machine();
  thread.state = state;
  Fiber::suspend();
  if (m.failed) throw Cancelled{};
}

void make_ready(Thread& thread) {
  thread.state = State::ready;
  machine().ready.push_back(&thread);
}

void Machine::fail(const std::string& line) {
  if (failed) return;
  failed = true;
  fault = line;
}

namespace {

void thread_entry(void* argument) {
  Machine& m = machine();
  auto& thread = *static_cast<Thread*>(argument);
  const auto where = [&] {
    return fmt::format("block ({}, {}, {}), thread {}: ", thread.at.block_x, thread.at.block_y,
                       thread.at.block_z, thread.at.thread);
  };
  try {
    (*m.body)();
    if (m.early && !thread.waited_for_grid)
      throw Fault("a kernel that begins early ends without griddepcontrol_wait");
  } catch (const Cancelled&) {
  } catch (const std::exception& error) {
    m.fail(where() + error.what());
  }
  thread.state = State::done;
}

}  // namespace

// Describes a deadlock: where every thread waits.
std::string Machine::describe_deadlock() const {
  std::string line = "threads wait for each other:";
  uint32_t done = 0;
  uint32_t block = 0;
  for (uint32_t i = 0; i < count; ++i) {
    done += threads[i]->state == State::done ? 1 : 0;
    block += threads[i]->state == State::at_block ? 1 : 0;
  }
  for (uint32_t w = 0; w < count / kWarpLanes; ++w) {
    if (warps[w].arrived == 0) continue;
    line += fmt::format(" lanes {:#x} of warp {} at {},", warps[w].arrived, w, warps[w].operation);
  }
  for (size_t g = 0; g < groups.size(); ++g) {
    if (groups[g].arrived == 0) continue;
    line += fmt::format(" {} threads of warpgroup {} at {},", groups[g].arrived, g, groups[g].operation);
  }
  for (uint32_t i = 0; i < count; ++i) {
    const Thread& thread = *threads[i];
    if (thread.state == State::at_named)
      line += fmt::format(" thread {} at named barrier {},", i, thread.waits_for);
    if (thread.state != State::at_mbarrier) continue;
    const Mbarrier& barrier = mbarriers[thread.waits_for];
    line += fmt::format(" thread {} at the mbarrier at {} ({} arrivals and {} bytes missing),", i,
                        barrier.offset, barrier.pending, barrier.expected);
    break;  // one thread is enough
  }
  return line + fmt::format(" {} at the block's barrier, {} have left the kernel", block, done);
}

std::string Machine::run_block(const GridShape& shape, const Coordinates& block, bool backwards) {
  count = shape.threads;
  while (threads.size() < count) threads.push_back(std::make_unique<Thread>());
  shared.reset(shape.shared_bytes);
  block_clock = ++clock;
  warps.assign(count / kWarpLanes, Warp{0, clock, ""});
  groups.assign(count / kWarpLanes / kGroupWarps, Warpgroup{});
  mbarriers.clear();
  named.fill({});
  at_barrier = 0;
  failed = false;
  fault.clear();
  ready.clear();
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t index = backwards ? count - 1 - i : i;
    Thread& thread = *threads[index];
    thread.at = block;
    thread.at.thread = index;
    thread.warp = index / kWarpLanes;
    thread.groups.clear();
    thread.open.clear();
    thread.knowledge = {};
    thread.init_fence = thread.proxy_fence = 0;
    thread.products.clear();
    thread.batch = 0;
    thread.registers_fenced = false;
    thread.waited_for_grid = false;
    thread.fiber.start(&thread_entry, &thread);
    make_ready(thread);
  }
  uint32_t finished = 0;
  while (finished < count) {
    if (ready.empty()) fail(describe_deadlock());
    if (failed) break;
    current = ready.front();
    ready.pop_front();
    current->fiber.resume();
    finished += current->fiber.finished() ? 1 : 0;
    current = nullptr;
  }
  // Unwinds the remaining threads, including those that never ran.
  static const std::function<void()> nothing = [] {};
  body = failed ? &nothing : body;
  for (uint32_t i = 0; i < count; ++i) {
    current = threads[i].get();
    while (!current->fiber.finished()) current->fiber.resume();
  }
  current = nullptr;
  return fault;
}

namespace {

void check_shape(const GridShape& shape) {
  if (shape.threads == 0 || shape.threads > kMostThreads || shape.threads % kWarpLanes != 0)
    throw Fault(fmt::format("a block of {} threads: expected a multiple of 32 up to {}", shape.threads,
                            kMostThreads));
  const size_t most = device_kind().shared_bytes;
  if (shape.shared_bytes > most)
    throw Fault(fmt::format("{} bytes of shared memory: at most {}", shape.shared_bytes, most));
  if (shape.grid_x == 0 || shape.grid_x > 0x7fffffffu || shape.grid_y == 0 || shape.grid_y > 65535 ||
      shape.grid_z == 0 || shape.grid_z > 65535)
    throw Fault(fmt::format("a grid of {} x {} x {} blocks", shape.grid_x, shape.grid_y, shape.grid_z));
}

}  // namespace

void run_grid(const GridShape& shape, const std::function<void()>& body) {
  check_shape(shape);
  Machine& m = machine();
  if (m.current != nullptr) throw Fault("a kernel launched from a kernel");
  bool backwards = false;
  m.early = shape.early;
  for (uint32_t z = 0; z < shape.grid_z; ++z) {
    for (uint32_t y = 0; y < shape.grid_y; ++y) {
      for (uint32_t x = 0; x < shape.grid_x; ++x) {
        m.body = &body;
        const std::string fault = m.run_block(shape, {0, x, y, z}, backwards);
        if (!fault.empty()) throw Fault(fault);
        backwards = !backwards;
      }
    }
  }
}

const Coordinates& coordinates() { return current_thread().at; }
uint32_t block_threads() { return machine().count; }
std::byte* shared_base() { return machine().shared.base(); }

void check_early_access(const void* at, Access access) {
  const Machine& m = machine();
  if (!m.early || m.current == nullptr || m.current->waited_for_grid) return;
  if (access == Access::write || !is_sealed(at))
    throw Fault(fmt::format("global {} before griddepcontrol_wait: earlier kernels may not have ended",
                            access == Access::read ? "read" : "write"));
}

void check_shared(const void* at, size_t bytes, Access access) {
  machine().shared.check(at, bytes, access, accessor(current_thread()), current_thread().knowledge);
}

void block_barrier() {
  Machine& m = machine();
  Thread& thread = current_thread();
  if (++m.at_barrier < m.count) {
    wait_until_ready(thread, State::at_block);
    return;
  }
  m.at_barrier = 0;
  m.block_clock = ++m.clock;
  for (Warp& warp : m.warps) warp.clock = m.clock;
  for (uint32_t i = 0; i < m.count; ++i) {
    if (m.threads[i].get() != &thread) make_ready(*m.threads[i]);
  }
}

void warp_barrier() {
  collective<char>("warp_barrier", 0, [](const auto&, const auto&) {
    Machine& m = machine();
    const uint32_t warp = current_thread().warp;
    m.warps[warp].clock = ++m.clock;
    if (m.mbarriers.empty()) return;
    Knowledge together;
    for (uint32_t lane = 0; lane < kWarpLanes; ++lane)
      together.learn(m.threads[warp * kWarpLanes + lane]->knowledge);
    for (uint32_t lane = 0; lane < kWarpLanes; ++lane)
      m.threads[warp * kWarpLanes + lane]->knowledge = together;
  });
}

void begin_async_copy(void* shared, const void* global, size_t real) {
  Thread& thread = current_thread();
  AsyncCopy copy{shared, {}};
  if (real > 0) {
    check_global(global, 16, Access::read);
    std::memcpy(copy.bytes.data(), global, real);
  }
  machine().shared.begin_copy(shared, copy.bytes.size(), accessor(thread), thread.knowledge);
  thread.open.push_back(copy);
}

void commit_async_copies() {
  Thread& thread = current_thread();
  thread.groups.push_back(std::move(thread.open));
  thread.open.clear();
}

void wait_async_copies(size_t groups_left) {
  Thread& thread = current_thread();
  while (thread.groups.size() > groups_left) {
    for (const AsyncCopy& copy : thread.groups.front()) {
      std::memcpy(copy.to, copy.bytes.data(), copy.bytes.size());
      machine().shared.end_copy(copy.to, copy.bytes.size(), accessor(thread));
    }
    thread.groups.pop_front();
  }
}

namespace detail {

bool arrive(const char* operation, const void* operand, void* result) {
  Machine& m = machine();
  Thread& thread = current_thread();
  Warp& warp = m.warps[thread.warp];
  const uint32_t lane = thread.at.thread % kWarpLanes;
  if (warp.arrived != 0 && warp.operation != operation && std::strcmp(warp.operation, operation) != 0)
    throw Fault(
        fmt::format("lane {} is at {} while others of its warp wait at {}", lane, operation, warp.operation));
  warp.operation = operation;
  thread.operand = operand;
  thread.result = result;
  warp.arrived |= 1u << lane;
  if (warp.arrived == 0xffffffffu) return true;
  wait_until_ready(thread, State::at_warp);
  return false;
}

void release_lanes() {
  Machine& m = machine();
  Thread& thread = current_thread();
  m.warps[thread.warp].arrived = 0;
  for (uint32_t lane = 0; lane < kWarpLanes; ++lane) {
    Thread& other = *m.threads[thread.warp * kWarpLanes + lane];
    if (&other != &thread) make_ready(other);
  }
}

const void* operand_of(uint32_t lane) {
  return machine().threads[current_thread().warp * kWarpLanes + lane]->operand;
}

void* result_of(uint32_t lane) {
  return machine().threads[current_thread().warp * kWarpLanes + lane]->result;
}

void check_shared_for(uint32_t lane, const void* at, size_t bytes, Access access) {
  Machine& m = machine();
  const Thread& thread = *m.threads[current_thread().warp * kWarpLanes + lane];
  m.shared.check(at, bytes, access, accessor(thread), thread.knowledge);
}

}  // namespace detail

}  // namespace tessera::emulator
