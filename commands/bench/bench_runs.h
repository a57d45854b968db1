// Runs the benchmark's tests on a model.
#pragma once

#include <cstddef>
#include <vector>

#include "commands/bench/bench.h"
#include "engine/model.h"
#include "engine/session_options.h"

namespace tessera {

// Measures every test `repetitions` times, with limits measured around each. What cannot be run is said on
// stderr and noted in the report.
BenchReport run_bench_tests(const Model& model, const SessionOptions& options, size_t repetitions,
                            const std::vector<BenchTest>& tests);

}  // namespace tessera
