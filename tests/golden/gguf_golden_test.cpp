// Blocks of GGUF formats against gguf-py's values, which have to be the same bits (make_gguf_golden.py).
#include <doctest/doctest.h>

#include <bit>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "gguf-like-format/gguf/blocks.h"
#include "tests/golden/golden_arrays.h"

using namespace tessera;
using tessera::golden::read;

TEST_CASE("blocks of every format decode to the values of gguf-py") {
  std::ifstream file(std::string(TESSERA_SOURCE_DIR) + "/tests/golden/gguf_blocks.json");
  REQUIRE(file);
  const nlohmann::json golden = nlohmann::json::parse(file);
  std::mt19937_64 random(5);
  size_t formats = 0;
  for (const auto& item : golden["formats"].items()) {
    const std::string& name = item.key();
    const nlohmann::json& fields = item.value();
    CAPTURE(name);
    const GgufBlockFormat* format = find_block_format(fields["type"].get<uint32_t>());
    REQUIRE(format != nullptr);
    CHECK(format->name == name);
    CHECK(format->values == fields["values"].get<size_t>());
    CHECK(format->bytes == fields["bytes"].get<size_t>());
    const size_t count = 512;
    const auto blocks = read<uint8_t>(fields["blocks"], count / format->values * format->bytes);
    const auto expected = read<uint32_t>(fields["f32"], count);
    std::vector<float> found(count, -1.0f);
    decode_values(*format, std::as_bytes(std::span(blocks)), 0, found);
    for (size_t i = 0; i < count; ++i) {
      CAPTURE(i);
      REQUIRE(std::bit_cast<uint32_t>(found[i]) == expected[i]);
    }
    for (size_t round = 0; round < 50; ++round) {  // ranges that begin and end inside blocks
      const size_t first = random() % count;
      std::vector<float> part(random() % (count - first + 1), -1.0f);
      decode_values(*format, std::as_bytes(std::span(blocks)), first, part);
      for (size_t i = 0; i < part.size(); ++i)
        REQUIRE(std::bit_cast<uint32_t>(part[i]) == expected[first + i]);
    }
    ++formats;
  }
  CHECK(formats == 18);
}
