// Every instruction that kernels use, compared with plain arithmetic that follows its documentation, with
// fresh random operands. Run on the emulator, and on a device where the build has one.
#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include "gguf-like-format/float_types.h"
#include "tests/cuda/instruction_probes.h"

using namespace tessera;
using namespace tessera::cuda;

namespace {

using Random = std::mt19937;
using Words = std::vector<uint32_t>;

Random seeded(const char* what) {
  const uint32_t seed = std::random_device{}();
  std::cout << what << ": seed " << seed << "\n";
  return Random(seed);
}

uint32_t word(Random& random) { return static_cast<uint32_t>(random()); }

bool no_device() {
  const auto devices = find_devices();
  if (devices.ok()) return false;
  std::cout << "skipped: CUDA instructions: " << devices.error() << "\n";
  return true;
}

Words run_probe(const Probe& probe, const Words& in) {
  auto queue = Queue::create();
  REQUIRE(queue.ok());
  auto input = DeviceMemory::allocate(in.size() * 4);
  auto output = DeviceMemory::allocate(probe.threads * probe.outputs * 4);
  REQUIRE(input.ok());
  REQUIRE(output.ok());
  Words out(probe.threads * probe.outputs, 0xdeadbeef);
  queue.value()->upload(input.value().address(), std::as_bytes(std::span(in)));
  probe.run(*queue.value(), {input.value().view<const uint32_t>(), output.value().view<uint32_t>()});
  queue.value()->download(std::as_writable_bytes(std::span(out)), output.value().address());
  const Status status = queue.value()->finish();
  CAPTURE(probe.name);
  CHECK((status.ok() ? std::string() : status.error()) == "");
  return out;
}

int signed_byte(uint32_t w, unsigned i) { return static_cast<int8_t>(w >> (8 * i)); }
int unsigned_byte(uint32_t w, unsigned i) { return static_cast<uint8_t>(w >> (8 * i)); }

uint32_t expected_three_words(const std::string& name, uint32_t a, uint32_t b, uint32_t c) {
  if (name == "lop3_96") return a ^ b ^ c;
  if (name == "lop3_ea") return (a & b) | c;
  if (name == "prmt") {
    uint32_t result = 0;
    for (unsigned i = 0; i < 4; ++i) {
      const unsigned pick = c >> (4 * i) & 7;
      const uint32_t byte = (pick < 4 ? a >> (8 * pick) : b >> (8 * (pick - 4))) & 0xff;
      const bool sign = (c >> (4 * i) & 8) != 0;
      result |= (sign ? (byte >= 128 ? 0xffu : 0u) : byte) << (8 * i);
    }
    return result;
  }
  uint32_t sum = c;
  for (unsigned i = 0; i < 4; ++i) {
    const int left = name == "dp4a_s8" ? signed_byte(a, i) : unsigned_byte(a, i);
    sum += static_cast<uint32_t>(left * signed_byte(b, i));
  }
  return sum;
}

// The product of whole matrices, with fragments by the tables of the PTX manual: rows and columns of the 16
// elements of A, the 8 of B and the 4 of C that lane 0 holds; for lane l add l / 4 and a multiple of l % 4.
Words expected_mma(const Words& in, bool signed_a) {
  static constexpr int kRowA[4] = {0, 8, 0, 8};  // of register i
  static constexpr int kColumnA[4] = {0, 0, 16, 16};
  std::vector<int> a(16 * 32);
  std::vector<int> b(32 * 8);
  for (unsigned lane = 0; lane < 32; ++lane) {
    const uint32_t* words = in.data() + 10 * lane;
    for (unsigned r = 0; r < 4; ++r) {
      for (unsigned i = 0; i < 4; ++i) {
        const unsigned row = kRowA[r] + lane / 4;
        const unsigned column = kColumnA[r] + lane % 4 * 4 + i;
        a[row * 32 + column] = signed_a ? signed_byte(words[r], i) : unsigned_byte(words[r], i);
      }
    }
    for (unsigned r = 0; r < 2; ++r) {
      for (unsigned i = 0; i < 4; ++i)
        b[(16 * r + lane % 4 * 4 + i) * 8 + lane / 4] = signed_byte(words[4 + r], i);
    }
  }
  Words out(32 * 4);
  for (unsigned lane = 0; lane < 32; ++lane) {
    for (unsigned r = 0; r < 4; ++r) {
      const unsigned row = lane / 4 + 8 * (r / 2);
      const unsigned column = lane % 4 * 2 + r % 2;
      uint32_t sum = in[10 * lane + 6 + r];
      for (unsigned k = 0; k < 32; ++k) sum += static_cast<uint32_t>(a[row * 32 + k] * b[k * 8 + column]);
      out[4 * lane + r] = sum;
    }
  }
  return out;
}

// Results, each with the sum of the magnitudes of its terms, because the manual leaves the precision of sums
// open.
struct FloatProducts {
  std::vector<double> sums;
  std::vector<double> magnitudes;
};
// D of a warp, lane by lane: C, which is in the last four of a lane's ten words, plus A [16, columns] by B
// [columns, 8].
FloatProducts products_of(const Words& in, const std::vector<double>& a, const std::vector<double>& b,
                          unsigned columns) {
  FloatProducts products;
  for (unsigned lane = 0; lane < 32; ++lane) {
    for (unsigned r = 0; r < 4; ++r) {
      const unsigned row = lane / 4 + 8 * (r / 2);
      const unsigned column = lane % 4 * 2 + r % 2;
      double sum = std::bit_cast<float>(in[10 * lane + 6 + r]);
      double magnitude = std::abs(sum);
      for (unsigned k = 0; k < columns; ++k) {
        sum += a[row * columns + k] * b[k * 8 + column];
        magnitude += std::abs(a[row * columns + k] * b[k * 8 + column]);
      }
      products.sums.push_back(sum);
      products.magnitudes.push_back(magnitude);
    }
  }
  return products;
}

// The same as above for 16-bit floats: A [16, 16] by B [16, 8].
FloatProducts expected_float_mma(const Words& in, float (*value)(uint16_t)) {
  static constexpr int kRowA[4] = {0, 8, 0, 8};  // of register i
  static constexpr int kColumnA[4] = {0, 0, 8, 8};
  const auto half = [value](uint32_t w, unsigned i) {
    return double{value(static_cast<uint16_t>(w >> (16 * i)))};
  };
  std::vector<double> a(16 * 16);
  std::vector<double> b(16 * 8);
  for (unsigned lane = 0; lane < 32; ++lane) {
    const uint32_t* words = in.data() + 10 * lane;
    for (unsigned i = 0; i < 2; ++i) {
      for (unsigned r = 0; r < 4; ++r)
        a[(kRowA[r] + lane / 4) * 16 + kColumnA[r] + lane % 4 * 2 + i] = half(words[r], i);
      for (unsigned r = 0; r < 2; ++r) b[(8 * r + lane % 4 * 2 + i) * 8 + lane / 4] = half(words[4 + r], i);
    }
  }
  return products_of(in, a, b, 16);
}

// The same for tf32, by the manual's figure of mma.m16n8k8: A [16, 8] by B [8, 8].
FloatProducts expected_tf32_mma(const Words& in) {
  static constexpr unsigned kRowA[4] = {0, 8, 0, 8};  // of register i
  static constexpr unsigned kColumnA[4] = {0, 0, 4, 4};
  std::vector<double> a(16 * 8);
  std::vector<double> b(8 * 8);
  for (unsigned lane = 0; lane < 32; ++lane) {
    const uint32_t* words = in.data() + 10 * lane;
    for (unsigned r = 0; r < 4; ++r)
      a[(kRowA[r] + lane / 4) * 8 + kColumnA[r] + lane % 4] = double{std::bit_cast<float>(words[r])};
    for (unsigned r = 0; r < 2; ++r)
      b[(4 * r + lane % 4) * 8 + lane / 4] = double{std::bit_cast<float>(words[4 + r])};
  }
  return products_of(in, a, b, 8);
}

// The same by the manual's figures for wgmma.m64nNk32, or m64nNk16 with bf16: warp w has rows 16 w ... 16 w +
// 15 of A and D, as above; registers 4 j ... 4 j + 3 of D are columns 8 j ... 8 j + 7.
FloatProducts expected_wgmma(const Probe& probe, const Words& in) {
  const std::string name = probe.name;
  const bool brain = name.rfind("wgmma_bf16", 0) == 0;
  const unsigned in_word = brain ? 2 : 4;
  const unsigned columns = 32 * in_word;  // four products
  const auto value = [&](uint32_t w, unsigned i, bool of_a) {
    if (brain) return double{bf16_to_f32(static_cast<uint16_t>(w >> (16 * i)))};
    const bool is_signed = !of_a || name.rfind("wgmma_s8", 0) == 0;
    return static_cast<double>(is_signed ? signed_byte(w, i) : unsigned_byte(w, i));
  };
  std::vector<double> a(64 * columns);
  Words b;
  for (unsigned thread = 0; thread < 128; ++thread) {
    const uint32_t* words = in.data() + thread * probe.inputs;
    for (unsigned r = 0; r < 16; ++r) {
      const unsigned row = thread / 32 * 16 + thread % 32 / 4 + r % 2 * 8;
      const unsigned word = r / 4 * 8 + r / 2 % 2 * 4 + thread % 4;
      for (unsigned i = 0; i < in_word; ++i) a[row * columns + word * in_word + i] = value(words[r], i, true);
    }
    b.insert(b.end(), words + 16, words + probe.inputs);
  }
  FloatProducts products;
  for (unsigned thread = 0; thread < 128; ++thread) {
    for (unsigned i = 0; i < probe.outputs; ++i) {
      const unsigned row = thread / 32 * 16 + thread % 32 / 4 + i / 2 % 2 * 8;
      const unsigned column = i / 4 * 8 + thread % 4 * 2 + i % 2;
      double sum = 0;
      double magnitude = 0;
      for (unsigned k = 0; k < columns; ++k) {
        const double term = a[row * columns + k] * value(b[column * 32 + k / in_word], k % in_word, false);
        sum += term;
        magnitude += std::abs(term);
      }
      products.sums.push_back(sum);
      products.magnitudes.push_back(magnitude);
    }
  }
  return products;
}

// Floats of every magnitude: normal, subnormal as f16, ties, huge, infinite and NaN.
uint32_t any_float(Random& random) {
  switch (word(random) % 5) {
    case 0:
      return word(random);
    case 1:
      return 0x38000000u + word(random) % 0x1000000u;  // around the smallest normal half
    case 2:
      return (0x33000000u + word(random) % 0x4000000u) & 0xffffe000u;  // exact in half, nearly
    case 3:
      return 0x38800000u + (word(random) % 0x100u << 13) + 0x1000u;  // halfway
    default:
      return 0x47700000u + word(random) % 0x200000u;  // around the largest half
  }
}

Words expected(const Probe& probe, const Words& in) {
  const std::string name = probe.name;
  Words out;
  if (name == "mma_s8" || name == "mma_u8s8") return expected_mma(in, name == "mma_s8");
  if (name.rfind("wgmma_", 0) == 0) {
    for (const double sum : expected_wgmma(probe, in).sums)
      out.push_back(static_cast<uint32_t>(static_cast<int32_t>(sum)));
    return out;
  }
  for (unsigned lane = 0; lane < probe.threads; ++lane) {
    const uint32_t* own = in.data() + lane * probe.inputs;
    if (name == "ldmatrix_x4") {
      for (unsigned matrix = 0; matrix < 4; ++matrix) {
        const uint32_t row = in[(8 * matrix + lane / 4) * 5 + 4] % 32;
        out.push_back(in[row * 5 + lane % 4]);
      }
    } else if (name.rfind("shuffle_xor_", 0) == 0) {
      out.push_back(in[2 * (lane ^ static_cast<unsigned>(std::stoul(name.substr(12))))]);
    } else if (name == "shuffle_from") {
      out.push_back(in[2 * (own[1] % 32)]);
    } else if (name == "float_to_half") {
      out.push_back(f32_to_f16(std::bit_cast<float>(own[0])));
    } else if (name == "floats_to_halves") {
      out.push_back(f32_to_f16(std::bit_cast<float>(own[0])) |
                    static_cast<uint32_t>(f32_to_f16(std::bit_cast<float>(own[1]))) << 16);
    } else if (name == "floats_to_bf16s") {
      out.push_back(f32_to_bf16(std::bit_cast<float>(own[0])) |
                    static_cast<uint32_t>(f32_to_bf16(std::bit_cast<float>(own[1]))) << 16);
    } else if (name == "half_to_float") {
      out.push_back(std::bit_cast<uint32_t>(f16_to_f32(static_cast<uint16_t>(own[0]))));
    } else if (name == "part_copy") {
      const unsigned from = (lane + 9) % 32;
      uint32_t words[4] = {};
      std::memcpy(words, &in[4 * from], in[128 + from] % 17);
      out.insert(out.end(), words, words + 4);
    } else if (name == "hinted_copy" || name == "bulk_copy") {
      for (unsigned i = 0; i < 4; ++i) out.push_back(in[4 * ((lane + 9) % 32) + i]);
    } else if (name == "named_barrier") {
      out.push_back(lane < 64 ? in[63 - lane] : in[lane]);
    } else if (name == "flags") {
      out.push_back(own[0]);
    } else if (name == "async_copy") {
      const unsigned from = (lane + 9) % 32;
      for (unsigned i = 0; i < 4; ++i) out.push_back(in[128 + from] % 2 == 1 ? 0 : in[4 * from + i]);
    } else {
      out.push_back(expected_three_words(name, own[0], own[1], own[2]));
    }
  }
  return out;
}

bool can_run(const Probe& probe) {
  if (probe.needs == Needs::any) return true;
  auto queue = Queue::create();
  REQUIRE(queue.ok());
  const CodeFeatures& features = queue.value()->features();
  return probe.needs == Needs::bulk_copies ? features.bulk_copies : features.warpgroups;
}

// Whether the manual fixes every bit of the result.
bool is_exact(const std::string& name) {
  return name != "mma_f16" && name != "mma_tf32" && name.find("mma_bf16") == std::string::npos &&
         name != "power_of_two";
}

bool is_nan_half(uint32_t bits) { return (bits & 0x7fffu) > 0x7c00u; }
bool is_nan_bf16(uint32_t bits) { return (bits & 0x7fffu) > 0x7f80u; }
bool is_nan(uint32_t bits) { return (bits & 0x7fffffffu) > 0x7f800000u; }

}  // namespace

