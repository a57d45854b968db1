// Attention over 16-bit pages.
#include "backends/cuda/attention/paged_attention.h"

namespace tessera::cuda {

void attend_kv16(Queue& queue, const AttentionJob& job, const AttentionTiles& tiles, bool split) {
  launch_pages<16>(queue, job, tiles, split);
}

}  // namespace tessera::cuda
