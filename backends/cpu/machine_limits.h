// What this machine can do at most, measured now: the yardstick beside every speed figure.
#pragma once

#include <cstddef>

namespace tessera {

struct MachineLimits {
  double read_gbps = 0;  // 10^9 bytes per second read from memory by all threads together
  double int8_gops = 0;  // 10^9 int8 operations (a multiply or an add) per second in registers, all threads
};

// Takes about a third of a second; the best of several short rounds counts. threads 0: the cores this process
// may use.
MachineLimits measure_machine_limits(size_t threads);

}  // namespace tessera
