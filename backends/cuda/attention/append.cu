// The kernel after the query, key and value projections: rotates queries and keys, rounds keys and values,
// and stores them in their pages. A warp has one head of one row, each lane 8 elements.
#include "backends/cuda/attention/attention.h"
#include "backends/cuda/attention/warp_floats.h"
#include "backends/cuda/device/launch.h"

namespace tessera::cuda {

namespace {

constexpr uint32_t kWarps = 4;

TESSERA_DEVICE float clamped(float x, float low, float high) {
  const float above = x < low ? low : x;
  return above > high ? high : above;
}

struct Elements {
  float at[8];
};

TESSERA_DEVICE Elements load_elements(Global<const float> from) {
  const Floats4 low = from.as<const Floats4>()[0];
  const Floats4 high = from.as<const Floats4>()[1];
  return {{low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}};
}

// Elements `first` … `first` + 7 of the head at `from`, rotated in half-split pairs (i, i + half).
TESSERA_DEVICE Elements rotated(const AppendJob& job, Global<const float> from, uint32_t first) {
  const uint32_t half = job.half;
  Elements x = load_elements(from + first);
  if (first >= 2 * half) return x;
  const size_t table = size_t{block_x()} * half;
  if (half % 8 == 0) {
    const bool is_second = first >= half;
    const uint32_t pair = is_second ? first - half : first;
    const Elements other = load_elements(from + (is_second ? pair : first + half));
    const Elements cosines = load_elements(job.cosines + (table + pair));
    const Elements sines = load_elements(job.sines + (table + pair));
    TESSERA_UNROLL
    for (uint32_t i = 0; i < 8; ++i) {
      const float crossed = multiply_rn(other.at[i], sines.at[i]);
      x.at[i] = multiply_add(x.at[i], cosines.at[i], is_second ? crossed : -crossed);
    }
    return x;
  }
  TESSERA_UNROLL
  for (uint32_t i = 0; i < 8; ++i) {
    const uint32_t element = first + i;
    if (element >= 2 * half) break;
    const bool is_second = element >= half;
    const uint32_t pair = is_second ? element - half : element;
    const float crossed = multiply_rn(from[is_second ? pair : element + half], job.sines[table + pair]);
    x.at[i] = multiply_add(x.at[i], job.cosines[table + pair], is_second ? crossed : -crossed);
  }
  return x;
}

// Destination of the warp's key or value.
struct Place {
  Global<std::byte> part;  // key part or value part of the page
  uint32_t slot;
  bool is_value;
  bool real;  // the lane has elements of the head
};

TESSERA_DEVICE void store_parameter(const AppendJob& job, const Place& place, uint32_t kind, uint16_t value) {
  const uint32_t codes = place.is_value ? kv::value_code_bytes(job.kv.bits, job.kv.head_dim)
                                        : kv::key_code_bytes(job.kv.bits, job.kv.head_dim);
  place.part.as<uint16_t>(codes + kind * kv::kParameterBytes).store(kv::parameter_place(place.slot), value);
}

TESSERA_DEVICE bool holds_key(const AppendJob& job) {
  return lane_index() < 4 * kv::key_steps(job.kv.head_dim);
}

TESSERA_DEVICE Global<std::byte> key_place(const AppendJob& job, const Place& place) {
  return place.part + kv::key_byte(job.kv.bits, kv::key_steps(job.kv.head_dim), place.slot, lane_index());
}

constexpr uint32_t kHalfExponent = 0x7c00u;  // all ones: infinite, or not a number
constexpr uint16_t kHalfNan = 0x7fff;

// Scale and minimum of a row's codes, as f16; with 8 bits there is no minimum.
struct Parameters {
  uint16_t scale;
  uint16_t minimum;
};

// scale = max|x| / 127
TESSERA_DEVICE Parameters parameters_8(const Elements& x, bool real) {
  float largest = 0;
  TESSERA_UNROLL
  for (uint32_t i = 0; i < 8; ++i) {
    const float magnitude = bits_float(float_bits(x.at[i]) & 0x7fffffffu);
    largest = larger(largest, real ? magnitude : 0.0f);
  }
  return {float_to_half(divide_rn(warp_largest(largest), 127.0f)), 0};
}

// scale = (max - min) / 15
TESSERA_DEVICE Parameters parameters_4(const Elements& x) {
  float largest = x.at[0];
  float smallest = x.at[0];
  TESSERA_UNROLL
  for (uint32_t i = 1; i < 8; ++i) {
    largest = larger(largest, x.at[i]);
    smallest = -larger(-smallest, -x.at[i]);
  }
  // Lanes beyond the row hold copies of its first elements.
  largest = warp_largest(largest);
  smallest = -warp_largest(-smallest);
  return {float_to_half(divide_rn(add_rn(largest, -smallest), 15.0f)), float_to_half(smallest)};
}

// Parameters of a row that is stored as codes. All lanes must call it.
TESSERA_DEVICE Parameters parameters_of(uint32_t bits, const Elements& x, bool real) {
  return bits == 8 ? parameters_8(x, real) : parameters_4(x);
}

// Whether the lane's elements are finite and stay so in the page.
TESSERA_DEVICE bool fits(uint32_t bits, const Elements& x, const Parameters& all) {
  bool finite =
      (all.scale & kHalfExponent) != kHalfExponent && (all.minimum & kHalfExponent) != kHalfExponent;
  TESSERA_UNROLL
  for (uint32_t i = 0; i < 8; ++i) {
    const float magnitude = bits_float(float_bits(x.at[i]) & 0x7fffffffu);
    // From 65520 on a number is rounded to infinity in f16.
    finite = finite && magnitude < (bits == 16 ? 65520.0f : bits_float(0x7f800000u));
  }
  return finite;
}

TESSERA_DEVICE void store_16(const AppendJob& job, const Place& place, const Elements& x) {
  uint32_t pairs[4];
  TESSERA_UNROLL
  for (uint32_t i = 0; i < 4; ++i) pairs[i] = place.real ? floats_to_halves(x.at[2 * i], x.at[2 * i + 1]) : 0;
  if (!place.is_value) {
    if (holds_key(job)) key_place(job, place).as<Words4>().store(0, {pairs[0], pairs[1], pairs[2], pairs[3]});
    return;
  }
  TESSERA_UNROLL
  for (uint32_t i = 0; i < 8 && place.real; ++i)
    (place.part + kv::value_byte(16, place.slot, 8 * lane_index() + i))
        .as<uint16_t>()
        .store(0, static_cast<uint16_t>(pairs[i / 2] >> (16 * (i % 2))));
}

// code = round(x / scale) within +-127.
TESSERA_DEVICE void store_8(const AppendJob& job, const Place& place, const Elements& x,
                            const Parameters& parameters) {
  const float scale = half_to_float(parameters.scale);
  uint32_t words[2] = {0, 0};
  TESSERA_UNROLL
  for (uint32_t i = 0; i < 8 && scale != 0 && place.real; ++i) {
    const auto code = static_cast<int32_t>(clamped(round_even(divide_rn(x.at[i], scale)), -127.0f, 127.0f));
    words[i / 4] |= (static_cast<uint32_t>(code) & 255u) << (8 * (i % 4));
  }
  if (!place.is_value) {
    if (holds_key(job)) key_place(job, place).as<Words2>().store(0, {words[0], words[1]});
    return;
  }
  TESSERA_UNROLL
  for (uint32_t i = 0; i < 8 && place.real; ++i)
    (place.part + kv::value_byte(8, place.slot, 8 * lane_index() + i))
        .as<uint8_t>()
        .store(0, static_cast<uint8_t>(words[i / 4] >> (8 * (i % 4))));
}

// code = round((x - minimum) / scale) within 0 … 15.
TESSERA_DEVICE void store_4(const AppendJob& job, const Place& place, const Elements& x,
                            const Parameters& parameters) {
  const float scale = half_to_float(parameters.scale);
  const float low = half_to_float(parameters.minimum);
  uint32_t words[2] = {0, 0};
  TESSERA_UNROLL
  for (uint32_t i = 0; i < 8 && scale != 0 && place.real; ++i) {
    const auto code =
        static_cast<uint32_t>(clamped(round_even(divide_rn(add_rn(x.at[i], -low), scale)), 0.0f, 15.0f));
    words[i / 4] |= code << (8 * (i % 4));
  }
  if (!place.is_value) {
    if (holds_key(job)) key_place(job, place).as<uint32_t>().store(0, words[0] | words[1] << 4);
    return;
  }
  // The next lane's codes become the high nibbles.
  const uint32_t both[2] = {words[0] | shuffle_xor(words[0], 1) << 4, words[1] | shuffle_xor(words[1], 1)
                                                                                     << 4};
  TESSERA_UNROLL
  for (uint32_t i = 0; i < 8 && place.real && lane_index() % 2 == 0; ++i)
    (place.part + kv::value_byte(4, place.slot, 8 * lane_index() + i))
        .as<uint8_t>()
        .store(0, static_cast<uint8_t>(both[i / 4] >> (8 * (i % 4))));
}

TESSERA_KERNEL TESSERA_BLOCK_OF(32 * kWarps) void append_rows(AppendJob job) {
  // In this order: otherwise the small blocks of attention would all begin on the few multiprocessors that
  // are free while the product still runs on the others.
  griddepcontrol_wait();
  griddepcontrol_launch_dependents();
  const uint32_t first_head = job.half > 0 ? 0 : job.query_heads;
  const uint32_t head = first_head + block_y() * kWarps + warp_index();
  const uint32_t keys_end = job.query_heads + job.kv.kv_heads;
  if (head >= keys_end + job.kv.kv_heads) return;
  const uint32_t head_dim = job.kv.head_dim;
  const bool real = lane_index() < head_dim / 8;
  const uint32_t first = real ? 8 * lane_index() : 0;
  const Global<const float> from = job.x.floats(block_x()) + size_t{head} * head_dim;
  Elements x = head < keys_end ? rotated(job, from, first) : load_elements(from + first);
  warp_barrier();  // y may be x: all lanes have read
  if (head < job.query_heads) {
    if (!real) return;
    const Global<float> to = job.y.floats(block_x()) + (size_t{head} * head_dim + first);
    to.as<Floats4>().store(0, {x.at[0], x.at[1], x.at[2], x.at[3]});
    to.as<Floats4>().store(1, {x.at[4], x.at[5], x.at[6], x.at[7]});
    return;
  }
  const uint32_t position = job.positions[block_x()];
  const uint32_t page = job.page_ids[job.first_page[block_x()] + position / kPageTokens];
  const bool is_value = head >= keys_end;
  const Place place = {
      is_value ? job.kv.values(page, head - keys_end) : job.kv.keys(page, head - job.query_heads),
      position % kPageTokens, is_value, real};
  // A value that the page cannot hold must not be stored as infinity: tokens that do not see it give it the
  // weight 0, and 0 * infinity is NaN. It is stored as zero and its key as NaN, so that exactly the tokens
  // that see it get NaN. In 4 and 8 bits a key that the page cannot hold is stored as NaN as well.
  const uint32_t bits = job.kv.bits;
  const Elements value = is_value ? x : load_elements(from + (job.kv.kv_heads * head_dim + first));
  Parameters all = {};
  Parameters of_value = {};
  if (bits != 16) {
    all = parameters_of(bits, x, real);
    of_value = is_value ? all : parameters_of(bits, value, real);
  }
  const bool kept = fits(bits, value, of_value) && (is_value || bits == 16 || fits(bits, x, all));
  const bool lost = warp_largest(kept ? 0.0f : 1.0f) != 0;
  if (bits == 16) {
    TESSERA_UNROLL
    for (uint32_t i = 0; i < 8 && lost; ++i) x.at[i] = is_value ? 0.0f : half_to_float(kHalfNan);
    store_16(job, place, x);
    return;
  }
  if (lost) all = {0, 0};
  if (bits == 8) store_8(job, place, x, all);
  if (bits == 4) store_4(job, place, x, all);
  if (lane_index() != 0) return;
  store_parameter(job, place, 0, lost && !is_value ? kHalfNan : all.scale);
  if (bits == 4) store_parameter(job, place, 1, all.minimum);
}

}  // namespace

void append(Queue& queue, const AppendJob& job, uint32_t rows) {
  const uint32_t heads = 2 * job.kv.kv_heads + (job.half > 0 ? job.query_heads : 0);
  launch(queue, {rows, (heads + kWarps - 1) / kWarps, 1, 32 * kWarps, 0, true}, &append_rows, job);
}

}  // namespace tessera::cuda
