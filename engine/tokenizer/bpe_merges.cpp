#include "engine/tokenizer/bpe_merges.h"

#include <algorithm>
#include <stdexcept>

namespace tessera {

namespace {

constexpr size_t kMostShort = 40;  // up to this length, comparing all pairs is faster than a queue

}  // namespace

MergeTable::Entry MergeTable::find(uint32_t left, uint32_t right) const {
  constexpr Entry nothing{0, kNoSymbol, kNoSymbol};
  if (static_cast<size_t>(left) + 1 >= first.size()) return nothing;
  size_t begin = first[left];
  size_t count = first[left + 1] - begin;
  while (count > 0) {
    const size_t half = count / 2;
    if (entries[3 * (begin + half)] < right) {
      begin += half + 1;
      count -= half + 1;
    } else {
      count = half;
    }
  }
  if (begin >= first[left + 1] || entries[3 * begin] != right) return nothing;
  return {right, entries[3 * begin + 1], entries[3 * begin + 2]};
}

void BpeMerger::merge(std::vector<uint32_t>& symbols) {
  if (symbols.size() < 2) return;
  if (symbols.size() <= kMostShort) {
    merge_short(symbols);
  } else {
    merge_long(symbols);
  }
}

void BpeMerger::merge_short(std::vector<uint32_t>& symbols) {
  pairs_.clear();
  for (size_t i = 0; i + 1 < symbols.size(); ++i) pairs_.push_back(table_->find(symbols[i], symbols[i + 1]));
  while (!pairs_.empty()) {
    size_t best = 0;
    for (size_t i = 1; i < pairs_.size(); ++i)
      if (pairs_[i].rank < pairs_[best].rank) best = i;
    if (pairs_[best].result == kNoSymbol) return;
    symbols[best] = pairs_[best].result;
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    pairs_.erase(pairs_.begin() + static_cast<std::ptrdiff_t>(best));
    if (best < pairs_.size()) pairs_[best] = table_->find(symbols[best], symbols[best + 1]);
    if (best > 0) pairs_[best - 1] = table_->find(symbols[best - 1], symbols[best]);
  }
}

void BpeMerger::merge_long(std::vector<uint32_t>& symbols) {
  if (symbols.size() >= kNoSymbol) throw std::length_error("text too long to tokenize");
  const auto count = static_cast<uint32_t>(symbols.size());
  nodes_.resize(count);
  queue_.clear();
  const auto later = [](const Candidate& a, const Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
  };
  const auto candidate = [&](uint32_t position) {
    const uint32_t left = nodes_[position].symbol;
    const uint32_t right = nodes_[nodes_[position].next].symbol;
    const MergeTable::Entry entry = table_->find(left, right);
    return Candidate{entry.rank, position, left, right, entry.result};
  };
  const auto offer = [&](uint32_t position) {
    if (position == kNoSymbol || nodes_[position].next == kNoSymbol) return;
    const Candidate found = candidate(position);
    if (found.result == kNoSymbol) return;
    queue_.push_back(found);
    std::push_heap(queue_.begin(), queue_.end(), later);
  };
  for (uint32_t i = 0; i < count; ++i)
    nodes_[i] = {symbols[i], i == 0 ? kNoSymbol : i - 1, i + 1 == count ? kNoSymbol : i + 1};
  for (uint32_t i = 0; i + 1 < count; ++i) {
    const Candidate found = candidate(i);
    if (found.result != kNoSymbol) queue_.push_back(found);
  }
  std::make_heap(queue_.begin(), queue_.end(), later);
  while (!queue_.empty()) {
    std::pop_heap(queue_.begin(), queue_.end(), later);
    const Candidate top = queue_.back();
    queue_.pop_back();
    Node& left = nodes_[top.position];
    // A symbol that was merged away is marked by kNoSymbol, which no candidate holds.
    if (left.symbol != top.left || left.next == kNoSymbol || nodes_[left.next].symbol != top.right) continue;
    Node& right = nodes_[left.next];
    left.symbol = top.result;
    left.next = right.next;
    right.symbol = kNoSymbol;
    if (left.next != kNoSymbol) nodes_[left.next].previous = top.position;
    offer(left.previous);
    offer(top.position);
  }
  symbols.clear();
  for (uint32_t i = 0; i != kNoSymbol; i = nodes_[i].next) symbols.push_back(nodes_[i].symbol);
}

}  // namespace tessera