TEST_CASE("every instruction computes what its manual says") {
  if (no_device()) return;
  Random random = seeded("instructions");
  for (const Probe& probe : instruction_probes()) {
    const std::string name = probe.name;
    if (!is_exact(name)) continue;  // below
    if (!can_run(probe)) continue;
    const int rounds = probe.needs == Needs::warpgroups ? 4 : 20;
    for (int round = 0; round < rounds; ++round) {
      Words in(probe.threads * probe.inputs);
      for (uint32_t& w : in) w = name.rfind("float", 0) == 0 ? any_float(random) : word(random);
      if (name == "ldmatrix_x4") {
        // Every row is addressed once, in random order.
        for (unsigned lane = 0; lane < 32; ++lane)
          in[lane * 5 + 4] = (lane * 5 + static_cast<unsigned>(round)) % 32;
      }
      const Words correct = expected(probe, in);
      const Words got = run_probe(probe, in);
      CAPTURE(name);
      REQUIRE(got.size() == correct.size());
      for (size_t i = 0; i < got.size(); ++i) {
        if (name == "float_to_half" && is_nan_half(correct[i]) && is_nan_half(got[i])) continue;
        if (name == "floats_to_halves" || name == "floats_to_bf16s") {
          const auto is_no_number = name == "floats_to_bf16s" ? &is_nan_bf16 : &is_nan_half;
          for (unsigned half = 0; half < 2; ++half) {
            const uint32_t mine = got[i] >> (16 * half) & 0xffffu;
            const uint32_t right = correct[i] >> (16 * half) & 0xffffu;
            CHECK((mine == right || (is_no_number(mine) && is_no_number(right))));
          }
          continue;
        }
        if (name == "half_to_float" && is_nan(correct[i]) && is_nan(got[i])) continue;
        CAPTURE(i);
        CHECK(got[i] == correct[i]);
      }
    }
  }
}

