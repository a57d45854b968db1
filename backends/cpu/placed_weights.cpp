#include "backends/cpu/placed_weights.h"

#include <unistd.h>

#include <cstring>

#include "gguf-like-format/tile_layout.h"

namespace tessera::cpu {

ReservedMemory place_copy(const Placement& placement, std::span<const std::byte> bytes,
                          std::span<const ThreadShare> shares) {
  ReservedMemory copy(bytes.size());
  if (copy.base() == nullptr) return copy;
  const std::span<std::byte> memory(copy.base(), bytes.size());
  if (placement.mode == NumaMode::interleave) {
    prefer_nodes(memory, placement.nodes);
  } else {
    // Neighbouring shares on one node are one request: the system keeps a record for every request.
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    for (size_t i = 0; i < shares.size();) {
      const size_t node = placement.node_of_thread[shares[i].thread];
      const size_t begin = shares[i].begin / page * page;
      size_t end = shares[i].end;
      for (++i; i < shares.size() && placement.node_of_thread[shares[i].thread] == node; ++i)
        end = shares[i].end;
      if (i == shares.size()) end = bytes.size();  // and what follows the panels
      if (i < shares.size()) end = end / page * page;
      if (end > begin) prefer_nodes(memory.subspan(begin, end - begin), std::span(&node, 1));
    }
  }
  std::memcpy(memory.data(), bytes.data(), bytes.size());
  return copy;
}

}  // namespace tessera::cpu
