#include "backends/cuda/device_batch.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

namespace tessera::cuda {

namespace {

size_t pages_needed(const BatchSequence& sequence) {
  return (sequence.position + sequence.token_count - 1) / kKvPageTokens + 1;
}

}  // namespace

std::string DeviceBatch::fault(const Batch& batch) const {
  if (batch.tokens.size() > limits_.plan.max_tokens || batch.output_rows.size() > limits_.plan.max_outputs)
    return fmt::format("batch of {} tokens and {} outputs: at most {} and {} were planned",
                       batch.tokens.size(), batch.output_rows.size(), limits_.plan.max_tokens,
                       limits_.plan.max_outputs);
  for (const uint32_t token : batch.tokens) {
    if (token >= limits_.vocabulary)
      return fmt::format("token id {}: the model has {} tokens", token, limits_.vocabulary);
  }
  for (const uint32_t row : batch.output_rows) {
    if (row >= batch.tokens.size())
      return fmt::format("output row {} of {} tokens", row, batch.tokens.size());
  }
  size_t covered = 0;
  for (const BatchSequence& sequence : batch.sequences) {
    if (sequence.first_row != covered || sequence.token_count == 0 ||
        sequence.token_count > batch.tokens.size() - covered)
      return "sequences do not cover the batch in order";
    covered += sequence.token_count;
    if (sequence.position > std::numeric_limits<uint32_t>::max() - sequence.token_count)
      return fmt::format("position {} is out of range", sequence.position);
    if (sequence.pages.size() < pages_needed(sequence))
      return fmt::format("position {} lies beyond the sequence's {} KV pages",
                         sequence.position + sequence.token_count - 1, sequence.pages.size());
    for (const uint32_t page : sequence.pages.first(pages_needed(sequence))) {
      if (page >= limits_.pages) return fmt::format("KV page {} of {}", page, limits_.pages);
    }
  }
  if (covered != batch.tokens.size()) return "sequences do not cover the batch in order";
  return {};
}

Status DeviceBatch::load(Queue& queue, const Batch& batch) {
  if (std::string line = fault(batch); !line.empty()) return Status::failure(std::move(line));
  rows_ = static_cast<uint32_t>(batch.tokens.size());
  outputs_ = static_cast<uint32_t>(batch.output_rows.size());
  words_.clear();
  tokens_ = 0;
  words_.insert(words_.end(), batch.tokens.begin(), batch.tokens.end());
  output_rows_ = words_.size();
  words_.insert(words_.end(), batch.output_rows.begin(), batch.output_rows.end());
  add_positions(batch);
  add_tiles(batch);
  add_page_ids(batch);  // last: as contexts grow nothing else moves
  const size_t bytes = 4 * words_.size();
  if (memory_.size() < bytes) {
    memory_ = DeviceMemory();
    auto made = DeviceMemory::allocate(2 * bytes);
    if (!made.ok()) return Status::failure(fmt::format("batch: {}", made.error()));
    memory_ = std::move(made.value());
  }
  queue.upload(memory_.address(), std::as_bytes(std::span(words_)));
  return Status::success();
}

std::vector<uint64_t> DeviceBatch::key() const {
  std::vector<uint64_t> key = {reinterpret_cast<uintptr_t>(memory_.address()), rows_, outputs_};
  key.insert(key.end(), tile_counts_.begin(), tile_counts_.end());
  return key;
}

void DeviceBatch::add_positions(const Batch& batch) {
  positions_ = words_.size();
  for (const BatchSequence& sequence : batch.sequences) {
    for (size_t i = 0; i < sequence.token_count; ++i)
      words_.push_back(static_cast<uint32_t>(sequence.position + i));
  }
  first_pages_ = words_.size();
  size_t pages = 0;
  for (const BatchSequence& sequence : batch.sequences) {
    words_.insert(words_.end(), sequence.token_count, static_cast<uint32_t>(pages));
    pages += pages_needed(sequence);
  }
}

void DeviceBatch::add_page_ids(const Batch& batch) {
  page_ids_ = words_.size();
  for (const BatchSequence& sequence : batch.sequences) {
    const auto needed = sequence.pages.first(pages_needed(sequence));
    words_.insert(words_.end(), needed.begin(), needed.end());
  }
}

void DeviceBatch::add_tiles(const Batch& batch) {
  tiles_.clear();
  tile_counts_.clear();
  for (const uint32_t group : group_sizes_) {
    constexpr size_t kTileWords = sizeof(AttentionTile) / 4;
    words_.resize((words_.size() + kTileWords - 1) / kTileWords * kTileWords, 0);
    tiles_.push_back(words_.size());
    const size_t most = tile_tokens(group);
    uint32_t first_page = 0;
    uint32_t count = 0;
    for (const BatchSequence& sequence : batch.sequences) {
      for (size_t i = 0; i < sequence.token_count; i += most) {
        const size_t tokens = std::min(most, sequence.token_count - i);
        words_.push_back(static_cast<uint32_t>(sequence.first_row + i));
        words_.push_back(static_cast<uint32_t>(tokens));
        words_.push_back(static_cast<uint32_t>(sequence.position + i));
        words_.push_back(first_page);
        ++count;
      }
      first_page += static_cast<uint32_t>(pages_needed(sequence));
    }
    tile_counts_.push_back(count);
  }
}

DeviceBatch::Tiles DeviceBatch::tiles(uint32_t group_size) const {
  const auto found = std::find(group_sizes_.begin(), group_sizes_.end(), group_size);
  const auto index = static_cast<size_t>(found - group_sizes_.begin());
  return {memory_.view<const AttentionTile>(4 * tiles_[index]), tile_counts_[index]};
}

}  // namespace tessera::cuda