TEST_CASE("instructions whose last bits are the device's own are as precise as kernels count on") {
  if (no_device()) return;
  Random random = seeded("inexact instructions");
  const auto uniform = [&](float low, float high) {
    return std::uniform_real_distribution<float>(low, high)(random);
  };
  for (const Probe& probe : instruction_probes()) {
    const std::string name = probe.name;
    if (is_exact(name) || !can_run(probe)) continue;
    const int rounds = probe.needs == Needs::warpgroups ? 4 : 20;
    for (int round = 0; round < rounds; ++round) {
      Words in(probe.threads * probe.inputs);
      if (name != "mma_tf32" && name != "power_of_two") {
        const bool brain = name != "mma_f16";
        // The sums of wgmma begin at zero: all inputs are operands.
        const bool group = probe.needs == Needs::warpgroups;
        const auto rounded = brain ? &f32_to_bf16 : &f32_to_f16;
        for (size_t i = 0; i < in.size(); ++i) {
          const bool whole = round % 2 == 0;  // integers, whose sums must be exact
          const auto number = [&] {
            const float x = uniform(-64.0f, 64.0f);
            return whole ? std::round(x) : x * std::exp2(uniform(-6.0f, 6.0f));
          };
          const float x = number();
          const float y = number();
          in[i] = group || i % 10 < 6 ? rounded(x) | static_cast<uint32_t>(rounded(y)) << 16
                                      : std::bit_cast<uint32_t>(x);
        }
        const FloatProducts correct =
            group ? expected_wgmma(probe, in) : expected_float_mma(in, brain ? &bf16_to_f32 : &f16_to_f32);
        const Words got = run_probe(probe, in);
        REQUIRE(got.size() == correct.sums.size());
        for (size_t i = 0; i < got.size(); ++i) {
          const double error = std::abs(correct.sums[i] - double{std::bit_cast<float>(got[i])});
          CHECK(error <= (round % 2 == 0 ? 0 : std::ldexp(correct.magnitudes[i], group ? -18 : -20)));
        }
      }
      if (name == "mma_tf32") {
        const bool whole = round % 2 == 0;  // integers, whose sums must be exact
        for (size_t i = 0; i < in.size(); ++i) {
          const float x = uniform(-64.0f, 64.0f);
          const float number = whole ? std::round(x) : x * std::exp2(uniform(-30.0f, 30.0f));
          in[i] = std::bit_cast<uint32_t>(number) & (i % 10 < 6 ? 0xffffe000u : 0xffffffffu);
        }
        const FloatProducts correct = expected_tf32_mma(in);
        const Words got = run_probe(probe, in);
        for (size_t i = 0; i < got.size(); ++i) {
          const double error = std::abs(correct.sums[i] - double{std::bit_cast<float>(got[i])});
          CHECK(error <= (whole ? 0 : std::ldexp(correct.magnitudes[i], -18)));
        }
      }
      if (name == "power_of_two") {
        const std::vector<float> special = {0.0f, 1.0f, -1.0f, -1e30f, -200.0f, 100.0f};
        for (size_t i = 0; i < in.size(); ++i)
          in[i] = std::bit_cast<uint32_t>(i < special.size() ? special[i] : uniform(-130.0f, 20.0f));
        in.back() = 0xff800000u;  // minus infinity
        const Words got = run_probe(probe, in);
        for (size_t i = 0; i < got.size(); ++i) {
          const double x = std::bit_cast<float>(in[i]);
          const double correct = std::exp2(x);
          const double result = std::bit_cast<float>(got[i]);
          CAPTURE(x);
          if (correct < std::exp2(-126.0) * (1 - 1e-6)) CHECK(result == 0);
          if (correct > std::exp2(-126.0) * (1 + 1e-6))
            CHECK(std::abs(result / correct - 1) <= std::exp2(-21.0));
        }
        CHECK(got[0] == std::bit_cast<uint32_t>(1.0f));
      }
    }
  }
}
