// The attention kernels one by one: the layout of pages, rotation and rounding of keys and values, and
// attention over whole and over split contexts, which must give the same bits. Run on the emulator, and on a
// device where the build has one.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <set>
#include <vector>

#include "gguf-like-format/float_types.h"
#include "tests/cuda/attention_texts.h"

using namespace tessera;
using namespace tessera::attention;

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
  const std::unique_ptr<cuda::Queue> queue = cuda::any_queue("attention");
  if (!queue) return;
  Random random = cuda::seeded("append");
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
            std::vector<double> correct(head_dim);
            reference::round_kv(bits, from, correct);
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
              wrong += got == correct[e] ? 0 : 1;
            }
          }
        }
      }
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("attention over whole and split contexts: the reference's results, and the same bits") {
  const std::unique_ptr<cuda::Queue> queue = cuda::any_queue("attention");
  if (!queue) return;
  Random random = cuda::seeded("attention");
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
  // Sanitizers make the emulator ten times slower: with them every second shape, chosen at random.
  const size_t step = std::getenv("TESSERA_SANITIZED") != nullptr ? 2 : 1;
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
    // The last tokens, as if several sequences decoded them in one batch, whole or split.
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

TEST_CASE("what a page cannot hold reaches the tokens that see it and no others") {
  const std::unique_ptr<cuda::Queue> queue = cuda::any_queue("attention");
  if (!queue) return;
  Random random = cuda::seeded("numbers beyond f16");
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  for (const uint32_t variant : {4u, 5u, 8u, 9u, 16u, 17u}) {
    const uint32_t bits = variant & ~1u;
    const bool in_key = variant % 2 != 0;
    // 65520 is the first number that f16 rounds to infinity.
    std::vector<float> too_large = {65520.0f, -1e5f, kInfinity, kNan};
    if (bits == 8) too_large = {-65520.0f * 128, 1e8f, -kInfinity, kNan};
    if (bits == 4) too_large = {65520.0f * 16, -65520.0f, 1e30f, -kInfinity};
    // A page can hold it.
    const float largest = bits == 16 ? 65519.0f : (bits == 8 ? 8e6f : 65000.0f);
    if (!in_key) too_large.push_back(largest);
    for (const float number : too_large) {
      const bool fits = number == largest;
      const Shape shape{6, 2, static_cast<uint32_t>(8 * rig::pick(random, 1, 5)), bits};
      Text text = random_text(random, shape, {rig::pick(random, 66, 90), rig::pick(random, 1, 20)});
      const size_t position = rig::pick(random, 0, text.lengths[0] - 1);
      const size_t kv_head = rig::pick(random, 0, 1);
      const size_t head = shape.query_heads + kv_head + (in_key ? 0 : shape.kv_heads);
      text.row(position)[head * shape.head_dim + rig::pick(random, 0, shape.head_dim - 1)] = number;
      DeviceText device(*queue, text);
      std::vector<BatchSequence> all;
      for (size_t s = 0; s < 2; ++s) all.push_back(text.tokens(s, 0, text.lengths[s]));
      device.append(all);
      std::vector<float> expected = expected_attention(text);
      const std::string what =
          fmt::format("{}, {} at {} of a {}", name_of(shape), number, position, in_key ? "key" : "value");
      CAPTURE(what);
      for (const bool split : {false, true}) {
        std::vector<float> got = device.attend(all, {1, 1, 2}, split);
        size_t wrong = 0;
        for (size_t row = position; row < text.lengths[0] && !fits; ++row) {
          const size_t first = row * shape.out_columns() + kv_head * shape.out_columns() / 2;
          for (size_t i = first; i < first + shape.out_columns() / 2; ++i) {
            wrong += (in_key && bits == 16) || std::isnan(got[i]) ? 0 : 1;
            got[i] = expected[i] = 0;
          }
        }
        CHECK(wrong == 0);
        CHECK(attention_difference(shape, expected, got) == "");
      }
    }
  }
}

TEST_CASE("a context of more pages than a warp reads ids of at once, in the chunks that programs use") {
  const std::unique_ptr<cuda::Queue> queue = cuda::any_queue("attention");
  if (!queue) return;
  Random random = cuda::seeded("long context");
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
  CHECK(lists.split_chunks == 32);  // 18, rounded up to a power of two
  lists = cuda::list_tiles(three, {32, 8, 128, 30}, chunking);
  CHECK(lists.split.size() == 1);  // no room for 16 or 4 times 4 more records
  CHECK(lists.whole.size() == 3);
  std::vector<BatchSequence> many;
  for (size_t i = 0; i < 128; ++i) many.push_back(tokens(i, 5000 - i, 1));
  lists = cuda::list_tiles(many, {32, 8, 128, size_t{1} << 20}, chunking);
  CHECK(lists.split.empty());
  REQUIRE(lists.whole.size() == 128);
  CHECK(lists.whole.back().position == 5000);  // the longest is last: blocks process the list from its end
  CHECK(cuda::useful_records(32, 128, 1, 4) == 4);
  CHECK(cuda::useful_records(32, 128, 1u << 20, 1u << 20) == (size_t{32} << 20) / (32 * 132 * 4));
}
