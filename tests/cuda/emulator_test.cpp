// The emulator itself: fibers, barriers and warps work, and each kind of mistake is caught.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <iostream>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "backends/cuda/device/device.h"
#include "backends/cuda/device/launch.h"
#include "backends/cuda/emulator/fiber.h"

using namespace tessera;
using namespace tessera::cuda;

namespace {

// The message of the fault that a kernel ends with; empty if there is none.
std::string fault_of(const emulator::GridShape& shape, const std::function<void()>& body) {
  try {
    emulator::run_grid(shape, body);
  } catch (const emulator::Fault& fault) {
    return fault.what();
  }
  return {};
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

struct Counter {
  int value = 0;
};

}  // namespace

TEST_CASE("a fiber goes on where it stopped") {
  struct Steps {
    std::vector<int> seen;
  } steps;
  emulator::Fiber fiber;
  fiber.start(
      [](void* argument) {
        auto& seen = static_cast<Steps*>(argument)->seen;
        double kept = 0.5;  // lives on the fiber's stack across the switches
        for (int i = 0; i < 3; ++i) {
          seen.push_back(static_cast<int>(kept * 2) + 10 * i);
          kept += 1;
          emulator::Fiber::suspend();
        }
      },
      &steps);
  int resumed = 0;
  while (!fiber.finished()) {
    fiber.resume();
    ++resumed;
  }
  CHECK(resumed == 4);
  CHECK(steps.seen == std::vector<int>{1, 13, 25});
}

TEST_CASE("every thread of every block runs once, with its coordinates") {
  std::vector<int> visits(3 * 2 * 4 * 96, 0);
  emulator::run_grid({3, 2, 4, 96, 0}, [&] {
    const size_t block = (block_z() * 2 + block_y()) * 3 + block_x();
    CHECK(lane_index() == thread_index() % 32);
    CHECK(warp_index() == thread_index() / 32);
    ++visits[block * 96 + thread_index()];
  });
  CHECK(std::all_of(visits.begin(), visits.end(), [](int n) { return n == 1; }));
}

TEST_CASE("a sum over a block through shared memory, warps and barriers") {
  const uint32_t seed = std::random_device{}();
  std::cout << "block sum: seed " << seed << "\n";
  std::mt19937 random(seed);
  for (const uint32_t threads : {32u, 64u, 256u, 1024u}) {
    std::vector<uint32_t> values(threads);
    for (uint32_t& value : values) value = static_cast<uint32_t>(random());
    const uint32_t expected = std::accumulate(values.begin(), values.end(), 0u);
    std::vector<uint32_t> results(threads, 0);
    emulator::run_grid({5, 1, 1, threads, 128}, [&] {
      uint32_t sum = values[thread_index()];
      for (uint32_t mask = 16; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask);
      const Shared<uint32_t> sums(shared_memory());
      if (lane_index() == 0) sums.store(warp_index(), sum);
      block_barrier();
      uint32_t total = 0;
      for (uint32_t w = 0; w < block_size() / 32; ++w) total += sums[w];
      results[thread_index()] = total;
    });
    CHECK(std::all_of(results.begin(), results.end(), [&](uint32_t r) { return r == expected; }));
  }
}

TEST_CASE("an exception in a kernel unwinds every thread and names the first") {
  Counter alive;
  struct Guard {
    Counter& counter;
    explicit Guard(Counter& c) : counter(c) { ++counter.value; }
    ~Guard() { --counter.value; }
  };
  const std::string line = fault_of({2, 1, 1, 64, 0}, [&] {
    const Guard guard(alive);
    if (block_x() == 1 && thread_index() == 37) throw std::runtime_error("seven");
    block_barrier();
  });
  CHECK(contains(line, "block (1, 0, 0), thread 37: seven"));
  CHECK(alive.value == 0);
  CHECK(fault_of({2, 1, 1, 64, 0}, [] { block_barrier(); }).empty());  // the next kernel is not affected
}

TEST_CASE("threads that do not come to a barrier are reported") {
  CHECK(contains(fault_of({1, 1, 1, 64, 0},
                          [] {
                            if (thread_index() != 5) block_barrier();
                          }),
                 "63 at the block's barrier, 1 have left"));
  CHECK(contains(fault_of({1, 1, 1, 64, 0},
                          [] {
                            if (warp_index() == 1 && lane_index() >= 4) return;
                            shuffle_xor(1, 1);
                          }),
                 "lanes 0xf of warp 1 at shuffle_xor"));
}

TEST_CASE("lanes that disagree about an operation are reported") {
  CHECK(contains(fault_of({1, 1, 1, 32, 0},
                          [] {
                            if (lane_index() % 2 == 0) {
                              shuffle_xor(1, 1);
                            } else {
                              shuffle_from(1, 1);
                            }
                          }),
                 "wait at shuffle_"));
  CHECK(contains(fault_of({1, 1, 1, 32, 0}, [] { shuffle_xor(1, 1 + lane_index() / 31); }), "has mask"));
  CHECK(contains(fault_of({1, 1, 1, 32, 0}, [] { shuffle_from(1, 32); }), "asks for lane 32"));
}

TEST_CASE("shared memory: ranges, alignment, garbage and races") {
  const emulator::GridShape shape{1, 1, 1, 64, 256};
  CHECK(contains(fault_of(shape, [] { Shared<uint32_t>(shared_memory()).store(64, 1); }), "out of range"));
  CHECK(contains(fault_of(shape, [] { Shared<uint32_t>(shared_memory() - 4).store(0, 1); }), "out of range"));
  CHECK(contains(fault_of(shape, [] { Shared<uint32_t>(shared_memory() + 2).store(0, 1); }), "no multiple"));
  CHECK(contains(fault_of(shape, [] { (void)Shared<uint32_t>(shared_memory())[thread_index()]; }),
                 "nobody wrote"));
  const auto exchange = [](int barrier) {
    const Shared<uint32_t> slots(shared_memory());
    slots.store(thread_index(), thread_index());
    if (barrier == 1) warp_barrier();
    if (barrier == 2) block_barrier();
    const uint32_t partner = barrier == 1 ? thread_index() ^ 1 : 63 - thread_index();
    return slots[partner];
  };
  CHECK(contains(fault_of(shape, [&] { exchange(0); }), "nobody wrote"));  // thread 63 has not written yet
  CHECK(fault_of(shape, [&] { exchange(1); }).empty());
  CHECK(fault_of(shape, [&] { exchange(2); }).empty());
  // Across warps a warp's barrier is not enough.
  CHECK(contains(fault_of(shape,
                          [] {
                            const Shared<uint32_t> slots(shared_memory());
                            if (warp_index() == 0) slots.store(lane_index(), 7);
                            warp_barrier();
                            if (warp_index() == 1) (void)slots[lane_index()];
                          }),
                 "no barrier in between"));
  // Two threads write one byte; one overwrites what another has read.
  CHECK(contains(fault_of(shape, [] { Shared<uint32_t>(shared_memory()).store(thread_index() / 2, 1); }),
                 "overwrites what thread"));
  CHECK(contains(fault_of(shape,
                          [] {
                            const Shared<uint32_t> slots(shared_memory());
                            slots.store(thread_index(), 1);
                            block_barrier();
                            (void)slots[0];
                            if (thread_index() == 1) slots.store(0, 2);
                          }),
                 "overwrites what"));
  // Accesses to neighbouring bytes are no race.
  CHECK(fault_of(shape, [] { Shared<uint8_t>(shared_memory()).store(thread_index(), 1); }).empty());
}

TEST_CASE("global memory: only registered buffers, whole and aligned") {
  auto memory = DeviceMemory::allocate(100);
  REQUIRE(memory.ok());
  const Global<uint32_t> words = memory.value().view<uint32_t>();
  const emulator::GridShape shape{1, 1, 1, 32, 0};
  CHECK(fault_of(shape, [&] {
          if (thread_index() < 25) words.store(thread_index(), 1);
        }).empty());
  CHECK(contains(fault_of(shape, [&] { words.store(thread_index(), 1); }),
                 "thread 25: global write of 4 bytes out of range: 100 bytes into"));
  CHECK(contains(fault_of(shape, [&] { (void)words.as<Words4>()[6]; }), "out of range"));
  CHECK(contains(fault_of(shape, [&] { (void)words.as<uint32_t>(2)[0]; }), "no multiple"));
  CHECK(contains(fault_of(shape, [&] { (void)words.as<Words4>(8)[0]; }), "no multiple"));
  std::vector<uint32_t> elsewhere(32);
  CHECK(contains(fault_of(shape, [&] { Global<uint32_t>(elsewhere.data()).store(thread_index(), 1); }),
                 "out of range"));
}

TEST_CASE("a kernel that begins early reads nothing but sealed memory before it waits") {
  auto weights_memory = DeviceMemory::allocate(64);
  auto inputs_memory = DeviceMemory::allocate(64);
  REQUIRE(weights_memory.ok());
  REQUIRE(inputs_memory.ok());
  std::memset(weights_memory.value().address(), 0, 64);
  weights_memory.value().seal();
  const auto weights = weights_memory.value().view<uint32_t>();
  const auto inputs = inputs_memory.value().view<uint32_t>();
  const emulator::GridShape early{1, 1, 1, 32, 1024, true};
  CHECK(fault_of(early, [&] {
          const uint32_t weight = weights[0];
          cp_async_16(shared_memory() + 16 * lane_index(), weights.as<std::byte>().address());
          cp_async_commit();
          wait_for_earlier_kernels();
          cp_async_wait<0>();
          if (lane_index() == 0) inputs.store(0, weight + inputs[1]);
        }) == "");
  const std::vector<std::function<void()>> too_early = {
      [&] { inputs[0]; }, [&] { inputs.store(lane_index() % 16, 0); },
      [&] { cp_async_16(shared_memory() + 16 * lane_index(), inputs.as<std::byte>().address()); },
      [&] {
        if (lane_index() != 0) return;
        mbarrier_init(shared_memory(), 1);
        mbarrier_init_fence();
        bulk_copy(shared_memory() + 16, inputs.as<std::byte>().address(), 16, shared_memory(),
                  evict_first_policy());
      },
      [&] { store_release(inputs.address(), 1); }};
  for (const auto& act : too_early) {
    CHECK(contains(fault_of(early,
                            [&] {
                              act();
                              griddepcontrol_wait();
                            }),
                   "before griddepcontrol_wait"));
  }
  CHECK(contains(fault_of(early,
                          [&] {
                            if (lane_index() != 7) griddepcontrol_wait();
                          }),
                 "thread 7: a kernel that begins early ends without griddepcontrol_wait"));
  CHECK(contains(fault_of({}, [&] { weights.store(0, 1); }), "write to memory that is sealed"));
  auto queue = Queue::create();
  REQUIRE(queue.ok());
  queue.value()->fill(weights.as<std::byte>().address(), 0, 4);
  CHECK(contains(queue.value()->finish().error(), "sealed"));
}

TEST_CASE("an asynchronous copy lands when it was waited for, and not before") {
  auto memory = DeviceMemory::allocate(1024);
  REQUIRE(memory.ok());
  std::vector<std::byte> content(1024, std::byte{0x11});
  auto queue = Queue::create();
  REQUIRE(queue.ok());
  queue.value()->upload(memory.value().address(), content);
  const std::byte* global = memory.value().address();
  const emulator::GridShape shape{1, 1, 1, 32, 1024};
  const auto copy = [&](uint32_t group) {
    cp_async_16(shared_memory() + 512 * group + 16 * thread_index(), global + 16 * thread_index());
    cp_async_commit();
  };
  const auto own = [](uint32_t group) {
    return Shared<uint32_t>(shared_memory() + 512 * group + 16 * thread_index())[0];
  };
  CHECK(contains(fault_of(shape,
                          [&] {
                            copy(0);
                            (void)own(0);
                          }),
                 "on its way"));
  CHECK(contains(fault_of(shape,
                          [&] {
                            copy(0);
                            copy(1);
                            cp_async_wait<1>();
                            (void)own(1);
                          }),
                 "on its way"));
  CHECK(contains(fault_of(shape,
                          [&] {
                            copy(0);
                            cp_async_wait<1>();
                            (void)own(0);
                          }),
                 "on its way"));
  std::vector<uint32_t> seen(64);
  CHECK(fault_of(shape, [&] {
          copy(0);
          copy(1);
          cp_async_wait<1>();
          seen[thread_index()] = own(0);
          cp_async_wait<0>();
          seen[32 + thread_index()] = own(1);
        }).empty());
  CHECK(std::all_of(seen.begin(), seen.end(), [](uint32_t w) { return w == 0x11111111u; }));
  // Another thread's copy needs a barrier as well.
  CHECK(contains(fault_of(shape,
                          [&] {
                            copy(0);
                            cp_async_wait<0>();
                            shuffle_xor(0, 1);  // all copies have landed, but no barrier says so
                            (void)Shared<uint32_t>(shared_memory() + 16 * (thread_index() ^ 1))[0];
                          }),
                 "no barrier in between"));
  CHECK(contains(fault_of(shape, [&] { cp_async_16(shared_memory() + 8, global); }), "no multiple"));
  CHECK(contains(fault_of(shape, [&] { cp_async_16(shared_memory(), global + 1020); }), "out of range"));
}

namespace {

// A registered buffer of `bytes` bytes of 0x11, and a cache policy.
struct Source {
  DeviceMemory memory;
  explicit Source(size_t bytes) : memory(std::move(DeviceMemory::allocate(bytes).value())) {
    std::memset(memory.address(), 0x11, bytes);
  }
  const std::byte* at(size_t byte = 0) const { return memory.address() + byte; }
};

std::byte* shared_at(size_t byte) { return shared_memory() + byte; }
uint32_t word_at(size_t byte) { return Shared<uint32_t>(shared_at(byte))[0]; }

// Thread 0 initializes an mbarrier at byte 1024, visible to all threads.
void make_barrier(uint32_t arrivals) {
  if (thread_index() == 0) {
    mbarrier_init(shared_at(1024), arrivals);
    mbarrier_init_fence();
  }
  block_barrier();
}

void copy_to(size_t byte, const Source& source, uint32_t bytes, uint32_t announced) {
  mbarrier_arrive_expect(shared_at(1024), announced);
  bulk_copy(shared_at(byte), source.at(), bytes, shared_at(1024), evict_first_policy());
}

}  // namespace

TEST_CASE("bulk copies land in who waited for their mbarrier") {
  const Source source(256);
  const emulator::GridShape shape{1, 1, 1, 64, 2048};
  const auto run = [&](const std::function<void()>& after, uint32_t bytes = 256, uint32_t announced = 256) {
    return fault_of(shape, [&] {
      make_barrier(1);
      if (thread_index() == 0) copy_to(0, source, bytes, announced);
      after();
    });
  };
  CHECK(run([] {
          mbarrier_wait(shared_at(1024), 0);
          if (word_at(4 * thread_index()) != 0x11111111u) throw std::runtime_error("wrong bytes");
        }) == "");
  CHECK(contains(run([] {
                   if (thread_index() == 0) (void)word_at(0);
                 }),
                 "on its way"));
  CHECK(contains(run([] {
                   if (thread_index() < 32) mbarrier_wait(shared_at(1024), 0);
                   for (int i = 0; i < 8; ++i)
                     shuffle_xor(0, 1);  // the copy has landed, but the thread has not waited for it
                   if (thread_index() >= 32) (void)word_at(0);
                 }),
                 "has not waited for the bulk copy"));
  CHECK(contains(run([] { mbarrier_wait(shared_at(1024), 0); }, 240), "0 arrivals and 256 bytes missing"));
  CHECK(contains(run([] { mbarrier_wait(shared_at(1024), 0); }, 250), "multiple of 16"));
  CHECK(contains(run([] { mbarrier_wait(shared_at(1024), 0); }, 0), "multiple of 16"));
  CHECK(contains(run([&] {
                   if (thread_index() == 0)
                     bulk_copy(shared_at(512), source.at(8), 16, shared_at(1024), evict_first_policy());
                 }),
                 "no multiples of 16"));
  CHECK(contains(run([] { mbarrier_wait(shared_at(1016), 0); }), "nobody wrote"));
  CHECK(contains(run([] {
                   if (thread_index() == 0) mbarrier_arrive(shared_at(1024));
                   if (thread_index() == 0) mbarrier_arrive(shared_at(1024));
                   mbarrier_wait(shared_at(1024), 0);
                   mbarrier_wait(shared_at(1024), 1);
                   mbarrier_wait(shared_at(1024), 0);
                   mbarrier_wait(shared_at(1024), 1);
                 }),
                 "(1 arrivals and 0 bytes missing)"));
  // A copy over bytes that others may still read.
  const auto again = [&](bool told) {
    return run([&, told] {
      mbarrier_wait(shared_at(1024), 0);
      if (thread_index() != 0) (void)word_at(0);
      if (told) block_barrier();
      if (thread_index() == 0) copy_to(0, source, 256, 256);
    });
  };
  CHECK(again(true) == "");
  CHECK(again(false) != "");
  // An initialization that is not visible to copies, or to other threads.
  CHECK(contains(fault_of(shape,
                          [&] {
                            if (thread_index() == 0) mbarrier_init(shared_at(1024), 1);
                            block_barrier();
                            if (thread_index() == 0) copy_to(0, source, 16, 16);
                          }),
                 "not followed by its fence"));
  CHECK(fault_of(shape, [&] {
          if (thread_index() == 0) mbarrier_init(shared_at(1024), 1);
          mbarrier_wait(shared_at(1024), 1);
        }) != "");
  const emulator::DeviceKind before = emulator::device_kind();
  emulator::device_kind().major = 8;
  CHECK(contains(run([] {}), "mbarrier: the device has compute capability 8.0"));
  emulator::device_kind() = before;
}

TEST_CASE("named barriers and mbarriers order those who took part") {
  const emulator::GridShape shape{1, 1, 1, 96, 2048};
  const auto exchange = [&](uint32_t reader, const std::function<void()>& wait) {
    return fault_of(shape, [&, reader] {
      make_barrier(32);
      if (thread_index() < 32) Shared<uint32_t>(shared_at(4 * thread_index())).store(0, thread_index());
      wait();
      if (thread_index() / 32 == reader) (void)word_at(4 * lane_index());
    });
  };
  const auto named = [] {
    if (thread_index() < 64) named_barrier(1, 64);
  };
  const auto arrivals = [] {
    if (thread_index() < 32) mbarrier_arrive(shared_at(1024));
    if (thread_index() >= 64) mbarrier_wait(shared_at(1024), 0);
  };
  CHECK(exchange(1, named) == "");
  CHECK(exchange(2, named) != "");
  CHECK(exchange(2, arrivals) == "");
  CHECK(exchange(1, arrivals) != "");
  CHECK(contains(exchange(3,
                          [] {
                            if (thread_index() < 32) named_barrier(1, 64);
                          }),
                 "at named barrier 1"));
  CHECK(contains(exchange(1, [] { named_barrier(1, thread_index() < 32 ? 64 : 96); }), "elsewhere"));
  CHECK(contains(exchange(1, [] { named_barrier(16, 64); }), "named barrier 16"));
  const Source flags(64);
  auto* flag = const_cast<uint32_t*>(reinterpret_cast<const uint32_t*>(flags.at()));
  CHECK(contains(fault_of({2, 1, 1, 32, 0},
                          [&] {
                            store_release(flag, block_x());
                            if (thread_index() > 0) return;
                            while (load_acquire(flag) == 0) {
                            }
                          }),
                 "has not run yet"));
}

TEST_CASE("products of a warpgroup: operands stay, sums come when waited for") {
  constexpr uint64_t kTile = uint64_t{1} << 62 | uint64_t{64} << 32;  // at shared byte 0
  enum class Mistake {
    none,
    no_fence,
    no_proxy_fence,
    no_wait,
    changed_operand,
    touched_sums,
    overwritten_tile,
    no_swizzle,
    unaligned,
    half_a_group
  };
  const auto run = [&](Mistake mistake) {
    return fault_of({1, 1, 1, mistake == Mistake::half_a_group ? 64u : 128u, 64 * 128 + 1024}, [&, mistake] {
      for (uint32_t i = thread_index(); i < 64 * 32; i += block_size())
        Shared<uint32_t>(shared_at(0)).store(i, 0x01010101u);
      if (mistake != Mistake::no_proxy_fence) proxy_fence();
      block_barrier();
      uint32_t a[4] = {0x02020202u, 0x02020202u, 0x02020202u, 0x02020202u};
      int32_t sums[32] = {};
      uint64_t tile = kTile;
      if (mistake == Mistake::no_swizzle) tile &= ~(uint64_t{3} << 62);
      if (mistake == Mistake::unaligned) tile += 128 / 16;
      if (mistake != Mistake::no_fence) wgmma_fence();
      wgmma_k32_u8s8(sums, a, tile, false);
      if (mistake == Mistake::touched_sums) sums[0] = 0;
      wgmma_k32_u8s8(sums, a, tile, true);
      wgmma_commit();
      if (mistake == Mistake::changed_operand) a[1] = 0;
      if (mistake == Mistake::overwritten_tile) Shared<uint32_t>(shared_at(4)).store(0, 1);
      if (mistake == Mistake::no_wait) wgmma_wait<1>();
      if (mistake != Mistake::no_wait) wgmma_wait<0>();
      for (const int32_t sum : sums) {
        if (sum != 2 * 32 * 2) throw std::runtime_error("wrong sum");
      }
    });
  };
  CHECK(run(Mistake::none) == "");
  CHECK(contains(run(Mistake::no_fence), "not fenced"));
  CHECK(contains(run(Mistake::no_proxy_fence), "no proxy fence"));
  CHECK(contains(run(Mistake::no_wait), "wrong sum"));
  CHECK(contains(run(Mistake::changed_operand), "registers of A changed"));
  CHECK(contains(run(Mistake::touched_sums), "sums were touched"));
  CHECK(contains(run(Mistake::overwritten_tile), "while a product reads it"));
  CHECK(contains(run(Mistake::no_swizzle), "swizzle mode 0"));
  CHECK(contains(run(Mistake::unaligned), "multiples of 1024"));
  CHECK(contains(run(Mistake::half_a_group), "no whole warpgroup"));
  CHECK(contains(fault_of({1, 1, 1, 128, 0}, [] { grow_registers<36>(); }), "36 registers"));
  const emulator::DeviceKind before = emulator::device_kind();
  emulator::device_kind().major = 10;
  CHECK(contains(run(Mistake::none), "wgmma: the device has compute capability 10.0"));
  emulator::device_kind() = before;
}

TEST_CASE("shapes that no device accepts are refused") {
  for (const emulator::GridShape& shape :
       {emulator::GridShape{1, 1, 1, 33, 0}, emulator::GridShape{1, 1, 1, 0, 0},
        emulator::GridShape{1, 1, 1, 1056, 0}, emulator::GridShape{1, 65536, 1, 32, 0},
        emulator::GridShape{1, 1, 1, 32, size_t{228} << 10}})
    CHECK_FALSE(fault_of(shape, [] {}).empty());
  CHECK(
      contains(fault_of({1, 1, 1, 32, 0}, [] { emulator::run_grid({}, [] {}); }), "launched from a kernel"));
}

TEST_CASE("errors of a queue wait for finish, the first one counts") {
  auto queue = Queue::create();
  REQUIRE(queue.ok());
  std::vector<std::byte> bytes(8);
  queue.value()->upload(bytes.data(), bytes);
  queue.value()->remember_error("second");
  const Status status = queue.value()->finish();
  REQUIRE_FALSE(status.ok());
  CHECK(contains(status.error(), "copy of 8 bytes out of range"));
  CHECK(queue.value()->finish().ok());
  CHECK_FALSE(DeviceMemory::allocate(size_t{1} << 40).ok());
}
