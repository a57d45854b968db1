// The CPU backend: kernels of the best instruction set the machine has, on a persistent thread pool.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backends/backend.h"

namespace tessera {

struct CpuBackendOptions {
  std::string isa = "auto";  // "auto", "avx512", "avx2", "portable"
  size_t threads = 0;        // 0: the cores this process may use
  // Copies weights onto the machine's memory nodes, where it has more than one: "local" or "interleave"
  // (backends/cpu/memory_nodes.h), or "off". The copies take as much memory as the weights.
  std::string numa = "off";
  std::string node_folder = "/sys/devices/system/node";  // where the system lists its nodes
};

// Fails when the instruction set is unknown or not in this machine.
Result<std::unique_ptr<Backend>> make_cpu_backend(const CpuBackendOptions& options);

// The instruction sets usable here, best first: "avx512", "avx2", "portable".
std::vector<std::string_view> usable_instruction_sets();

}  // namespace tessera
