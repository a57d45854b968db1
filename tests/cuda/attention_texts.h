// Random sequences for tests of attention, their KV cache on the emulator or a device, and the reference
// backend's results.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "backends/cuda/attention_tiles.h"
#include "backends/reference/ops.h"
#include "tests/cuda/test_queue.h"

namespace tessera::attention {

using rig::Random;

inline cuda::DeviceMemory allocated(cuda::Queue& queue, size_t bytes) {
  auto made = cuda::DeviceMemory::allocate(bytes);
  REQUIRE(made.ok());
  queue.fill(made.value().address(), 0xff, bytes);
  return std::move(made.value());
}

template <class Value>
cuda::DeviceMemory uploaded(cuda::Queue& queue, const std::vector<Value>& values) {
  cuda::DeviceMemory memory = allocated(queue, std::max<size_t>(values.size(), 1) * sizeof(Value));
  queue.upload(memory.address(), std::as_bytes(std::span(values)));
  return memory;
}

template <class Value>
std::vector<Value> downloaded(cuda::Queue& queue, const cuda::DeviceMemory& memory) {
  std::vector<Value> values(memory.size() / sizeof(Value));
  queue.download(std::as_writable_bytes(std::span(values)), memory.address());
  const Status status = queue.finish();
  CHECK((status.ok() ? std::string() : status.error()) == "");
  return values;
}

struct Shape {
  uint32_t query_heads;
  uint32_t kv_heads;
  uint32_t head_dim;
  uint32_t bits;

  size_t columns() const { return size_t{query_heads + 2 * kv_heads} * head_dim; }
  size_t out_columns() const { return size_t{query_heads} * head_dim; }
};

inline size_t stride_of(size_t columns) { return tile::round_up(4 * columns, 64); }

// Some sequences, whose tokens are consecutive rows of one matrix, and their pages.
struct Text {
  Shape shape;
  std::vector<float> x;                      // [rows, columns] with stride
  std::vector<std::vector<uint32_t>> pages;  // of each sequence
  std::vector<size_t> lengths;
  size_t page_count = 0;

  size_t rows() const { return std::accumulate(lengths.begin(), lengths.end(), size_t{0}); }
  size_t stride() const { return stride_of(shape.columns()) / 4; }
  std::span<float> row(size_t index) { return {x.data() + index * stride(), shape.columns()}; }
  size_t first_row(size_t sequence) const {
    return std::accumulate(lengths.begin(), lengths.begin() + static_cast<std::ptrdiff_t>(sequence),
                           size_t{0});
  }
  BatchSequence tokens(size_t sequence, size_t first, size_t count) const {
    return {first_row(sequence) + first, count, first, pages[sequence]};
  }
};

inline Text random_text(rig::Random& random, const Shape& shape, std::vector<size_t> lengths) {
  Text text{shape, {}, {}, std::move(lengths), 0};
  text.x.assign(text.rows() * text.stride(), std::numeric_limits<float>::quiet_NaN());
  for (size_t row = 0; row < text.rows(); ++row) {
    const float size = rig::pick(random, 0, 9) == 0 ? 3.0f : 1.0f;
    for (float& value : text.row(row)) value = size * rig::normal(random);
    if (rig::pick(random, 0, 19) == 0) std::fill(text.row(row).begin(), text.row(row).end(), 0.25f);
  }
  for (const size_t length : text.lengths) text.page_count += length / kKvPageTokens + 1;
  std::vector<uint32_t> ids(text.page_count);
  std::iota(ids.begin(), ids.end(), 0u);
  std::shuffle(ids.begin(), ids.end(), random);
  size_t used = 0;
  for (const size_t length : text.lengths) {
    const auto first = ids.begin() + static_cast<std::ptrdiff_t>(used);
    used += length / kKvPageTokens + 1;
    text.pages.emplace_back(first, ids.begin() + static_cast<std::ptrdiff_t>(used));
  }
  return text;
}

// The arrays that tell kernels the positions and pages of rows.
struct RowPlaces {
  std::vector<uint32_t> positions;
  std::vector<uint32_t> first_page;
  std::vector<uint32_t> page_ids;
};

inline RowPlaces row_places(const std::vector<BatchSequence>& sequences) {
  RowPlaces places;
  for (const BatchSequence& sequence : sequences) {
    const auto first = static_cast<uint32_t>(places.page_ids.size());
    for (size_t i = 0; i < sequence.token_count; ++i) {
      places.positions.push_back(static_cast<uint32_t>(sequence.position + i));
      places.first_page.push_back(first);
    }
    const size_t needed = (sequence.position + sequence.token_count - 1) / kKvPageTokens + 1;
    for (const uint32_t page : sequence.pages.first(needed)) places.page_ids.push_back(page);
  }
  return places;
}

// A text and its KV cache in device memory.
struct DeviceText {
  cuda::Queue& queue;
  const Text& text;
  cuda::DeviceMemory x;
  cuda::DeviceMemory kv;
  cuda::KvLayer layer;

  DeviceText(cuda::Queue& on, const Text& from)
      : queue(on),
        text(from),
        x(uploaded(on, from.x)),
        layer{{}, from.shape.bits, from.shape.head_dim, from.shape.kv_heads} {
    kv = allocated(queue, from.page_count * from.shape.kv_heads * layer.block_bytes());
    layer.base = kv.view<std::byte>();
  }

