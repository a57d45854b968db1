// The memory that emulated kernels see: global buffers, which must be registered, and the shared memory of
// the block that runs, with a record of who touched which byte and when.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace tessera::simt {

// A kernel did what hardware forbids or leaves undefined. The message is one line.
class Fault : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

enum class Access : uint8_t { read, write };

// Bytes that kernels may touch. Registering does not own them.
void register_global(const void* base, size_t bytes);
void unregister_global(const void* base);
// Throws Fault unless the bytes lie within one registered buffer and at is a multiple of their number (of 16
// when there are more).
void check_global(const void* at, size_t bytes, Access access);
// For a copy that the host asks for: bounds only.
void check_copy(const void* at, size_t bytes);

// Who touches shared memory, and when. Clocks only grow; a thread sees what another did before its block's
// last barrier, or before the last barrier of the warp that both are in.
struct Visitor {
  uint16_t thread = 0;
  uint16_t warp = 0;
  uint32_t block_clock = 0;
  uint32_t warp_clock = 0;
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
  void check(const void* at, size_t bytes, Access access, const Visitor& visitor);
  // An asynchronous copy: from the first call until the second nobody may look.
  void begin_copy(const void* at, size_t bytes, const Visitor& visitor);
  void end_copy(const void* at, size_t bytes, const Visitor& visitor);

 private:
  struct Byte {
    Visitor writer;
    Visitor reader;  // the last one
    bool written = false;
    bool read = false;
    bool read_by_many = false;   // threads, since the block's last barrier
    bool read_by_warps = false;  // several warps, likewise
    bool in_flight = false;
  };
  size_t place(const void* at, size_t bytes, const char* what) const;
  void visit(size_t first, size_t bytes, Access access, const Visitor& visitor);

  std::vector<std::byte> memory_;
  std::byte* base_ = nullptr;
  size_t size_ = 0;
  std::vector<Byte> shadow_;
};

}  // namespace tessera::simt
