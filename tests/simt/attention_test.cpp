// Attention and what goes before it, kernel by kernel: the layout of pages, rotation and rounding on the way
// into them, and attention over whole and over split contexts, which must give the same bits. On the
// emulator, and on a device where the build has one.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "backends/cuda/attention_tiles.h"
#include "backends/reference/ops.h"
#include "gguf-like-format/float_types.h"
#include "tests/unit/op_rig.h"

using namespace tessera;

namespace {

rig::Random seeded(const char* what) {
  const uint64_t seed = std::random_device{}();
  std::cout << what << ": seed " << seed << "\n";
  return rig::Random(seed);
}

std::unique_ptr<cuda::Queue> any_queue() {
  const auto devices = cuda::find_devices();
  if (!devices.ok()) {
    std::cout << "skipped: attention: " << devices.error() << "\n";
    return nullptr;
  }
  auto made = cuda::Queue::create();
  REQUIRE(made.ok());
  return std::move(made.value());
}

cuda::DeviceMemory allocated(cuda::Queue& queue, size_t bytes) {
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

size_t stride_of(size_t columns) { return tile::round_up(4 * columns, 64); }

// Some sequences, all of whose tokens lie row after row in one matrix, and their cache.
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

Text random_text(rig::Random& random, const Shape& shape, std::vector<size_t> lengths) {
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

// The arrays that kernels find rows' pages by.
struct RowPlaces {
  std::vector<uint32_t> positions;
  std::vector<uint32_t> first_page;
  std::vector<uint32_t> page_ids;
};

RowPlaces row_places(const std::vector<BatchSequence>& sequences) {
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

// The text on the device.
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

  // Appends rows [first_row, …) of the sequences, which follow each other.
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

std::vector<float> expected_attention(const Text& text) {
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

std::string name_of(const Shape& shape) {
  return fmt::format("{}/{} heads of {} kv{}", shape.query_heads, shape.kv_heads, shape.head_dim, shape.bits);
}

// The bounds of the op cases.
std::string attention_difference(const Shape& shape, std::span<const float> expected,
                                 std::span<const float> got) {
  rig::OpCase test;
  test.name = name_of(shape);
  test.graph.tensors.push_back({"y", RowExtent::tokens, shape.out_columns(), ElementType::f32});
  test.bound = {2e-3, 5e-5};
  if (shape.bits != 16) test.bound = {5e-2, 5e-3, 1e-20};
  return rig::difference(test, expected, got);
}

}  // namespace

TEST_CASE("every code of a page has a place of its own") {
  for (const uint32_t bits : {4u, 8u, 16u}) {
    for (const uint32_t head_dim : {8u, 24u, 64u, 80u, 96u, 128u, 136u, 256u}) {
      std::set<size_t> nibbles;  // of the key part, then of the value part
      for (uint32_t token = 0; token < kKvPageTokens; ++token) {
        for (uint32_t octet = 0; octet < 4 * cuda::kv::key_steps(head_dim); ++octet) {
          const uint32_t first = cuda::kv::key_byte(bits, cuda::kv::key_steps(head_dim), token, octet);
          CHECK(first % bits == 0);
          for (uint32_t i = 0; i < 2 * bits; ++i) nibbles.insert(2 * size_t{first} + i);
        }
      }
      CHECK(nibbles.size() == 2 * cuda::kv::key_code_bytes(bits, head_dim));
      CHECK(*nibbles.rbegin() + 1 == nibbles.size());
      nibbles.clear();
      for (uint32_t token = 0; token < kKvPageTokens; ++token) {
        for (uint32_t element = 0; element < head_dim; ++element) {
          const size_t first = 2 * size_t{cuda::kv::value_byte(bits, token, element)};
          if (bits == 4) nibbles.insert(first + element / 8 % 2);
          for (uint32_t i = 0; bits > 4 && i < bits / 4; ++i) nibbles.insert(first + i);
        }
      }
      CHECK(nibbles.size() == kKvPageTokens * head_dim * bits / 4);
      CHECK(*nibbles.rbegin() < 2 * cuda::kv::value_code_bytes(bits, head_dim));
    }
  }
  std::set<uint32_t> places;
  for (uint32_t token = 0; token < kKvPageTokens; ++token) places.insert(cuda::kv::parameter_place(token));
  CHECK(places.size() == kKvPageTokens);
  CHECK(*places.rbegin() == kKvPageTokens - 1);
}

TEST_CASE("chunks follow each other without a gap") {
  for (const cuda::Chunking& chunking :
       {cuda::Chunking{}, cuda::Chunking{1, 2, 3}, cuda::Chunking{2, 0, 5}}) {
    CHECK(chunking.first_page(0) == 0);
    for (uint32_t chunk = 0; chunk < 40; ++chunk) {
      const uint32_t first = chunking.first_page(chunk);
      const uint32_t end = chunking.first_page(chunk + 1);
      CHECK(first < end);
      CHECK(chunking.of_page(first) == chunk);
      CHECK(chunking.of_page(end - 1) == chunk);
      CHECK(chunking.count(end * cuda::kPageTokens) == chunk + 1);
      CHECK(chunking.count(end * cuda::kPageTokens + 1) == chunk + 2);
    }
  }
}

TEST_CASE(
    "keys and values in their pages are the reference's, rotated queries and keys the plain formula's") {
  const std::unique_ptr<cuda::Queue> queue = any_queue();
  if (!queue) return;
  rig::Random random = seeded("append");
  for (const uint32_t bits : {4u, 8u, 16u}) {
    for (const auto& [head_dim, half] :
         {std::pair{8u, 4u}, {24u, 6u}, {80u, 16u}, {64u, 32u}, {136u, 0u}, {256u, 128u}}) {
      const Shape shape{3, 2, head_dim, bits};
      Text text = random_text(random, shape, {5, 70});
      const size_t rows = text.rows();
      std::vector<float> cosines(rows * half);
      std::vector<float> sines(rows * half);
      for (size_t i = 0; i < cosines.size(); ++i) {
        cosines[i] = std::cos(static_cast<float>(i));
        sines[i] = std::sin(static_cast<float>(i));
      }
      std::vector<float> rotated = text.x;
      for (size_t row = 0; row < rows; ++row) {
        for (size_t head = 0; head < shape.query_heads + shape.kv_heads; ++head) {
          float* at = rotated.data() + row * text.stride() + head * head_dim;
          for (size_t i = 0; i < half; ++i) {
            const float a = at[i];
            const float b = at[i + half];
            const float cosine = cosines[row * half + i];
            const float sine = sines[row * half + i];
            at[i] = std::fma(a, cosine, -(b * sine));
            at[i + half] = std::fma(b, cosine, a * sine);
          }
        }
      }
      const bool in_place = rig::pick(random, 0, 1) == 0;
      const std::vector<BatchSequence> all = {text.tokens(0, 0, 5), text.tokens(1, 0, 70)};
      const RowPlaces places = row_places(all);
      DeviceText device(*queue, text);
      const cuda::DeviceMemory y = allocated(*queue, text.x.size() * 4);
      const cuda::DeviceMemory positions = uploaded(*queue, places.positions);
      const cuda::DeviceMemory first_page = uploaded(*queue, places.first_page);
      const cuda::DeviceMemory page_ids = uploaded(*queue, places.page_ids);
      const cuda::DeviceMemory cosine_memory = uploaded(*queue, cosines);
      const cuda::DeviceMemory sine_memory = uploaded(*queue, sines);
      cuda::AppendJob job;
      job.kv = device.layer;
      job.x = {device.x.view<std::byte>(), 4 * text.stride()};
      job.y = in_place ? job.x : cuda::Rows{y.view<std::byte>(), 4 * text.stride()};
      job.query_heads = shape.query_heads;
      job.positions = positions.view<const uint32_t>();
      job.first_page = first_page.view<const uint32_t>();
      job.page_ids = page_ids.view<const uint32_t>();
      job.cosines = cosine_memory.view<const float>();
      job.sines = sine_memory.view<const float>();
      job.half = half;
      cuda::append(*queue, job, static_cast<uint32_t>(rows));
      const std::vector<float> queries = downloaded<float>(*queue, in_place ? device.x : y);
      const std::vector<std::byte> cache = downloaded<std::byte>(*queue, device.kv);
      const std::string what = name_of(shape);
      CAPTURE(what);
      for (size_t row = 0; half > 0 && row < rows; ++row)
        CHECK(std::memcmp(queries.data() + row * text.stride(), rotated.data() + row * text.stride(),
                          4 * shape.out_columns()) == 0);
      size_t wrong = 0;
      for (size_t row = 0; row < rows; ++row) {
        const size_t slot = places.positions[row] % kKvPageTokens;
        const size_t page = places.page_ids[places.first_page[row] + places.positions[row] / kKvPageTokens];
        const auto token = static_cast<uint32_t>(slot);
        for (size_t head = 0; head < shape.kv_heads; ++head) {
          const std::byte* key = cache.data() + (page * shape.kv_heads + head) * device.layer.block_bytes();
          const std::byte* value = key + cuda::kv::key_bytes(bits, head_dim);
          for (const bool is_value : {false, true}) {
            const size_t column =
                (shape.query_heads + head + (is_value ? shape.kv_heads : 0)) * size_t{head_dim};
            const std::span<const float> from(rotated.data() + row * text.stride() + column, head_dim);
            std::vector<double> want(head_dim);
            reference::round_kv(bits, from, want);
            const std::byte* part = is_value ? value : key;
            const size_t codes = is_value ? cuda::kv::value_code_bytes(bits, head_dim)
                                          : cuda::kv::key_code_bytes(bits, head_dim);
            const auto half_at = [&](size_t byte) {
              uint16_t bits16 = 0;
              std::memcpy(&bits16, part + byte, 2);
              return double{f16_to_f32(bits16)};
            };
            const size_t place = codes + 2 * cuda::kv::parameter_place(token);
            const double scale = bits == 16 ? 1 : half_at(place);
            const double minimum = bits == 4 ? half_at(place + cuda::kv::kParameterBytes) : 0;
            for (uint32_t e = 0; e < head_dim; ++e) {
              size_t byte = cuda::kv::key_byte(bits, cuda::kv::key_steps(head_dim), token, e / 8);
              bool high = e % 8 >= 4;
              if (is_value) {
                byte = cuda::kv::value_byte(bits, token, e);
                high = e / 8 % 2 == 1;
              } else {
                byte += bits == 4 ? e % 4 : e % 8 * (bits / 8);
              }
              const auto code = std::to_integer<unsigned>(part[byte]);
              double got = 0;
              if (bits == 4) got = (high ? code >> 4 : code & 15) * scale + minimum;
              if (bits == 8) got = static_cast<int8_t>(code) * scale;
              if (bits == 16) got = half_at(byte);
              wrong += got == want[e] ? 0 : 1;
            }
          }
        }
      }
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("attention over whole and split contexts: the reference's results, and the same bits") {
  const std::unique_ptr<cuda::Queue> queue = any_queue();
  if (!queue) return;
  rig::Random random = seeded("attention");
  std::vector<Shape> shapes;
  for (const uint32_t bits : {4u, 8u, 16u}) {
    shapes.push_back({1, 1, 8, bits});
    shapes.push_back({4, 1, 64, bits});
    shapes.push_back({6, 2, 80, bits});
    shapes.push_back({9, 1, 96, bits});
    shapes.push_back({2, 1, 128, bits});
    shapes.push_back({70, 1, 24, bits});
    shapes.push_back({3, 1, bits == 16 ? 256u : 136u, bits});
    shapes.push_back({12, 1, bits == 16 ? 136u : 256u, bits});
  }
  // Sanitizers make the emulator ten times slower: with them every sixth shape, others each time.
  const size_t step = std::getenv("TESSERA_SANITIZED") != nullptr ? 6 : 1;
  for (size_t i = rig::pick(random, 0, step - 1); i < shapes.size(); i += step) {
    const Shape& shape = shapes[i];
    const size_t most = shape.query_heads > 8 ? 60 : 200;
    Text text = random_text(random, shape, {rig::pick(random, 65, 65 + most), rig::pick(random, 1, 40)});
    DeviceText device(*queue, text);
    const cuda::Chunking chunking{1, static_cast<uint32_t>(rig::pick(random, 1, 2)), 2};
    std::vector<BatchSequence> all;
    for (size_t s = 0; s < 2; ++s) all.push_back(text.tokens(s, 0, text.lengths[s]));
    device.append(all);
    const std::string what = name_of(shape);
    CAPTURE(what);
    const std::vector<float> whole = device.attend(all, chunking, false);
    CHECK(attention_difference(shape, expected_attention(text), whole) == "");
    // The last tokens, as several sequences might decode them, in one run and in another order of work.
    const size_t last = text.lengths[0] - 1;
    const size_t middle = rig::pick(random, 64, last);
    const std::vector<BatchSequence> some = {text.tokens(0, last, 1), text.tokens(1, text.lengths[1] - 1, 1),
                                             text.tokens(0, middle, std::min<size_t>(3, last + 1 - middle))};
    for (const bool split : {false, true}) {
      const std::vector<float> again = device.attend(some, chunking, split);
      for (const BatchSequence& sequence : some) {
        const size_t at = sequence.first_row * shape.out_columns();
        CAPTURE(split);
        CHECK(std::memcmp(again.data() + at, whole.data() + at,
                          4 * sequence.token_count * shape.out_columns()) == 0);
      }
    }
  }
}

TEST_CASE("a context of more pages than a warp reads ids of at once, in the chunks that programs use") {
  const std::unique_ptr<cuda::Queue> queue = any_queue();
  if (!queue) return;
  rig::Random random = seeded("long context");
  constexpr std::array<uint32_t, 3> kBits = {4, 8, 16};
  const Shape shape{2, 1, 8, kBits[rig::pick(random, 0, 2)]};
  constexpr size_t kLongest = 45 * kKvPageTokens;
  Text text = random_text(random, shape, {rig::pick(random, kLongest - 9 * kKvPageTokens, kLongest)});
  DeviceText device(*queue, text);
  device.append({text.tokens(0, 0, text.lengths[0])});
  const size_t count = rig::pick(random, 1, 40);
  const std::vector<BatchSequence> last = {text.tokens(0, text.lengths[0] - count, count)};
  const std::vector<float> whole = device.attend(last, {}, false);
  const std::vector<float> split = device.attend(last, {}, true);
  const auto begin = static_cast<std::ptrdiff_t>(last[0].first_row * shape.out_columns());
  const std::string what = name_of(shape);
  CAPTURE(what);
  CHECK(std::memcmp(whole.data() + begin, split.data() + begin, 4 * count * shape.out_columns()) == 0);
  const std::vector<float> expected = expected_attention(text);
  CHECK(attention_difference(shape, std::span(expected).last(count * shape.out_columns()),
                             std::span(whole).last(count * shape.out_columns())) == "");
}

TEST_CASE("contexts are split while a batch is small, has several chunks and finds room") {
  const std::vector<uint32_t> pages(1000, 0);
  const auto tokens = [&](size_t row, size_t position, size_t count) {
    return BatchSequence{row, count, position, pages};
  };
  const cuda::Chunking chunking;
  const cuda::AttentionShape shape{32, 8, 128, 1000};
  const std::vector<BatchSequence> three = {tokens(0, 100, 1), tokens(1, 5000, 1), tokens(2, 1000, 20)};
  cuda::TileLists lists = cuda::list_tiles(three, shape, chunking);
  REQUIRE(lists.whole.size() == 1);
  REQUIRE(lists.split.size() == 3);  // the last one has 16 and 4 tokens
  CHECK(lists.whole[0].first_row == 0);
  CHECK(lists.first_record[1] == chunking.count(5001));
  CHECK(lists.first_record[2] == lists.first_record[1] + 16 * chunking.count(1016));
  CHECK(lists.split[1].first_page == 2 + 79);
  CHECK(lists.split[2].position == 1016);
  CHECK(lists.split_tokens == 16);
  CHECK(lists.split_chunks == 32);  // of 18
  lists = cuda::list_tiles(three, {32, 8, 128, 30}, chunking);
  CHECK(lists.split.size() == 1);  // no room for 16 or 4 times 4 records more
  CHECK(lists.whole.size() == 3);
  std::vector<BatchSequence> many;
  for (size_t i = 0; i < 128; ++i) many.push_back(tokens(i, 5000 - i, 1));
  lists = cuda::list_tiles(many, {32, 8, 128, size_t{1} << 20}, chunking);
  CHECK(lists.split.empty());
  REQUIRE(lists.whole.size() == 128);
  CHECK(lists.whole.back().position == 5000);  // the longest comes first: blocks take them from the end
  CHECK(cuda::wanted_records(32, 128, 1, 4) == 4);
  CHECK(cuda::wanted_records(32, 128, 1u << 20, 1u << 20) == (size_t{32} << 20) / (32 * 132 * 4));
}
