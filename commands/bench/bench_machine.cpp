// The machine under the benchmark: its name, its threads, and its limits at this moment.
#include "backends/cpu/cpu_features.h"
#include "backends/cpu/machine_limits.h"
#include "commands/bench/bench.h"

namespace tessera {

BenchLimits measure_limits(size_t threads) {
  const MachineLimits limits = measure_machine_limits(threads);
  return {limits.read_gbps, limits.int8_gops};
}

std::string bench_processor() { return cpu::processor_name(); }

size_t bench_threads(size_t asked) { return asked != 0 ? asked : cpu::usable_threads(); }

}  // namespace tessera
