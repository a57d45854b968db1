// Knows which pages of the KV cache are free and gives their ids to sequences. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tessera {

class PageAllocator {
 public:
  // All pages, with ids 0 … pages - 1, are free.
  explicit PageAllocator(size_t pages);
  size_t total() const { return total_; }
  size_t free_pages() const { return free_.size(); }
  // Appends ids to a sequence's pages until they hold token_count tokens. Returns false and changes nothing
  // when too few pages are free.
  bool extend(std::vector<uint32_t>& pages, size_t token_count);
  // Removes the last ids of a sequence's pages that token_count tokens do not need; those pages are free
  // again.
  void shrink(std::vector<uint32_t>& pages, size_t token_count);

 private:
  size_t total_;
  std::vector<uint32_t> free_;
};

}  // namespace tessera
