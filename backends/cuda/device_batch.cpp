#include "backends/cuda/device_batch.h"

#include <fmt/format.h>

#include <algorithm>

namespace tessera::cuda {

namespace {

size_t pages_needed(const BatchSequence& sequence) {
  return (sequence.position + sequence.token_count - 1) / kKvPageTokens + 1;
}

}  // namespace

Status DeviceBatch::load(Queue& queue, const Batch& batch) {
  rows_ = static_cast<uint32_t>(batch.tokens.size());
  outputs_ = static_cast<uint32_t>(batch.output_rows.size());
  words_.clear();
  tokens_ = 0;
  words_.insert(words_.end(), batch.tokens.begin(), batch.tokens.end());
  output_rows_ = words_.size();
  words_.insert(words_.end(), batch.output_rows.begin(), batch.output_rows.end());
  add_positions(batch);
  add_tiles(batch);
  add_page_ids(batch);  // last, so that growing contexts move no other array
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
  for (const PlacedTiles& placed : tiles_) {
    const AttentionTiles& tiles = placed.tiles;
    key.insert(key.end(), {placed.whole, placed.split, placed.first_record, tiles.whole_count,
                           tiles.whole_tokens, tiles.split_count, tiles.split_tokens, tiles.split_chunks});
  }
  key.insert(key.end(), {page_ids_, window_page_ids_});
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
  const auto append = [&](bool window) {
    const size_t begin = words_.size();
    for (const BatchSequence& sequence : batch.sequences) {
      const auto needed = sequence.pages_of(window).first(pages_needed(sequence));
      words_.insert(words_.end(), needed.begin(), needed.end());
    }
    return begin;
  };
  page_ids_ = append(false);
  window_page_ids_ = page_ids_;
  if (!windows_) return;
  // Room, so that a growing context moves this array, too, only now and then.
  constexpr size_t kRoom = 256;
  words_.resize(page_ids_ + (words_.size() - page_ids_ + kRoom - 1) / kRoom * kRoom, 0);
  window_page_ids_ = append(true);
}

void DeviceBatch::add_tiles(const Batch& batch) {
  tiles_.clear();
  const auto append = [&](const std::vector<AttentionTile>& tiles) {
    constexpr size_t kTileWords = sizeof(AttentionTile) / 4;
    words_.resize((words_.size() + kTileWords - 1) / kTileWords * kTileWords, 0);
    const size_t begin = words_.size();
    for (const AttentionTile& tile : tiles)
      words_.insert(words_.end(), {tile.first_row, tile.tokens, tile.position, tile.first_page});
    return begin;
  };
  for (const AttentionShape& shape : attention_) {
    const TileLists lists = list_tiles(batch.sequences, shape, Chunking());
    PlacedTiles placed{};
    placed.whole = append(lists.whole);
    placed.split = append(lists.split);
    placed.first_record = words_.size();
    words_.insert(words_.end(), lists.first_record.begin(), lists.first_record.end());
    placed.tiles.whole_count = static_cast<uint32_t>(lists.whole.size());
    placed.tiles.whole_tokens = lists.whole_tokens;
    placed.tiles.split_count = static_cast<uint32_t>(lists.split.size());
    placed.tiles.split_tokens = lists.split_tokens;
    placed.tiles.split_chunks = lists.split_chunks;
    tiles_.push_back(placed);
  }
}

AttentionTiles DeviceBatch::tiles(const AttentionShape& shape) const {
  const auto found = std::find(attention_.begin(), attention_.end(), shape);
  const PlacedTiles& placed = tiles_[static_cast<size_t>(found - attention_.begin())];
  AttentionTiles tiles = placed.tiles;
  tiles.whole = memory_.view<const AttentionTile>(4 * placed.whole);
  tiles.split = memory_.view<const AttentionTile>(4 * placed.split);
  tiles.first_record = view(placed.first_record);
  return tiles;
}

}  // namespace tessera::cuda
