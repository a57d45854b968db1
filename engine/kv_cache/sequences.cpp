#include "engine/kv_cache/sequences.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "graph/batch.h"

namespace tessera {

const Sequences::Sequence& Sequences::living(SequenceId id) const {
  if (id >= sequences_.size() || !sequences_[id].alive) throw std::invalid_argument("no such sequence");
  return sequences_[id];
}

Sequences::Sequence& Sequences::living(SequenceId id) {
  std::as_const(*this).living(id);
  return sequences_[id];
}

SequenceId Sequences::create() {
  const auto free = std::find_if(sequences_.begin(), sequences_.end(),
                                 [](const Sequence& sequence) { return !sequence.alive; });
  const auto id = static_cast<SequenceId>(free - sequences_.begin());
  if (id == sequences_.size()) sequences_.emplace_back();
  sequences_[id].alive = true;
  return id;
}

void Sequences::release(SequenceId id) {
  truncate(id, 0);
  living(id).alive = false;
}

void Sequences::truncate(SequenceId id, size_t count) {
  Sequence& sequence = living(id);
  if (count < sequence.tokens.size()) sequence.tokens.resize(count);
  pages_.shrink(sequence.pages, sequence.tokens.size());
}

void Sequences::reserve(std::span<const SequenceGrowth> growth) {
  for (size_t i = 0; i < growth.size(); ++i) {
    Sequence& sequence = living(growth[i].sequence);
    if (growth[i].tokens == 0) throw std::invalid_argument("a sequence without new tokens");
    for (size_t j = 0; j < i; ++j) {
      if (growth[j].sequence == growth[i].sequence)
        throw std::invalid_argument("a sequence appears twice in one run");
    }
    const size_t length = sequence.tokens.size() + growth[i].tokens;
    if (length <= context_ && pages_.extend(sequence.pages, length)) continue;
    for (size_t j = 0; j < i; ++j) {
      Sequence& other = living(growth[j].sequence);
      pages_.shrink(other.pages, other.tokens.size());
    }
    if (length > context_) {
      throw std::runtime_error(fmt::format("context is full: {} tokens wanted, {} fit", length, context_));
    }
    throw std::runtime_error(fmt::format("KV cache is full: {} tokens wanted, {} pages of {} are free",
                                         length, pages_.free_pages(), kKvPageTokens));
  }
}

void Sequences::append(SequenceId id, std::span<const uint32_t> tokens) {
  std::vector<uint32_t>& own = living(id).tokens;
  own.insert(own.end(), tokens.begin(), tokens.end());
}

}  // namespace tessera
