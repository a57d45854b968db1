#include "backends/cuda/emulator/emulated_async_copies.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "backends/cuda/emulator/machine_state.h"

namespace tessera::cuda {

namespace {

using emulator::Access;
using emulator::Fault;
using emulator::Mbarrier;
using emulator::State;
using emulator::Thread;

constexpr uint32_t kMostArrivals = (1u << 20) - 1;
constexpr uint64_t kEvictFirst = 0x12f0000000000000u;  // arbitrary, so that kernels cannot guess them
constexpr uint64_t kEvictNormal = 0x16f0000000000000u;

void require_bulk_copies(const char* what) {
  if (emulator::device_kind().major < 9)
    throw Fault(fmt::format("{}: the device has compute capability {}.{}", what,
                            emulator::device_kind().major, emulator::device_kind().minor));
}

// Index of the mbarrier at an address. Throws Fault if none was initialized there, or the thread does not yet
// see the initialization.
size_t find(const std::byte* at) {
  auto& m = emulator::machine();
  emulator::check_shared(at, 8, Access::read);
  const size_t offset = m.shared.offset(at);
  for (size_t i = 0; i < m.mbarriers.size(); ++i) {
    if (m.mbarriers[i].offset == offset) return i;
  }
  throw Fault(fmt::format("no mbarrier was initialized at shared byte {}", offset));
}

void observe(Thread& thread, size_t index) {
  const Mbarrier& barrier = emulator::machine().mbarriers[index];
  auto& knows = thread.knowledge;
  knows.learn(barrier.complete);
  if (knows.observed.size() <= index) knows.observed.resize(index + 1, 0);
  knows.observed[index] = barrier.phase;
}

bool is_awaited(size_t index) {
  const auto& m = emulator::machine();
  for (uint32_t i = 0; i < m.count; ++i) {
    if (m.threads[i]->state == State::at_mbarrier && m.threads[i]->waits_for == index) return true;
  }
  return false;
}

// Completes the current phase if no arrival and no bytes are missing: its copies land and its waiting threads
// become ready. Unless `now`, only if a thread is waiting, so that copies land as late as possible.
void advance(size_t index, bool now) {
  auto& m = emulator::machine();
  if (!now && !is_awaited(index)) return;
  Mbarrier& barrier = m.mbarriers[index];
  int64_t begun = 0;
  for (const emulator::BulkCopy& copy : barrier.copies) begun += static_cast<int64_t>(copy.bytes);
  if (barrier.pending > 0 || barrier.expected != begun) return;
  for (const emulator::BulkCopy& copy : barrier.copies) {
    emulator::check_global(copy.from, 1, Access::read);  // the buffer may have been freed
    std::memcpy(copy.to, copy.from, copy.bytes);
    m.shared.end_bulk_copy(copy.to, copy.bytes, emulator::accessor(emulator::current_thread()), index,
                           barrier.phase);
  }
  barrier.copies.clear();
  barrier.expected = 0;
  barrier.pending = barrier.count;
  ++barrier.phase;
  barrier.complete.learn(barrier.arriving);
  for (uint32_t i = 0; i < m.count; ++i) {
    Thread& thread = *m.threads[i];
    if (thread.state != State::at_mbarrier || thread.waits_for != index) continue;
    observe(thread, index);
    emulator::make_ready(thread);
  }
}

void arrive(std::byte* at, uint32_t bytes) {
  auto& m = emulator::machine();
  Thread& thread = emulator::current_thread();
  const size_t index = find(at);
  Mbarrier& barrier = m.mbarriers[index];
  barrier.expected += bytes;
  if (barrier.pending == 0) advance(index, true);
  if (barrier.pending == 0)
    throw Fault(fmt::format("more arrivals at the mbarrier at {} than expected", barrier.offset));
  --barrier.pending;
  thread.knowledge.seen[thread.warp] = ++m.time;
  barrier.arriving.learn(thread.knowledge);
  advance(index, false);
}

void check_policy(uint64_t policy) {
  if (policy != kEvictFirst && policy != kEvictNormal) throw Fault("a cache policy that no instruction made");
}

}  // namespace

uint32_t shared_address(const std::byte* at) {
  return static_cast<uint32_t>(emulator::machine().shared.offset(at));
}

void mbarrier_init(std::byte* barrier, uint32_t arrivals) {
  require_bulk_copies("mbarrier");
  auto& m = emulator::machine();
  emulator::check_shared(barrier, 8, Access::write);
  if (arrivals == 0 || arrivals > kMostArrivals)
    throw Fault(fmt::format("an mbarrier for {} arrivals", arrivals));
  const size_t offset = m.shared.offset(barrier);
  for (const Mbarrier& other : m.mbarriers) {
    if (other.offset == offset) throw Fault(fmt::format("a second mbarrier at shared byte {}", offset));
  }
  Mbarrier made;
  made.offset = offset;
  made.count = made.pending = arrivals;
  made.maker = static_cast<uint16_t>(emulator::current_thread().at.thread);
  made.made = m.time++;
  m.mbarriers.push_back(made);
}

void griddepcontrol_launch_dependents() {}  // blocks run one after another

void griddepcontrol_wait() { emulator::current_thread().waited_for_grid = true; }

void mbarrier_init_fence() { emulator::current_thread().init_fence = emulator::machine().time; }

void mbarrier_arrive(std::byte* barrier) { arrive(barrier, 0); }

void mbarrier_arrive_expect(std::byte* barrier, uint32_t bytes) { arrive(barrier, bytes); }

void mbarrier_wait(std::byte* barrier, uint32_t parity) {
  auto& m = emulator::machine();
  Thread& thread = emulator::current_thread();
  const size_t index = find(barrier);
  advance(index, true);
  if (m.mbarriers[index].phase % 2 != parity % 2) {
    observe(thread, index);
    return;
  }
  thread.waits_for = index;
  emulator::wait_until_ready(thread, State::at_mbarrier);
}

uint64_t evict_first_policy() { return kEvictFirst; }
uint64_t evict_normal_policy() { return kEvictNormal; }

void bulk_copy(std::byte* shared, const std::byte* global, uint32_t bytes, std::byte* barrier,
               uint64_t policy) {
  require_bulk_copies("bulk copy");
  auto& m = emulator::machine();
  Thread& thread = emulator::current_thread();
  check_policy(policy);
  if (bytes == 0 || bytes % 16 != 0)
    throw Fault(fmt::format("a bulk copy of {} bytes: expected a multiple of 16", bytes));
  if (reinterpret_cast<uintptr_t>(global) % 16 != 0 || m.shared.offset(shared) % 16 != 0)
    throw Fault("a bulk copy between addresses that are no multiples of 16");
  emulator::check_copy(global, bytes);
  emulator::check_early_access(global, Access::read);
  const size_t index = find(barrier);
  const Mbarrier& found = m.mbarriers[index];
  if (m.threads[found.maker]->init_fence <= found.made)
    throw Fault("a bulk copy to an mbarrier whose initialization was not followed by its fence");
  m.shared.begin_copy(shared, bytes, emulator::accessor(thread), thread.knowledge);
  m.mbarriers[index].copies.push_back({shared, global, bytes});
  advance(index, false);
}

void cp_async_16_hinted(std::byte* shared, const std::byte* global, uint64_t policy) {
  check_policy(policy);
  emulator::begin_async_copy(shared, global, 16);
}

void proxy_fence() { emulator::current_thread().proxy_fence = ++emulator::machine().time; }

void named_barrier(uint32_t id, uint32_t threads) {
  auto& m = emulator::machine();
  Thread& thread = emulator::current_thread();
  if (id == 0 || id >= m.named.size() || threads == 0 || threads % emulator::kWarpLanes != 0)
    throw Fault(fmt::format("named barrier {} of {} threads", id, threads));
  emulator::NamedBarrier& barrier = m.named[id];
  if (!barrier.arrived.empty() && barrier.threads != threads)
    throw Fault(fmt::format("named barrier {}: {} threads here, {} elsewhere", id, threads, barrier.threads));
  barrier.threads = threads;
  barrier.arrived.push_back(static_cast<uint16_t>(thread.at.thread));
  if (barrier.arrived.size() < threads) {
    thread.waits_for = id;
    emulator::wait_until_ready(thread, State::at_named);
    return;
  }
  ++m.time;
  emulator::Knowledge together;
  for (const uint16_t i : barrier.arrived) {
    together.learn(m.threads[i]->knowledge);
    together.seen[m.threads[i]->warp] = m.time;
  }
  for (const uint16_t i : barrier.arrived) {
    m.threads[i]->knowledge = together;
    if (i != thread.at.thread) emulator::make_ready(*m.threads[i]);
  }
  barrier.arrived.clear();
}

void store_release(uint32_t* at, uint32_t value) {
  emulator::check_global(at, sizeof *at, Access::write);
  *at = value;
}

// Blocks run one after another, so a flag that is not set yet will never be.
uint32_t load_acquire(const uint32_t* at) {
  emulator::check_global(at, sizeof *at, Access::read);
  static const uint32_t* last = nullptr;
  static uint32_t polls = 0;
  polls = last == at && *at == 0 ? polls + 1 : 0;
  last = at;
  if (polls > 1000) throw Fault("waits for a block that has not run yet");
  return *at;
}

}  // namespace tessera::cuda
