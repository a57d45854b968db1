// Copies of weight matrices whose pages lie on the memory nodes of the threads that read them (--numa).
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "backends/cpu/memory_nodes.h"
#include "backends/cpu/reserved_memory.h"

namespace tessera::cpu {

struct Placement {
  NumaMode mode = NumaMode::off;
  std::vector<size_t> nodes;           // all nodes in use
  std::vector<size_t> node_of_thread;  // by thread index
};

// Bytes [begin, end) of a matrix that one thread reads.
struct ThreadShare {
  size_t begin = 0;
  size_t end = 0;
  size_t thread = 0;
};

// A copy of `bytes` placed as the mode says: `local` puts every share, in whole pages, on the node of its
// thread; shares are in the order of memory. base() of the copy is null when there is no memory for it.
ReservedMemory place_copy(const Placement& placement, std::span<const std::byte> bytes,
                          std::span<const ThreadShare> shares);

}  // namespace tessera::cpu
