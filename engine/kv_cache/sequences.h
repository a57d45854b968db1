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

// The pages of layers with a window. A sequence takes at most `ring` of them, one after another and then the
// first ones again: each is used again for a later position once no later token sees what it holds.
struct WindowPages {
  size_t pages = 0;   // in all; 0: no layer has pages of its own
  size_t ring = 0;    // of one sequence: the window, the tokens of a batch and what may be forgotten
  size_t window = 0;  // positions that a token sees, its own included
};

// An unknown id throws std::invalid_argument.
class Sequences {
 public:
  // context: the most tokens of one sequence.
  Sequences(size_t pages, size_t context, const WindowPages& window = {})
      : pages_(pages), window_pages_(window.pages), window_(window), context_(context) {}

  SequenceId create();
  void release(SequenceId id);  // its pages are free again, and its id is reused
  const std::vector<uint32_t>& tokens(SequenceId id) const { return living(id).tokens; }
  // Page ids of positions 0, 1, …; may reach beyond the tokens after reserve.
  std::span<const uint32_t> pages(SequenceId id) const { return living(id).pages; }
  // The same in layers with a window; empty where there are none.
  std::span<const uint32_t> window_pages(SequenceId id) const { return living(id).window_pages; }
  size_t pages_in_use() const { return pages_.total() - pages_.free_pages(); }

  // Takes the pages for all of these, or throws std::runtime_error and takes none. No sequence comes twice.
  void reserve(std::span<const SequenceGrowth> growth);
  // Adds tokens for which pages are reserved.
  void append(SequenceId id, std::span<const uint32_t> tokens);
  // Forgets all tokens after the first `count`, and frees pages that hold none any more. Where what a window
  // would see then is gone, all tokens are forgotten. Returns how many are left.
  size_t truncate(SequenceId id, size_t count);

 private:
  struct Sequence {
    bool alive = false;
    std::vector<uint32_t> tokens;
    std::vector<uint32_t> pages;
    std::vector<uint32_t> window_pages;
    size_t written = 0;  // pages of positions that tokens were put into, since there were none
  };
  bool extend(Sequence& sequence, size_t token_count);
  void give_back_reserved(Sequence& sequence);
  const Sequence& living(SequenceId id) const;
  Sequence& living(SequenceId id);

  PageAllocator pages_;
  PageAllocator window_pages_;
  WindowPages window_;
  size_t context_;
  std::vector<Sequence> sequences_;
};

}  // namespace tessera