  // Appends the rows of the sequences, which must be contiguous, to the cache.
  void append(const std::vector<BatchSequence>& sequences) {
    const RowPlaces places = row_places(sequences);
    const cuda::DeviceMemory positions = uploaded(queue, places.positions);
    const cuda::DeviceMemory first_page = uploaded(queue, places.first_page);
    const cuda::DeviceMemory page_ids = uploaded(queue, places.page_ids);
    cuda::AppendJob job;
    job.kv = layer;
    job.x = {x.view<std::byte>(4 * text.stride() * sequences.front().first_row), 4 * text.stride()};
    job.y = job.x;
    job.query_heads = text.shape.query_heads;
    job.positions = positions.view<const uint32_t>();
    job.first_page = first_page.view<const uint32_t>();
    job.page_ids = page_ids.view<const uint32_t>();
    cuda::append(queue, job, static_cast<uint32_t>(places.positions.size()));
    REQUIRE(queue.finish().ok());
  }

  // [text rows, out_columns]; rows that are in none of the sequences are zero.
  std::vector<float> attend(const std::vector<BatchSequence>& sequences, const cuda::Chunking& chunking,
                            bool split) {
    const Shape& shape = text.shape;
    const cuda::AttentionShape tiled{shape.query_heads, shape.kv_heads, shape.head_dim,
                                     split ? size_t{100000} : 0};
    const cuda::TileLists lists = cuda::list_tiles(sequences, tiled, chunking);
    CHECK(split != lists.split.empty());
    size_t records = 0;
    for (const cuda::AttentionTile& tile : lists.split)
      records += size_t{tile.tokens} * chunking.count(tile.position + tile.tokens);
    const cuda::DeviceMemory page_ids = uploaded(queue, row_places(sequences).page_ids);
    const cuda::DeviceMemory whole = uploaded(queue, lists.whole);
    const cuda::DeviceMemory parts = uploaded(queue, lists.split);
    const cuda::DeviceMemory first_record = uploaded(queue, lists.first_record);
    const cuda::DeviceMemory record_memory = allocated(
        queue, 4 * std::max<size_t>(1, records) * cuda::record_floats(shape.query_heads, shape.head_dim));
    const size_t stride = stride_of(shape.out_columns());
    const cuda::DeviceMemory y = allocated(queue, text.rows() * stride);
    queue.fill(y.address(), 0, y.size());
    cuda::AttentionJob job;
    job.kv = layer;
    job.qkv = {x.view<std::byte>(), 4 * text.stride()};
    job.y = {y.view<std::byte>(), stride};
    job.query_heads = shape.query_heads;
    job.scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
    job.page_ids = page_ids.view<const uint32_t>();
    job.records = record_memory.view<float>();
    job.chunking = chunking;
    cuda::AttentionTiles tiles;
    tiles.whole = whole.view<const cuda::AttentionTile>();
    tiles.whole_count = static_cast<uint32_t>(lists.whole.size());
    tiles.whole_tokens = lists.whole_tokens;
    tiles.split = parts.view<const cuda::AttentionTile>();
    tiles.first_record = first_record.view<const uint32_t>();
    tiles.split_count = static_cast<uint32_t>(lists.split.size());
    tiles.split_tokens = lists.split_tokens;
    tiles.split_chunks = lists.split_chunks;
    cuda::attend(queue, job, tiles);
    const std::vector<float> padded = downloaded<float>(queue, y);
    std::vector<float> rows;
    for (size_t row = 0; row < text.rows(); ++row) {
      const auto begin = padded.begin() + static_cast<std::ptrdiff_t>(row * stride / 4);
      rows.insert(rows.end(), begin, begin + static_cast<std::ptrdiff_t>(shape.out_columns()));
    }
    return rows;
  }
};

inline std::vector<float> expected_attention(const Text& text) {
  const Shape& shape = text.shape;
  reference::KvStore store({1, shape.kv_heads, shape.head_dim, shape.bits, 0}, text.page_count);
  std::vector<BatchSequence> all;
  for (size_t s = 0; s < text.lengths.size(); ++s) all.push_back(text.tokens(s, 0, text.lengths[s]));
  std::vector<float> x = text.x;
  std::vector<float> y(text.rows() * shape.out_columns());
  const reference::Rows from{reinterpret_cast<std::byte*>(x.data()), 4 * text.stride(), text.rows(),
                             shape.columns()};
  const reference::Rows to{reinterpret_cast<std::byte*>(y.data()), 4 * shape.out_columns(), text.rows(),
                           shape.out_columns()};
  const Attention kind{0, shape.query_heads, shape.kv_heads, shape.head_dim,
                       1.0f / std::sqrt(static_cast<float>(shape.head_dim))};
  reference::run_attention(kind, all, store, from, to);
  return y;
}

inline std::string name_of(const Shape& shape) {
  return fmt::format("{}/{} heads of {} kv{}", shape.query_heads, shape.kv_heads, shape.head_dim, shape.bits);
}

// With the error bounds of tests/unit/op_cases.h.
inline std::string attention_difference(const Shape& shape, std::span<const float> expected,
                                        std::span<const float> got) {
  rig::OpCase test;
  test.name = name_of(shape);
  test.graph.tensors.push_back({"y", RowExtent::tokens, shape.out_columns(), ElementType::f32});
  test.bound = {2e-3, 5e-5};
  if (shape.bits != 16) test.bound = {5e-2, 5e-3, 1e-20};
  return rig::difference(test, expected, got);
}

}  // namespace tessera::attention
