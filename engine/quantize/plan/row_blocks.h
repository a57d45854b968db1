// Runs the row blocks of one matrix on several threads.
#pragma once

#include <cstddef>
#include <functional>

namespace tessera {

// Calls job(block, worker) once for every block in [0, blocks), in rising order of start, on up to `threads`
// threads (0: one per core) including the caller's; worker is below the count that worker_count gives. After
// a failure no further block starts; the exception of the lowest failing block is rethrown, so that what is
// reported does not depend on timing.
void run_row_blocks(size_t blocks, size_t threads, const std::function<void(size_t, size_t)>& job);

// How many workers run_row_blocks uses at most for this many blocks.
size_t worker_count(size_t blocks, size_t threads);

}  // namespace tessera
