#include "backends/cuda/emulator/memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

namespace tessera::emulator {

namespace {

struct Buffer {
  size_t bytes = 0;
  bool sealed = false;
};

std::map<uintptr_t, Buffer>& buffers() {
  static std::map<uintptr_t, Buffer> all;
  return all;
}

// The buffer of the last access, because consecutive accesses are mostly to the same one.
uintptr_t recent_base = 1;
uintptr_t recent_end = 0;
bool recent_is_sealed = false;

bool inside(uintptr_t at, size_t bytes) {
  if (at >= recent_base && at < recent_end && bytes <= recent_end - at) return true;
  auto after = buffers().upper_bound(at);
  if (after == buffers().begin()) return false;
  --after;
  const size_t size = after->second.bytes;
  if (at - after->first > size || bytes > size - (at - after->first)) return false;
  recent_base = after->first;
  recent_end = after->first + size;
  recent_is_sealed = after->second.sealed;
  return true;
}

const char* name(Access access) { return access == Access::read ? "read" : "write"; }

std::string nearest(uintptr_t at) {
  auto after = buffers().upper_bound(at);
  if (after == buffers().begin()) return "no buffer lies before it";
  --after;
  return fmt::format("{} bytes into a buffer of {}", at - after->first, after->second.bytes);
}

bool aligned(uintptr_t at, size_t bytes) {
  return (at & (std::min<size_t>(bytes, 16) - 1)) == 0;
}  // powers of two

}  // namespace

void register_global(const void* base, size_t bytes) {
  buffers()[reinterpret_cast<uintptr_t>(base)] = {bytes, false};
}

void unregister_global(const void* base) {
  buffers().erase(reinterpret_cast<uintptr_t>(base));
  recent_base = 1;
  recent_end = 0;
}

void seal_global(const void* base) {
  buffers().at(reinterpret_cast<uintptr_t>(base)).sealed = true;
  recent_base = 1;
  recent_end = 0;
}

bool is_sealed(const void* at) { return inside(reinterpret_cast<uintptr_t>(at), 1) && recent_is_sealed; }

void check_copy(const void* at, size_t bytes, Access access) {
  const auto address = reinterpret_cast<uintptr_t>(at);
  if (!inside(address, bytes))
    throw Fault(fmt::format("copy of {} bytes out of range: {}", bytes, nearest(address)));
  if (access == Access::write && recent_is_sealed) throw Fault("copy to memory that is sealed");
}

void check_global(const void* at, size_t bytes, Access access) {
  const auto address = reinterpret_cast<uintptr_t>(at);
  if (!inside(address, bytes))
    throw Fault(fmt::format("global {} of {} bytes out of range: {}", name(access), bytes, nearest(address)));
  if (!aligned(address, bytes))
    throw Fault(
        fmt::format("global {} of {} bytes at an address that is no multiple of it", name(access), bytes));
  if (access == Access::write && recent_is_sealed) throw Fault("global write to memory that is sealed");
  check_early_access(at, access);
}

void SharedMemory::reset(size_t bytes) {
  constexpr size_t kAlignment = 1024;
  if (memory_.size() < bytes + kAlignment) memory_.resize(bytes + kAlignment);
  const auto address = reinterpret_cast<uintptr_t>(memory_.data());
  base_ = memory_.data() + (kAlignment - address % kAlignment) % kAlignment;
  size_ = bytes;
  std::fill_n(base_, bytes, std::byte{0xff});  // NaN as floats, -1 as integers
  if (shadow_.size() < bytes) shadow_.resize(bytes);
  ++block_;
}

size_t SharedMemory::place(const void* at, size_t bytes, const char* what) const {
  const auto address = reinterpret_cast<uintptr_t>(at);
  const auto first = reinterpret_cast<uintptr_t>(base_);
  if (address < first || address - first > size_ || bytes > size_ - (address - first))
    throw Fault(fmt::format("shared {} of {} bytes out of range: {} bytes into {}", what, bytes,
                            static_cast<int64_t>(address - first), size_));
  if (!aligned(address, bytes))
    throw Fault(fmt::format("shared {} of {} bytes at an address that is no multiple of it", what, bytes));
  return address - first;
}

namespace {

// Whether the access `other` is ordered before the present one.
bool ordered(const Accessor& other, const Accessor& me, const Knowledge& knows) {
  if (other.thread == me.thread || other.block_clock != me.block_clock) return true;
  if (other.warp == me.warp && other.warp_clock != me.warp_clock) return true;
  return knows.seen[other.warp] > other.time;
}

[[noreturn]] void race(const char* mine, const char* theirs, size_t byte, const Accessor& me,
                       const std::string& other) {
  throw Fault(fmt::format("shared byte {}: thread {} {} what {} {} with no barrier in between", byte,
                          me.thread, mine, other, theirs));
}

}  // namespace

// Whether all reads of a byte are ordered before the present access. If several warps have read it, the time
// of the read is known only for the last one; of the others it is required that they have arrived at a
// barrier since the byte was written.
bool SharedMemory::readers_are_done(const Byte& byte, const Accessor& me, const Knowledge& knows) const {
  const Accessor& last = byte.reader;
  if (!byte.read || last.block_clock != me.block_clock) return true;
  if (!byte.read_by_many && last.thread == me.thread) return true;
  for (uint32_t warp = 0; warp < 32; ++warp) {
    if ((byte.reader_warps >> warp & 1) == 0) continue;
    if (warp == me.warp) {
      if (last.warp == warp && last.warp_clock == me.warp_clock) return false;
    } else if (knows.seen[warp] <= (warp == last.warp ? last.time : byte.writer.time)) {
      return false;
    }
  }
  return true;
}

void SharedMemory::visit(size_t first, size_t bytes, Access access, const Accessor& me,
                         const Knowledge& knows) {
  for (size_t i = first; i < first + bytes; ++i) {
    Byte& byte = this->byte(i);
    const bool write = access == Access::write;
    if (byte.in_flight)
      throw Fault(fmt::format("shared byte {}: thread {} touches it while an asynchronous copy is on its way",
                              i, me.thread));
    if (write && byte.product_reads > 0)
      throw Fault(
          fmt::format("shared byte {}: thread {} overwrites it while a product reads it", i, me.thread));
    if (!write && !byte.written)
      throw Fault(fmt::format("shared byte {}: thread {} reads what nobody wrote", i, me.thread));
    if (byte.barrier != kNone) {
      if (byte.writer.block_clock == me.block_clock && !knows.has_observed(byte.barrier, byte.phase))
        throw Fault(fmt::format("shared byte {}: thread {} has not waited for the bulk copy that brought it",
                                i, me.thread));
    } else if (byte.written && !ordered(byte.writer, me, knows)) {
      race(write ? "overwrites" : "reads", "wrote", i, me, fmt::format("thread {}", byte.writer.thread));
    }
    if (write) {
      if (!readers_are_done(byte, me, knows))
        race("overwrites", "read", i, me,
             byte.read_by_many ? "several threads" : fmt::format("thread {}", byte.reader.thread));
      byte.writer = me;
      byte.written = true;
      byte.barrier = kNone;
      byte.read = byte.read_by_many = false;
      byte.reader_warps = 0;
      continue;
    }
    if (byte.read && byte.reader.block_clock == me.block_clock) {
      byte.read_by_many = byte.read_by_many || byte.reader.thread != me.thread;
    } else {
      byte.read_by_many = false;
      byte.reader_warps = 0;
    }
    byte.read = true;
    byte.reader = me;
    byte.reader_warps |= 1u << me.warp;
  }
}

void SharedMemory::check(const void* at, size_t bytes, Access access, const Accessor& accessor,
                         const Knowledge& knows) {
  visit(place(at, bytes, name(access)), bytes, access, accessor, knows);
}

void SharedMemory::begin_copy(const void* at, size_t bytes, const Accessor& accessor,
                              const Knowledge& knows) {
  const size_t first = place(at, bytes, "copy");
  visit(first, bytes, Access::write, accessor, knows);
  std::fill_n(base_ + first, bytes, std::byte{0xff});
  for (size_t i = first; i < first + bytes; ++i) byte(i).in_flight = true;
}

void SharedMemory::end_copy(const void* at, size_t bytes, const Accessor& accessor) {
  const size_t first = place(at, bytes, "copy");
  for (size_t i = first; i < first + bytes; ++i) {
    byte(i).in_flight = false;
    byte(i).writer = accessor;
  }
}

void SharedMemory::end_bulk_copy(const void* at, size_t bytes, const Accessor& accessor, size_t barrier,
                                 uint32_t phase) {
  end_copy(at, bytes, accessor);
  const size_t first = place(at, bytes, "copy");
  for (size_t i = first; i < first + bytes; ++i) {
    byte(i).barrier = static_cast<uint16_t>(barrier);
    byte(i).phase = phase;
  }
}

void SharedMemory::begin_product_read(const void* at, size_t bytes) {
  const size_t first = place(at, bytes, "read");
  for (size_t i = first; i < first + bytes; ++i) ++byte(i).product_reads;
}

void SharedMemory::end_product_read(const void* at, size_t bytes, const Accessor& accessor) {
  const size_t first = place(at, bytes, "read");
  for (size_t i = first; i < first + bytes; ++i) {
    --byte(i).product_reads;
    byte(i).reader = accessor;
  }
}

}  // namespace tessera::emulator
