// Walking over pages, compiled once for each precision of the cache; attend() calls them.
#pragma once

#include "backends/cuda/attention/attention.h"

namespace tessera::cuda {

// Over the whole tiles, or over the split ones, whose results stay in their records.
void attend_kv4(Queue& queue, const AttentionJob& job, const AttentionTiles& tiles, bool split);
void attend_kv8(Queue& queue, const AttentionJob& job, const AttentionTiles& tiles, bool split);
void attend_kv16(Queue& queue, const AttentionJob& job, const AttentionTiles& tiles, bool split);

}  // namespace tessera::cuda
