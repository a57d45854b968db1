// The memory of emulated kernels: global buffers, which must be registered, and the shared memory of the
// running block, with a record of the accesses to each byte.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace tessera::emulator {

// A kernel did what hardware forbids or leaves undefined. The message is one line.
class Fault : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

enum class Access : uint8_t { read, write };

// Registers memory that kernels may access. The caller keeps ownership.
void register_global(const void* base, size_t bytes);
void unregister_global(const void* base);
// Forbids writes to the buffer from now on; kernels that begin early may read it before they wait.
void seal_global(const void* base);
bool is_sealed(const void* at);
// Throws Fault if the running thread belongs to an early kernel, has not called griddepcontrol_wait, and the
// access is not a read of sealed memory.
void check_early_access(const void* at, Access access);
// Throws Fault unless the bytes lie within one registered buffer, `at` is aligned to their number (at most
// 16), and check_early_access allows the access.
void check_global(const void* at, size_t bytes, Access access);
// The checks for a copy by the host.
void check_copy(const void* at, size_t bytes, Access access = Access::read);

// The thread of an access to shared memory, and its time. Clocks only grow. A thread sees accesses of another
// thread before the last barrier of the block, or of the warp that both are in, and those that its Knowledge
// covers.
struct Accessor {
  uint16_t thread = 0;
  uint16_t warp = 0;
  uint32_t block_clock = 0;
  uint32_t warp_clock = 0;
  uint32_t time = 0;  // grows with every arrival at an mbarrier or a named barrier
};

// A vector clock: what a thread is known to see through the mbarriers and named barriers that it waited for.
struct Knowledge {
  std::array<uint32_t, 32> seen{};  // for each warp: its accesses before this time are seen
  std::vector<uint32_t> observed;   // for each mbarrier: number of its phases known to be complete

  void learn(const Knowledge& other) {
    for (size_t i = 0; i < seen.size(); ++i) seen[i] = std::max(seen[i], other.seen[i]);
    if (observed.size() < other.observed.size()) observed.resize(other.observed.size(), 0);
    for (size_t i = 0; i < other.observed.size(); ++i) observed[i] = std::max(observed[i], other.observed[i]);
  }
  bool has_observed(size_t barrier, uint32_t phase) const {
    return barrier < observed.size() && observed[barrier] > phase;
  }
};

// The shared memory of one block.
class SharedMemory {
 public:
  // Begins a new block: all bytes are garbage and unwritten.
  void reset(size_t bytes);
  std::byte* base() { return base_; }
  size_t size() const { return size_; }
  // Throws Fault for an access out of range or unaligned, for a read of bytes that were never written or that
  // an asynchronous copy has not delivered, and for a race: two threads access a byte, one of them writes,
  // and no barrier is in between.
  void check(const void* at, size_t bytes, Access access, const Accessor& accessor, const Knowledge& knows);
  // An asynchronous copy: between these calls no thread may access the bytes.
  void begin_copy(const void* at, size_t bytes, const Accessor& accessor, const Knowledge& knows);
  void end_copy(const void* at, size_t bytes, const Accessor& accessor);
  // The end of a bulk copy for a phase of an mbarrier: a thread that reads the bytes must have observed that
  // phase.
  void end_bulk_copy(const void* at, size_t bytes, const Accessor& accessor, size_t barrier, uint32_t phase);
  // Between these calls a product reads the bytes, and no thread may write them.
  void begin_product_read(const void* at, size_t bytes);
  void end_product_read(const void* at, size_t bytes, const Accessor& accessor);
  // Calls visit(writer) for the last writer of each of these bytes that a thread has written, also by an
  // asynchronous copy of 16 bytes, but not for those that a bulk copy has written.
  template <class Visit>
  void writers(const void* at, size_t bytes, const Visit& visit) {
    const size_t first = place(at, bytes, "read");
    for (size_t i = first; i < first + bytes; ++i) {
      if (byte(i).barrier == kNone) visit(byte(i).writer);
    }
  }
  // Offset in shared memory.
  size_t offset(const void* at) const { return place(at, 1, "read"); }

 private:
  static constexpr uint16_t kNone = 0xffff;
  struct Byte {
    Accessor writer;
    Accessor reader;  // the last reader
    bool written = false;
    bool read = false;
    bool read_by_many = false;  // by several threads since the block's last barrier
    bool in_flight = false;
    uint8_t product_reads = 0;  // number of products that read it
    uint16_t barrier = kNone;   // index of the mbarrier of the bulk copy that wrote it
    uint32_t phase = 0;
    uint32_t reader_warps = 0;  // warps that read it since the last write and barrier of the block, as bits
    uint32_t block = 0;         // block that the record belongs to
  };
  // Records of earlier blocks are invalid; they are cleared at the first access.
  Byte& byte(size_t i) {
    if (shadow_[i].block != block_) {
      shadow_[i] = Byte{};
      shadow_[i].block = block_;
    }
    return shadow_[i];
  }
  size_t place(const void* at, size_t bytes, const char* what) const;
  void visit(size_t first, size_t bytes, Access access, const Accessor& accessor, const Knowledge& knows);
  bool readers_are_done(const Byte& byte, const Accessor& me, const Knowledge& knows) const;

  std::vector<std::byte> memory_;
  std::byte* base_ = nullptr;
  size_t size_ = 0;
  std::vector<Byte> shadow_;
  uint32_t block_ = 0;
};

}  // namespace tessera::emulator
