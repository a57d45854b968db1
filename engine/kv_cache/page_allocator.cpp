#include "engine/kv_cache/page_allocator.h"

#include "graph/batch.h"

namespace tessera {

namespace {

size_t pages_for(size_t token_count) { return (token_count + kKvPageTokens - 1) / kKvPageTokens; }

}  // namespace

PageAllocator::PageAllocator(size_t pages) : total_(pages) {
  // Ids are given out from the back of the list: low ids first, and pages that were used before unused ones.
  free_.reserve(pages);
  for (size_t i = pages; i > 0; --i) free_.push_back(static_cast<uint32_t>(i - 1));
}

bool PageAllocator::extend(std::vector<uint32_t>& pages, size_t token_count) {
  const size_t needed = pages_for(token_count);
  if (needed <= pages.size()) return true;
  if (needed - pages.size() > free_.size()) return false;
  while (pages.size() < needed) {
    pages.push_back(free_.back());
    free_.pop_back();
  }
  return true;
}

void PageAllocator::shrink(std::vector<uint32_t>& pages, size_t token_count) {
  while (pages.size() > pages_for(token_count)) {
    free_.push_back(pages.back());
    pages.pop_back();
  }
}

}  // namespace tessera
