// Selects the best tokens of a row in passes: each block sorts one stretch of the row and keeps its best
// entries, until there is one stretch. A logit and its token id are combined into one integer key, ordered as
// the ranking, so that the result depends neither on the stretches nor on the order of blocks.
#include <algorithm>
#include <bit>

#include "backends/cuda/device/launch.h"
#include "backends/cuda/sampling/best_tokens.h"

namespace tessera::cuda {

namespace {

constexpr uint32_t kThreads = 256;
constexpr uint32_t kMostKeys = 2048;  // of a block
constexpr uint32_t kInfinity = 0x7f800000u;

struct Pass {
  Rows logits;                  // read by the first pass
  Global<const uint64_t> keys;  // read by later passes, [rows, entries]; null in the first
  uint32_t entries = 0;         // of a row of the pass's input
  uint32_t stretch = 0;         // entries of a block, a power of two
  uint32_t count = 0;
  Global<uint64_t> kept;    // [rows, blocks, count]
  Global<TokenLogit> best;  // output of the last pass, instead of kept; else null
};

// Greater keys rank first; 0 for logits that are not finite.
TESSERA_DEVICE uint64_t key_of(float logit, uint32_t token) {
  uint32_t bits = float_bits(logit);
  if ((bits & kInfinity) == kInfinity) return 0;
  if (bits == 0x80000000u) bits = 0;  // equal to +0
  const uint32_t ordered = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(ordered) << 32 | (0xffffffffu - token);
}

TESSERA_DEVICE TokenLogit candidate_of(uint64_t key) {
  TokenLogit candidate;
  if (key == 0) {
    candidate.logit = bits_float(0xff800000u);
    candidate.token = 0;
    return candidate;
  }
  const auto ordered = static_cast<uint32_t>(key >> 32);
  candidate.logit = bits_float((ordered & 0x80000000u) != 0 ? ordered & 0x7fffffffu : ~ordered);
  candidate.token = 0xffffffffu - static_cast<uint32_t>(key);
  return candidate;
}

TESSERA_DEVICE uint64_t entry(const Pass& pass, uint32_t row, uint32_t i) {
  if (i >= pass.entries) return 0;
  if (!pass.keys.null()) return pass.keys[size_t{row} * pass.entries + i];
  return key_of(pass.logits.floats(row)[i], i);
}

TESSERA_DEVICE uint64_t greatest_of_warp(uint64_t key) {
  for (uint32_t mask = 16; mask > 0; mask /= 2) {
    const uint64_t high = shuffle_xor(static_cast<uint32_t>(key >> 32), mask);
    const uint64_t other = high << 32 | shuffle_xor(static_cast<uint32_t>(key), mask);
    key = other > key ? other : key;
  }
  return key;
}

TESSERA_DEVICE void keep(const Pass& pass, uint32_t row, uint32_t stretch, uint32_t blocks, uint32_t rank,
                         uint64_t key) {
  if (pass.best.null()) {
    pass.kept.store((size_t{row} * blocks + stretch) * pass.count + rank, key);
  } else {
    pass.best.store(size_t{row} * pass.count + rank, candidate_of(key));
  }
}

TESSERA_DEVICE uint32_t blocks_of(const Pass& pass) {
  return (pass.entries + pass.stretch - 1) / pass.stretch;
}

// The one best entry of a stretch.
TESSERA_KERNEL TESSERA_BLOCK_OF(kThreads) void keep_best(Pass pass) {
  wait_for_earlier_kernels();
  const Shared<uint64_t> of_warps(shared_memory());
  uint64_t greatest = 0;
  for (uint32_t i = thread_index(); i < pass.stretch; i += kThreads) {
    const uint64_t key = entry(pass, block_x(), block_y() * pass.stretch + i);
    greatest = key > greatest ? key : greatest;
  }
  greatest = greatest_of_warp(greatest);
  if (lane_index() == 0) of_warps.store(warp_index(), greatest);
  block_barrier();
  if (thread_index() != 0) return;
  for (uint32_t warp = 1; warp < kThreads / 32; ++warp) {
    const uint64_t other = of_warps[warp];
    greatest = other > greatest ? other : greatest;
  }
  keep(pass, block_x(), block_y(), blocks_of(pass), 0, greatest);
}

// The best entries of a stretch, by a bitonic sort in shared memory.
TESSERA_KERNEL TESSERA_BLOCK_OF(kThreads) void keep_sorted(Pass pass) {
  wait_for_earlier_kernels();
  const Shared<uint64_t> keys(shared_memory());
  for (uint32_t i = thread_index(); i < pass.stretch; i += kThreads)
    keys.store(i, entry(pass, block_x(), block_y() * pass.stretch + i));
  for (uint32_t size = 2; size <= pass.stretch; size *= 2) {
    for (uint32_t distance = size / 2; distance > 0; distance /= 2) {
      block_barrier();
      for (uint32_t pair = thread_index(); pair < pass.stretch / 2; pair += kThreads) {
        const uint32_t low = 2 * pair - (pair & (distance - 1));
        const uint64_t first = keys[low];
        const uint64_t second = keys[low + distance];
        const bool falling = (low & size) == 0;
        if ((first < second) != falling) continue;
        keys.store(low, second);
        keys.store(low + distance, first);
      }
    }
  }
  block_barrier();
  for (uint32_t rank = thread_index(); rank < pass.count; rank += kThreads)
    keep(pass, block_x(), block_y(), blocks_of(pass), rank, keys[rank]);
}

// Entries of a row of `entries` that one block reads: at least twice `count`, so that every pass has fewer
// entries.
uint32_t stretch_of(uint32_t entries, uint32_t count) {
  return std::max(std::bit_ceil(2 * count), std::min(kMostKeys, std::bit_ceil(entries)));
}

uint32_t blocks_over(uint32_t entries, uint32_t count) {
  const uint32_t stretch = stretch_of(entries, count);
  return (entries + stretch - 1) / stretch;
}

}  // namespace

size_t best_tokens_scratch(size_t rows, uint32_t columns, uint32_t count) {
  // The results of the first pass, then those of the second one. Later passes keep fewer and use the two
  // places in turn.
  const size_t first = size_t{blocks_over(columns, count)} * count;
  const size_t second = size_t{blocks_over(static_cast<uint32_t>(first), count)} * count;
  return rows * (first + second);
}

void best_tokens(Queue& queue, const BestTokensJob& job, uint32_t rows) {
  Pass pass;
  pass.logits = job.logits;
  pass.entries = job.columns;
  pass.count = job.count;
  // Passes alternate between two places.
  Global<uint64_t> write = job.scratch;
  Global<uint64_t> next = job.scratch + size_t{rows} * blocks_over(job.columns, job.count) * job.count;
  for (bool last = false; !last;) {
    pass.stretch = stretch_of(pass.entries, pass.count);
    const uint32_t blocks = blocks_over(pass.entries, pass.count);
    last = blocks == 1;
    pass.kept = write;
    if (last) pass.best = job.best;
    if (pass.count == 1) {
      launch(queue, {rows, blocks, 1, kThreads, kThreads / 32 * sizeof(uint64_t), true}, &keep_best, pass);
    } else {
      launch(queue, {rows, blocks, 1, kThreads, pass.stretch * sizeof(uint64_t), true}, &keep_sorted, pass);
    }
    pass.keys = write;
    pass.entries = blocks * pass.count;
    std::swap(write, next);
  }
}

}  // namespace tessera::cuda
