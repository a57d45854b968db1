// The memory that emulated kernels see: global buffers, which must be registered, and the shared memory of
// the block that runs, with a record of who touched which byte and when.
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

// Bytes that kernels may touch. Registering does not own them.
void register_global(const void* base, size_t bytes);
void unregister_global(const void* base);
// From now on nobody may write there: then even kernels that begin early may read it.
void seal_global(const void* base);
bool is_sealed(const void* at);
// Throws Fault when a kernel that begins early has not yet waited and this is no read of sealed memory.
void check_followed(const void* at, Access access);
// Throws Fault unless the bytes lie within one registered buffer, at is a multiple of their number (of 16
// when there are more), and check_followed agrees.
void check_global(const void* at, size_t bytes, Access access);
// For a copy that the host asks for.
void check_copy(const void* at, size_t bytes, Access access = Access::read);

// Who touches shared memory, and when. Clocks only grow; a thread sees what another did before its block's
// last barrier, or before the last barrier of the warp that both are in, or what its Knowledge covers.
struct Visitor {
  uint16_t thread = 0;
  uint16_t warp = 0;
  uint32_t block_clock = 0;
  uint32_t warp_clock = 0;
  uint32_t time = 0;  // grows with every arrival at an mbarrier or a named barrier
};

// What a thread knows from the mbarriers and named barriers that it waited for.
struct Knowledge {
  std::array<uint32_t, 32> seen{};  // of each warp, whatever it did before this time
  std::vector<uint32_t> observed;   // of each mbarrier, by index, the phases that are known to be complete

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
  // Garbage everywhere, nothing written.
  void reset(size_t bytes);
  std::byte* base() { return base_; }
  size_t size() const { return size_; }
  // Throws Fault for an access out of range or not aligned, for a read of what nobody wrote or what an
  // asynchronous copy has not delivered, and for two threads at one byte, one of them writing, without a
  // barrier in between.
  void check(const void* at, size_t bytes, Access access, const Visitor& visitor, const Knowledge& knows);
  // An asynchronous copy: from the first call until the second nobody may look.
  void begin_copy(const void* at, size_t bytes, const Visitor& visitor, const Knowledge& knows);
  void end_copy(const void* at, size_t bytes, const Visitor& visitor);
  // The end of a copy that completes a phase of an mbarrier: who reads must have observed that phase.
  void end_bulk_copy(const void* at, size_t bytes, const Visitor& visitor, size_t barrier, uint32_t phase);
  // From the first call until the second the bytes are being read by a product, and nobody may write them.
  void lend(const void* at, size_t bytes);
  void give_back(const void* at, size_t bytes, const Visitor& visitor);
  // Calls visit(writer) for the last writer of each of these bytes that was written by a thread (asynchronous
  // copies of 16 bytes included) and not by a bulk copy.
  template <class Visit>
  void writers(const void* at, size_t bytes, const Visit& visit) {
    const size_t first = place(at, bytes, "read");
    for (size_t i = first; i < first + bytes; ++i) {
      if (byte(i).barrier == kNone) visit(byte(i).writer);
    }
  }
  // Bytes from the start.
  size_t offset(const void* at) const { return place(at, 1, "read"); }

 private:
  static constexpr uint16_t kNone = 0xffff;
  struct Byte {
    Visitor writer;
    Visitor reader;  // the last one
    bool written = false;
    bool read = false;
    bool read_by_many = false;  // threads, since the block's last barrier
    bool in_flight = false;
    uint8_t lent = 0;          // to so many products
    uint16_t barrier = kNone;  // of the bulk copy that wrote it, and the phase
    uint32_t phase = 0;
    uint32_t reader_warps = 0;  // since the last write and the block's last barrier, one bit each
    uint32_t block = 0;         // that it tells of
  };
  // Records of earlier blocks mean nothing: they are forgotten when somebody asks for them.
  Byte& byte(size_t i) {
    if (shadow_[i].block != block_) {
      shadow_[i] = Byte{};
      shadow_[i].block = block_;
    }
    return shadow_[i];
  }
  size_t place(const void* at, size_t bytes, const char* what) const;
  void visit(size_t first, size_t bytes, Access access, const Visitor& visitor, const Knowledge& knows);
  bool readers_are_done(const Byte& byte, const Visitor& me, const Knowledge& knows) const;

  std::vector<std::byte> memory_;
  std::byte* base_ = nullptr;
  size_t size_ = 0;
  std::vector<Byte> shadow_;
  uint32_t block_ = 0;
};

}  // namespace tessera::emulator
