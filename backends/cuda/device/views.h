// Typed pointers to global and to shared memory for kernels. On a device they are plain pointers; the
// emulator checks every access. Indices count elements, not bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "backends/cuda/device/kernel_instructions.h"

namespace tessera::cuda {

struct alignas(8) Words2 {
  uint32_t x;
  uint32_t y;
};
struct alignas(16) Words4 {
  uint32_t x;
  uint32_t y;
  uint32_t z;
  uint32_t w;
};
struct alignas(16) Floats4 {
  float x;
  float y;
  float z;
  float w;
};

template <class Value>
class Global {
 public:
  using Bare = std::remove_const_t<Value>;
  Global() = default;
  TESSERA_BOTH explicit Global(Value* at) : at_(at) {}
  // A view for writing converts to one for reading.
  template <class Other, class = std::enable_if_t<std::is_same_v<const Other, Value>>>
  TESSERA_BOTH Global(Global<Other> other) : at_(other.address()) {}  // NOLINT: implicit by design

#if defined(TESSERA_HAS_INSTRUCTIONS)
  TESSERA_DEVICE Bare operator[](size_t i) const { return load_global<Bare>(at_ + i); }
  TESSERA_DEVICE void store(size_t i, Bare value) const { store_global<Bare>(at_ + i, value); }
#endif
  TESSERA_BOTH Global operator+(size_t elements) const { return Global(at_ + elements); }
  // The memory `bytes` further on, as an array of Other.
  template <class Other>
  TESSERA_BOTH Global<Other> as(size_t bytes = 0) const {
    using Byte = std::conditional_t<std::is_const_v<Value>, const std::byte, std::byte>;
    return Global<Other>(reinterpret_cast<Other*>(reinterpret_cast<Byte*>(at_) + bytes));
  }
  TESSERA_BOTH Value* address() const { return at_; }
  TESSERA_BOTH bool null() const { return at_ == nullptr; }

 private:
  Value* at_ = nullptr;
};

#if defined(TESSERA_HAS_INSTRUCTIONS)
template <class Value>
class Shared {
 public:
  TESSERA_DEVICE explicit Shared(std::byte* at) : at_(reinterpret_cast<Value*>(at)) {}
  TESSERA_DEVICE Value operator[](size_t i) const { return load_shared<Value>(at_ + i); }
  TESSERA_DEVICE void store(size_t i, Value value) const { store_shared<Value>(at_ + i, value); }
  template <class Other>
  TESSERA_DEVICE Shared<Other> as(size_t bytes = 0) const {
    return Shared<Other>(reinterpret_cast<std::byte*>(at_) + bytes);
  }
  TESSERA_DEVICE std::byte* address() const { return reinterpret_cast<std::byte*>(at_); }

 private:
  Value* at_;
};
#endif

}  // namespace tessera::cuda
