// Hands out KV page ids and takes them back. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tessera {

class PageAllocator {
 public:
  explicit PageAllocator(size_t pages);
  size_t total() const { return total_; }
  size_t free_pages() const { return free_.size(); }
  // Extends pages to hold token_count tokens; false, with nothing changed, when not enough pages are free.
  bool extend(std::vector<uint32_t>& pages, size_t token_count);
  // Shrinks pages to what token_count tokens need and takes the rest back.
  void shrink(std::vector<uint32_t>& pages, size_t token_count);

 private:
  size_t total_;
  std::vector<uint32_t> free_;
};

}  // namespace tessera
