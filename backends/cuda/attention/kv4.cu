// Attention over 4-bit pages.
#include "backends/cuda/attention/paged_attention.h"

namespace tessera::cuda {

void attend_kv4(Queue& queue, const AttentionJob& job, const AttentionTiles& tiles, bool split) {
  launch_pages<4>(queue, job, tiles, split);
}

}  // namespace tessera::cuda
