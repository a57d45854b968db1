// The sequences whose tokens lie in the KV cache, and which pages hold them. Everything that takes, shares or
// gives back pages is here. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/kv_cache/page_allocator.h"

namespace tessera {

using SequenceId = size_t;

// How many tokens are about to be appended to a sequence.
struct SequenceGrowth {
  SequenceId sequence;
  size_t tokens;  // at least 1
};

// An unknown id throws std::invalid_argument.
class Sequences {
 public:
  // context: the most tokens of one sequence.
  Sequences(size_t pages, size_t context) : pages_(pages), context_(context) {}

  SequenceId create();
  void release(SequenceId id);  // its pages are free again, and its id is reused
  const std::vector<uint32_t>& tokens(SequenceId id) const { return living(id).tokens; }
  // Page ids of positions 0, 1, …; may reach beyond the tokens after reserve.
  std::span<const uint32_t> pages(SequenceId id) const { return living(id).pages; }
  size_t pages_in_use() const { return pages_.total() - pages_.free_pages(); }

  // Takes the pages for all of these, or throws std::runtime_error and takes none. No sequence comes twice.
  void reserve(std::span<const SequenceGrowth> growth);
  // Adds tokens for which pages are reserved.
  void append(SequenceId id, std::span<const uint32_t> tokens);
  // Forgets all tokens after the first `count`, and frees pages that hold none any more.
  void truncate(SequenceId id, size_t count);

 private:
  struct Sequence {
    bool alive = false;
    std::vector<uint32_t> tokens;
    std::vector<uint32_t> pages;
  };
  const Sequence& living(SequenceId id) const;
  Sequence& living(SequenceId id);

  PageAllocator pages_;
  size_t context_;
  std::vector<Sequence> sequences_;
};

}  // namespace tessera
