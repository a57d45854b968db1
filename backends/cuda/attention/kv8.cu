// Attention over 8-bit pages.
#include "backends/cuda/attention/paged_attention.h"

namespace tessera::cuda {

void attend_kv8(Queue& queue, const AttentionJob& job, const AttentionTiles& tiles, bool split) {
  launch_pages<8>(queue, job, tiles, split);
}

}  // namespace tessera::cuda
