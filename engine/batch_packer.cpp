#include "engine/batch_packer.h"

#include <algorithm>

namespace tessera {

bool BatchPacker::next() {
  tokens_.clear();
  output_rows_.clear();
  parts_.clear();
  while (input_ < inputs_.size() && tokens_.size() < limits_.max_tokens &&
         output_rows_.size() < limits_.max_outputs) {
    add_part(inputs_[input_]);
    if (offset_ == inputs_[input_].tokens.size()) {
      ++input_;
      offset_ = 0;
    }
  }
  return !tokens_.empty();
}

// As many of the input's tokens as the batch has room for.
void BatchPacker::add_part(const SequenceInput& input) {
  size_t count = std::min(input.tokens.size() - offset_, limits_.max_tokens - tokens_.size());
  if (input.logits == LogitRows::all) count = std::min(count, limits_.max_outputs - output_rows_.size());
  const std::span<const uint32_t> part = input.tokens.subspan(offset_, count);
  parts_.push_back({tokens_.size(), count, sequences_.tokens(input.sequence).size(),
                    sequences_.pages(input.sequence), sequences_.window_pages(input.sequence)});
  offset_ += count;
  const auto row = static_cast<uint32_t>(tokens_.size());
  if (input.logits == LogitRows::all) {
    for (uint32_t i = 0; i < count; ++i) output_rows_.push_back(row + i);
  } else if (input.logits == LogitRows::last && offset_ == input.tokens.size()) {
    output_rows_.push_back(row + static_cast<uint32_t>(count) - 1);
  }
  tokens_.insert(tokens_.end(), part.begin(), part.end());
  sequences_.append(input.sequence, part);
}

}  // namespace tessera
