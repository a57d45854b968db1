// One block for each token and KV head: the first warp takes the key, the second the value, each lane 8
// elements.
#include "backends/cuda/attention/attention.h"
#include "backends/cuda/attention/warp_floats.h"
#include "backends/cuda/launch.h"

namespace tessera::cuda {

namespace {

constexpr uint32_t kThreads = 64;

TESSERA_DEVICE float clamped(float x, float low, float high) {
  const float above = x < low ? low : x;
  return above > high ? high : above;
}

// 8 elements of the row; nothing beyond its end is touched.
struct Elements {
  float at[8];
};

TESSERA_DEVICE void store_16(Global<std::byte> row, uint32_t lane, const Elements& x) {
  uint32_t pairs[4];
  for (uint32_t i = 0; i < 4; ++i)
    pairs[i] = float_to_half(x.at[2 * i]) | static_cast<uint32_t>(float_to_half(x.at[2 * i + 1])) << 16;
  row.as<Words4>().store(lane, {pairs[0], pairs[1], pairs[2], pairs[3]});
}

// scale = f16(max|x| / 127), code = round(x / scale) within +-127.
TESSERA_DEVICE uint16_t store_8(Global<std::byte> row, uint32_t lane, bool real, const Elements& x) {
  float largest = 0;
  for (uint32_t i = 0; i < 8; ++i) {
    const float magnitude = bits_float(float_bits(x.at[i]) & 0x7fffffffu);
    largest = real && magnitude > largest ? magnitude : largest;
  }
  const uint16_t bits = float_to_half(divide_rn(warp_largest(largest), 127.0f));
  const float scale = half_to_float(bits);
  uint32_t words[2] = {0, 0};
  for (uint32_t i = 0; i < 8 && scale != 0; ++i) {
    const auto code = static_cast<int32_t>(clamped(round_even(divide_rn(x.at[i], scale)), -127.0f, 127.0f));
    words[i / 4] |= (static_cast<uint32_t>(code) & 255u) << (8 * (i % 4));
  }
  if (real) row.as<Words2>().store(lane, {words[0], words[1]});
  return bits;
}

struct Range {
  uint16_t scale;
  uint16_t minimum;
};

// scale = f16((max - min) / 15), minimum = f16(min), code = round((x - minimum) / scale) within 0 … 15.
TESSERA_DEVICE Range store_4(Global<std::byte> row, uint32_t lane, bool real, const Elements& x) {
  float largest = x.at[0];
  float smallest = x.at[0];
  for (uint32_t i = 1; i < 8; ++i) {
    largest = x.at[i] > largest ? x.at[i] : largest;
    smallest = x.at[i] < smallest ? x.at[i] : smallest;
  }
  // Lanes beyond the row hold copies of its first elements.
  largest = warp_largest(largest);
  smallest = -warp_largest(-smallest);
  const Range range = {float_to_half(divide_rn(add_rn(largest, -smallest), 15.0f)), float_to_half(smallest)};
  const float scale = half_to_float(range.scale);
  const float low = half_to_float(range.minimum);
  uint32_t word = 0;
  for (uint32_t i = 0; i < 8 && scale != 0; ++i) {
    const auto code =
        static_cast<uint32_t>(clamped(round_even(divide_rn(add_rn(x.at[i], -low), scale)), 0.0f, 15.0f));
    word |= code << (8 * (i % 4) + 4 * (i / 4));
  }
  if (real) row.as<uint32_t>().store(lane, word);
  return range;
}

TESSERA_KERNEL TESSERA_BLOCK_OF(kThreads) void store_rows(KvStoreJob job) {
  const uint32_t head = block_y();
  const bool is_value = warp_index() == 1;
  const uint32_t lane = lane_index();
  const bool real = lane < job.kv.head_dim / 8;
  const uint32_t column = (job.query_heads + head + (is_value ? job.kv.kv_heads : 0)) * job.kv.head_dim;
  const Global<const Floats4> from = job.qkv.floats(block_x()).as<const Floats4>(4 * size_t{column});
  const uint32_t source = real ? lane : 0;
  const Floats4 low = from[2 * source];
  const Floats4 high = from[2 * source + 1];
  const Elements x = {{low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}};

  const uint32_t position = job.positions[block_x()];
  const uint32_t page = job.page_ids[job.first_page[block_x()] + position / kPageTokens];
  const uint32_t slot = position % kPageTokens;
  const Global<std::byte> block = job.kv.block(page, head);
  const Global<std::byte> row = is_value ? job.kv.value(block, slot) : job.kv.key(block, slot);
  if (job.kv.bits == 16) {
    if (real) store_16(row, lane, x);
    return;
  }
  const auto scales = job.kv.parameters(block, is_value ? KvParameter::value_scale : KvParameter::key_scale);
  if (job.kv.bits == 8) {
    const uint16_t scale = store_8(row, lane, real, x);
    if (lane == 0) scales.store(slot, scale);
    return;
  }
  const auto minima =
      job.kv.parameters(block, is_value ? KvParameter::value_minimum : KvParameter::key_minimum);
  const Range range = store_4(row, lane, real, x);
  if (lane == 0) {
    scales.store(slot, range.scale);
    minima.store(slot, range.minimum);
  }
}

}  // namespace

void kv_store(Queue& queue, const KvStoreJob& job, uint32_t rows) {
  launch(queue, {rows, job.kv.kv_heads, 1, kThreads, 0}, &store_rows, job);
}

}  // namespace tessera::cuda
