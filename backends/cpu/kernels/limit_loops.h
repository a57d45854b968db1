// The two loops that measure a machine's limits: reading memory and multiplying bytes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tessera::cpu {

struct LimitLoops {
  // Reads `count` bytes; returns a value that depends on all of them, so that nothing is left out.
  uint64_t (*read)(const uint8_t* bytes, size_t count);
  // Multiplies and adds int8 values in registers; returns the operations done, counted one by one.
  uint64_t (*multiply)(uint64_t rounds);
};

}  // namespace tessera::cpu
