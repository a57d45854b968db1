// Limits of the portable kernels: whatever the compiler makes of plain loops.
#include "backends/cpu/portable/portable.h"

#include <cstring>

namespace tessera::cpu::portable {

namespace {

uint64_t read_all(const uint8_t* bytes, size_t count) {
  uint64_t sums[4] = {};
  for (size_t i = 0; i + 32 <= count; i += 32) {
    for (size_t j = 0; j < 4; ++j) {
      uint64_t word = 0;
      std::memcpy(&word, bytes + i + 8 * j, sizeof word);
      sums[j] += word;
    }
  }
  return sums[0] + sums[1] + sums[2] + sums[3];
}

uint64_t multiply_bytes(uint64_t rounds) {
  constexpr size_t kLanes = 64;
  uint8_t a[kLanes];
  int8_t b[kLanes];
  for (size_t i = 0; i < kLanes; ++i) {
    a[i] = static_cast<uint8_t>(i * 7);
    b[i] = static_cast<int8_t>(i);
  }
  int32_t sum = 0;
  rounds /= 16;
  for (uint64_t r = 0; r < rounds; ++r) {
    for (size_t i = 0; i < kLanes; ++i) sum += static_cast<int32_t>(a[i]) * b[i] & 0xff;
    a[static_cast<size_t>(sum) % kLanes] ^= 1;
  }
  return rounds * kLanes * 2 + (sum == 1 ? 1 : 0);
}

}  // namespace

constinit const LimitLoops kLimitLoops{.read = read_all, .multiply = multiply_bytes};

}  // namespace tessera::cpu::portable
