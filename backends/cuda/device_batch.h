// A batch in device memory: tokens, positions, pages and tiles of one run, in one upload.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "backends/cuda/attention_tiles.h"
#include "backends/cuda/device/device.h"
#include "graph/batch.h"

namespace tessera::cuda {

class DeviceBatch {
 public:
  // attention: the distinct shapes of the graph's attention ops. windows: some layers have pages of their own
  // because of a window.
  DeviceBatch(std::vector<AttentionShape> attention, bool windows)
      : attention_(std::move(attention)), windows_(windows) {}

  // Queues the upload. Fails with one line without memory for it.
  Status load(Queue& queue, const Batch& batch);

  // Identifies batches whose launches get the same arguments: for two batches with equal keys all functions
  // below return the same rows, outputs, addresses and counts. Only the contents of device memory differ:
  // tokens, positions and pages.
  std::vector<uint64_t> key() const;

  uint32_t rows() const { return rows_; }
  uint32_t outputs() const { return outputs_; }
  Global<const uint32_t> tokens() const { return view(tokens_); }
  Global<const uint32_t> positions() const { return view(positions_); }
  Global<const uint32_t> first_pages() const { return view(first_pages_); }
  Global<const uint32_t> output_rows() const { return view(output_rows_); }
  // window: of layers that have pages of their own because of a window.
  Global<const uint32_t> page_ids(bool window) const { return view(window ? window_page_ids_ : page_ids_); }
  AttentionTiles tiles(const AttentionShape& shape) const;

 private:
  Global<const uint32_t> view(size_t word) const { return memory_.view<const uint32_t>(4 * word); }
  void add_positions(const Batch& batch);
  void add_tiles(const Batch& batch);
  void add_page_ids(const Batch& batch);

  std::vector<AttentionShape> attention_;
  bool windows_;
  std::vector<uint32_t> words_;  // what is uploaded
  DeviceMemory memory_;
  uint32_t rows_ = 0;
  uint32_t outputs_ = 0;
  // Offset of each array, in 32-bit words.
  size_t tokens_ = 0;
  size_t positions_ = 0;
  size_t first_pages_ = 0;
  size_t output_rows_ = 0;
  size_t page_ids_ = 0;
  size_t window_page_ids_ = 0;
  struct PlacedTiles {
    size_t whole;
    size_t split;
    size_t first_record;
    AttentionTiles tiles;  // addresses are filled in by tiles()
  };
  std::vector<PlacedTiles> tiles_;  // for each shape
};

}  // namespace tessera::cuda
