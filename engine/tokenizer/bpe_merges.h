// The merge table of a BPE model and the merging itself: always the pair of lowest rank, leftmost first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace tessera {

// Merges by left symbol: entries first[left] … first[left + 1] - 1 are ascending by right symbol. A view of
// stored arrays. Symbols without merges may lie beyond the table.
struct MergeTable {
  struct Entry {
    uint32_t right;
    uint32_t rank;    // lower merges first
    uint32_t result;  // the symbol the two become
  };
  std::span<const uint32_t> first;
  std::span<const uint32_t> entries;  // three words each

  // The merge of two neighbours, or nothing (result kNoSymbol).
  Entry find(uint32_t left, uint32_t right) const;
};

inline constexpr uint32_t kNoSymbol = 0xFFFFFFFF;

// Applies the table to symbols until no pair merges. Time n log n in the number of symbols. Keeps its memory
// between calls; not for use by two threads at once.
class BpeMerger {
 public:
  explicit BpeMerger(const MergeTable& table) : table_(&table) {}
  void merge(std::vector<uint32_t>& symbols);

 private:
  struct Node {
    uint32_t symbol;
    uint32_t previous;
    uint32_t next;
  };
  struct Candidate {
    uint32_t rank;
    uint32_t position;  // of the left symbol
    uint32_t left;      // symbols when this was queued: stale when they have changed
    uint32_t right;
    uint32_t result;
  };
  void merge_short(std::vector<uint32_t>& symbols);
  void merge_long(std::vector<uint32_t>& symbols);

  const MergeTable* table_;
  std::vector<MergeTable::Entry> pairs_;
  std::vector<Node> nodes_;
  std::vector<Candidate> queue_;
};

}  // namespace tessera
