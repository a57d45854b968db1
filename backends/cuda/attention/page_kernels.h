// The kernels over pages, each precision of the cache in a source file of its own; attend() calls them.
#pragma once

#include "backends/cuda/attention/attention.h"

namespace tessera::cuda {

// Queues the launch for the whole tiles, or for the split ones, whose results are stored in their records.
void attend_kv4(Queue& queue, const AttentionJob& job, const AttentionTiles& tiles, bool split);
void attend_kv8(Queue& queue, const AttentionJob& job, const AttentionTiles& tiles, bool split);
void attend_kv16(Queue& queue, const AttentionJob& job, const AttentionTiles& tiles, bool split);

}  // namespace tessera::cuda
