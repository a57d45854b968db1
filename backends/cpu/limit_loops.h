// The two loops that measure a machine's limits, per instruction set: reading memory and multiplying bytes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tessera::cpu {

struct LimitLoops {
  uint64_t (*read)(const uint8_t* bytes,
                   size_t count);         // reads everything, returns a value that depends on it
  uint64_t (*multiply)(uint64_t rounds);  // int8 multiplies and adds done, counted one by one
};

const LimitLoops& limit_loops();  // of the best instruction set of this machine

const LimitLoops& portable_limit_loops();
const LimitLoops& avx2_limit_loops();
const LimitLoops& avx512_limit_loops();

}  // namespace tessera::cpu
