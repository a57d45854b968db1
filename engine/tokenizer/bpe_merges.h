// The merge table of a BPE model, and the merging: the pair of lowest rank is merged first, of equal ranks
// the leftmost.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace tessera {

// All merges, grouped by left symbol: those of `left` are entries first[left] … first[left + 1] - 1,
// ascending by right symbol. A view of stored arrays. Symbols beyond the table have no merges.
struct MergeTable {
  struct Entry {
    uint32_t right;
    uint32_t rank;    // the lowest one is merged first
    uint32_t result;  // the symbol that replaces the two
  };
  std::span<const uint32_t> first;
  std::span<const uint32_t> entries;  // three words each: right, rank, result

  // The merge of two neighbours; its result is kNoSymbol when there is none.
  Entry find(uint32_t left, uint32_t right) const;
};

inline constexpr uint32_t kNoSymbol = 0xFFFFFFFF;

// Applies the table to symbols until no pair can be merged, in n log n time for n symbols. Keeps its memory
// between calls. Not for use by several threads at once.
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
    uint32_t left;      // the two symbols when it was queued: if one has changed since, the candidate is void
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
