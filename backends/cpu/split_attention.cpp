#include "backends/cpu/split_attention.h"

#include <algorithm>

#include "gguf-like-format/tile_layout.h"

namespace tessera::cpu {

void SplitAttention::reserve_at_least(size_t units, size_t chunks, size_t floats) {
  units_ = std::max(units_, units);
  chunks_ = std::max(chunks_, chunks);
  floats_ = std::max(floats_, tile::round_up(floats, 16));  // whole cache lines
}

bool SplitAttention::allocate() {
  counts_ = std::make_unique<Unit[]>(units_);
  const size_t bytes = units_ * chunks_ * floats_ * sizeof(float);
  memory_ = ReservedMemory(bytes);
  return memory_.size() == bytes;
}

void SplitAttention::begin_unit(size_t unit, size_t chunks) {
  counts_[unit].chunks = chunks;
  counts_[unit].left.store(chunks, std::memory_order_relaxed);
}

bool SplitAttention::finish_chunk(size_t unit) {
  if (counts_[unit].left.fetch_sub(1, std::memory_order_acq_rel) != 1) return false;
  counts_[unit].left.store(counts_[unit].chunks, std::memory_order_relaxed);
  return true;
}

}  // namespace tessera::cpu
