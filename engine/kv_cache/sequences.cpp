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

size_t Sequences::truncate(SequenceId id, size_t count) {
  Sequence& sequence = living(id);
  count = std::min(count, sequence.tokens.size());
  // The first page that the token after the last one sees, and the first one that is still there.
  const size_t seen = count < window_.window ? 0 : (count + 1 - window_.window) / kKvPageTokens;
  const size_t kept = sequence.written > window_.ring ? sequence.written - window_.ring : 0;
  if (window_.pages != 0 && seen < kept) count = 0;
  sequence.tokens.resize(count);
  if (count == 0) sequence.written = 0;
  give_back_reserved(sequence);
  return count;
}

// Takes pages for that many tokens of the sequence; false, and the sequence has some of them, where there are
// too few.
bool Sequences::extend(Sequence& sequence, size_t token_count) {
  if (!pages_.extend(sequence.pages, token_count)) return false;
  if (window_.pages == 0) return true;
  std::vector<uint32_t>& ids = sequence.window_pages;
  if (ids.size() < window_.ring &&
      !window_pages_.extend(ids, std::min(token_count, window_.ring * kKvPageTokens)))
    return false;
  while (ids.size() < sequence.pages.size()) ids.push_back(ids[ids.size() - window_.ring]);
  return true;
}

// Frees pages beyond those of the sequence's tokens.
void Sequences::give_back_reserved(Sequence& sequence) {
  const size_t tokens = sequence.tokens.size();
  pages_.shrink(sequence.pages, tokens);
  if (window_.pages == 0) return;
  // Once the first pages are used again, all of them hold something.
  const bool around = sequence.written > window_.ring;
  std::vector<uint32_t>& ids = sequence.window_pages;
  ids.resize(std::min(ids.size(), std::max(sequence.pages.size(), window_.ring)));
  if (!around) window_pages_.shrink(ids, tokens);
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
    if (length <= context_ && extend(sequence, length)) continue;
    const bool windows_full = sequence.pages.size() * kKvPageTokens >= length;
    for (size_t j = 0; j <= i; ++j) give_back_reserved(living(growth[j].sequence));
    if (length > context_) {
      throw std::runtime_error(fmt::format("context is full: {} tokens wanted, {} fit", length, context_));
    }
    if (windows_full)
      throw std::runtime_error(
          fmt::format("KV cache is full: layers with a window have pages for {} sequences beyond it",
                      window_.pages / window_.ring));
    throw std::runtime_error(fmt::format("KV cache is full: {} tokens wanted, {} pages of {} are free",
                                         length, pages_.free_pages(), kKvPageTokens));
  }
}

void Sequences::append(SequenceId id, std::span<const uint32_t> tokens) {
  Sequence& sequence = living(id);
  sequence.tokens.insert(sequence.tokens.end(), tokens.begin(), tokens.end());
  const size_t pages = (sequence.tokens.size() + kKvPageTokens - 1) / kKvPageTokens;
  sequence.written = std::max(sequence.written, pages);
}

}  // namespace tessera
