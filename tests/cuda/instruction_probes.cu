#include "tests/cuda/instruction_probes.h"

#include <array>
#include <type_traits>

#include "backends/cuda/device/launch.h"
#include "backends/cuda/gemm/kernels/sm90_int8_tiles.h"

namespace tessera::cuda {

namespace {

template <unsigned kWords>
struct LaneWords {
  uint32_t at[kWords];
};

template <unsigned kWords>
TESSERA_DEVICE LaneWords<kWords> take(const ProbeJob& job) {
  LaneWords<kWords> words;
  for (unsigned i = 0; i < kWords; ++i) words.at[i] = job.in[lane_index() * kWords + i];
  return words;
}

template <unsigned kWords>
TESSERA_DEVICE void put(const ProbeJob& job, const uint32_t (&words)[kWords]) {
  for (unsigned i = 0; i < kWords; ++i) job.out.store(lane_index() * kWords + i, words[i]);
}

template <bool kSigned>
TESSERA_KERNEL void probe_mma(ProbeJob job) {
  const LaneWords<10> in = take<10>(job);
  const uint32_t a[4] = {in.at[0], in.at[1], in.at[2], in.at[3]};
  const uint32_t b[2] = {in.at[4], in.at[5]};
  int32_t d[4];
  for (unsigned i = 0; i < 4; ++i) d[i] = static_cast<int32_t>(in.at[6 + i]);
  if constexpr (kSigned) {
    mma_m16n8k32_s8(d, a, b);
  } else {
    mma_m16n8k32_u8s8(d, a, b);
  }
  const uint32_t out[4] = {static_cast<uint32_t>(d[0]), static_cast<uint32_t>(d[1]),
                           static_cast<uint32_t>(d[2]), static_cast<uint32_t>(d[3])};
  put(job, out);
}

TESSERA_KERNEL void probe_mma_f16(ProbeJob job) {
  const LaneWords<10> in = take<10>(job);
  const uint32_t a[4] = {in.at[0], in.at[1], in.at[2], in.at[3]};
  const uint32_t b[2] = {in.at[4], in.at[5]};
  float d[4];
  for (unsigned i = 0; i < 4; ++i) d[i] = bits_float(in.at[6 + i]);
  mma_m16n8k16_f16(d, a, b);
  const uint32_t out[4] = {float_bits(d[0]), float_bits(d[1]), float_bits(d[2]), float_bits(d[3])};
  put(job, out);
}

TESSERA_KERNEL void probe_mma_bf16(ProbeJob job) {
  const LaneWords<10> in = take<10>(job);
  const uint32_t a[4] = {in.at[0], in.at[1], in.at[2], in.at[3]};
  const uint32_t b[2] = {in.at[4], in.at[5]};
  float d[4];
  for (unsigned i = 0; i < 4; ++i) d[i] = bits_float(in.at[6 + i]);
  mma_m16n8k16_bf16(d, a, b);
  const uint32_t out[4] = {float_bits(d[0]), float_bits(d[1]), float_bits(d[2]), float_bits(d[3])};
  put(job, out);
}

TESSERA_KERNEL void probe_mma_tf32(ProbeJob job) {
  const LaneWords<10> in = take<10>(job);
  const uint32_t a[4] = {in.at[0], in.at[1], in.at[2], in.at[3]};
  const uint32_t b[2] = {in.at[4], in.at[5]};
  float d[4];
  for (unsigned i = 0; i < 4; ++i) d[i] = bits_float(in.at[6 + i]);
  mma_m16n8k8_tf32(d, a, b);
  const uint32_t out[4] = {float_bits(d[0]), float_bits(d[1]), float_bits(d[2]), float_bits(d[3])};
  put(job, out);
}

TESSERA_KERNEL void probe_ldmatrix(ProbeJob job) {
  const LaneWords<5> in = take<5>(job);
  const Shared<uint32_t> rows(shared_memory());
  for (unsigned i = 0; i < 4; ++i) rows.store(4 * lane_index() + i, in.at[i]);
  warp_barrier();
  uint32_t out[4];
  ldmatrix_x4(out, rows.as<uint32_t>(16 * (in.at[4] % 32)).address());
  put(job, out);
}

template <unsigned kMask>
TESSERA_KERNEL void probe_shuffle_xor(ProbeJob job) {
  const LaneWords<2> in = take<2>(job);
  const uint32_t out[1] = {shuffle_xor(in.at[0], kMask)};
  put(job, out);
}

TESSERA_KERNEL void probe_shuffle_from(ProbeJob job) {
  const LaneWords<2> in = take<2>(job);
  const uint32_t out[1] = {shuffle_from(in.at[0], in.at[1] % 32)};
  put(job, out);
}

enum class ThreeWords : uint8_t { prmt, lop3_96, lop3_ea, dp4a_s8, dp4a_u8s8 };

template <ThreeWords kWhich>
TESSERA_KERNEL void probe_three_words(ProbeJob job) {
  const LaneWords<3> in = take<3>(job);
  const uint32_t a = in.at[0];
  const uint32_t b = in.at[1];
  const uint32_t c = in.at[2];
  uint32_t out[1] = {0};
  if constexpr (kWhich == ThreeWords::prmt) out[0] = prmt(a, b, c);
  if constexpr (kWhich == ThreeWords::lop3_96) out[0] = lop3<0x96>(a, b, c);
  if constexpr (kWhich == ThreeWords::lop3_ea) out[0] = lop3<0xea>(a, b, c);
  if constexpr (kWhich == ThreeWords::dp4a_s8)
    out[0] = static_cast<uint32_t>(dp4a_s8(a, b, static_cast<int32_t>(c)));
  if constexpr (kWhich == ThreeWords::dp4a_u8s8)
    out[0] = static_cast<uint32_t>(dp4a_u8s8(a, b, static_cast<int32_t>(c)));
  put(job, out);
}

TESSERA_KERNEL void probe_float_to_half(ProbeJob job) {
  const LaneWords<1> in = take<1>(job);
  const uint32_t out[1] = {float_to_half(bits_float(in.at[0]))};
  put(job, out);
}

TESSERA_KERNEL void probe_half_to_float(ProbeJob job) {
  const LaneWords<1> in = take<1>(job);
  const uint32_t out[1] = {float_bits(half_to_float(static_cast<uint16_t>(in.at[0])))};
  put(job, out);
}

TESSERA_KERNEL void probe_floats_to_halves(ProbeJob job) {
  const LaneWords<2> in = take<2>(job);
  const uint32_t out[1] = {floats_to_halves(bits_float(in.at[0]), bits_float(in.at[1]))};
  put(job, out);
}

TESSERA_KERNEL void probe_floats_to_bf16s(ProbeJob job) {
  const LaneWords<2> in = take<2>(job);
  const uint32_t out[1] = {floats_to_bf16s(bits_float(in.at[0]), bits_float(in.at[1]))};
  put(job, out);
}

TESSERA_KERNEL void probe_power_of_two(ProbeJob job) {
  const LaneWords<1> in = take<1>(job);
  const uint32_t out[1] = {float_bits(power_of_two(bits_float(in.at[0])))};
  put(job, out);
}

TESSERA_KERNEL void probe_async_copy(ProbeJob job) {
  const uint32_t lane = lane_index();
  const Shared<std::byte> slots(shared_memory());
  // Four words of source and the flag lie 20 bytes apart; only every fourth lane's source is aligned to 16
  // bytes, so the sources are the first 32 groups of four words and the flags the last 32 words.
  const bool real = job.in[128 + lane] % 2 == 1;
  cp_async_16_or_zero(slots.as<std::byte>(16 * lane).address(),
                      job.in.as<const std::byte>(16 * lane).address(), real);
  cp_async_commit();
  cp_async_16(slots.as<std::byte>(512 + 16 * lane).address(),
              job.in.as<const std::byte>(16 * lane).address());
  cp_async_commit();
  cp_async_wait<1>();
  block_barrier();
  const Words4 words = slots.as<Words4>()[(lane + 9) % 32];
  cp_async_wait<0>();
  block_barrier();
  const Words4 second = slots.as<Words4>(512)[(lane + 9) % 32];
  const uint32_t out[4] = {words.x ^ second.x, words.y ^ second.y, words.z ^ second.z, words.w ^ second.w};
  put(job, out);
}

TESSERA_KERNEL void probe_part_copy(ProbeJob job) {
  const Shared<Words4> slots(shared_memory());
  cp_async_16_part(slots.as<std::byte>(16 * lane_index()).address(),
                   job.in.as<const std::byte>(16 * lane_index()).address(), job.in[128 + lane_index()] % 17);
  cp_async_commit();
  cp_async_wait<0>();
  block_barrier();
  job.out.as<Words4>().store(lane_index(), slots[(lane_index() + 9) % 32]);
}

TESSERA_KERNEL void probe_hinted_copy(ProbeJob job) {
  const Shared<Words4> slots(shared_memory());
  cp_async_16_hinted(slots.as<std::byte>(16 * lane_index()).address(),
                     job.in.as<const std::byte>(16 * lane_index()).address(), evict_first_policy());
  cp_async_commit();
  cp_async_wait<0>();
  block_barrier();
  job.out.as<Words4>().store(lane_index(), slots[(lane_index() + 9) % 32]);
}

TESSERA_KERNEL void probe_bulk_copy(ProbeJob job) {
  if constexpr (kHasBulkCopies) {
    std::byte* barrier = shared_memory() + 512;
    if (lane_index() == 0) {
      mbarrier_init(barrier, 2);
      mbarrier_init_fence();
    }
    block_barrier();
    const Shared<Words4> slots(shared_memory());
    Words4 words{};
    for (uint32_t phase = 0; phase < 2; ++phase) {  // first the lanes 16 further on, then those expected
      if (lane_index() == 0) {
        mbarrier_arrive_expect(barrier, 512);
        const uint32_t shift = phase == 0 ? 256 : 144;
        bulk_copy(slots.address(), job.in.as<const std::byte>(shift).address(), 512 - shift, barrier,
                  evict_normal_policy());
        bulk_copy(slots.as<std::byte>(512 - shift).address(), job.in.as<const std::byte>().address(), shift,
                  barrier, evict_first_policy());
      }
      if (lane_index() == 1) mbarrier_arrive(barrier);
      mbarrier_wait(barrier, phase);
      words = slots[lane_index()];
      warp_barrier();
    }
    job.out.as<Words4>().store(lane_index(), words);
  }
}

TESSERA_KERNEL void probe_named_barrier(ProbeJob job) {
  const Shared<uint32_t> slots(shared_memory());
  uint32_t word = job.in[thread_index()];
  if (thread_index() < 64) {
    slots.store(thread_index(), word);
    named_barrier(3, 64);
    word = slots[63 - thread_index()];
  }
  job.out.store(thread_index(), word);
}

TESSERA_KERNEL void probe_flags(ProbeJob job) {
  store_release(job.out.address() + lane_index(), job.in[lane_index()]);
  job.out.store(lane_index(), load_acquire(job.out.address() + lane_index()));
}

enum class Warpgroup : uint8_t { u8s8, s8, bf16 };

template <Warpgroup kWhich, uint32_t kTokens>
TESSERA_KERNEL TESSERA_BLOCK_OF(128) void probe_wgmma(ProbeJob job) {
  if constexpr (kHasWarpgroups) {
    using Sum = std::conditional_t<kWhich == Warpgroup::bf16, float, int32_t>;
    constexpr uint32_t kShare = kTokens / 4;
    const Shared<Words4> tile(shared_memory());
    const uint32_t thread = thread_index();
    uint32_t a[4][4];
    for (uint32_t i = 0; i < 16; ++i) a[i / 4][i % 4] = job.in[thread * (16 + kShare) + i];
    for (uint32_t i = 0; i < kShare; i += 4) {
      const uint32_t chunk = (thread * kShare + i) / 4;  // of B
      const Global<const uint32_t> words = job.in + (thread * (16 + kShare) + 16 + i);
      tile.as<Words4>(swizzled_chunk(chunk / 8, chunk % 8))
          .store(0, {words[0], words[1], words[2], words[3]});
    }
    proxy_fence();
    block_barrier();
    Sum sums[kTokens / 2] = {};
    const uint64_t b = swizzled_descriptor(shared_address(tile.address()));
    wgmma_fence();
    for (uint32_t step = 0; step < 4; ++step) {
      if constexpr (kWhich == Warpgroup::u8s8) wgmma_k32_u8s8(sums, a[step], advanced(b, step), step > 0);
      if constexpr (kWhich == Warpgroup::s8) wgmma_k32_s8(sums, a[step], advanced(b, step), step > 0);
      if constexpr (kWhich == Warpgroup::bf16) wgmma_k16_bf16(sums, a[step], advanced(b, step), step > 0);
    }
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_done(sums);
    for (uint32_t i = 0; i < kTokens / 2; ++i) {
      uint32_t bits;
      if constexpr (kWhich == Warpgroup::bf16)
        bits = float_bits(sums[i]);
      else
        bits = static_cast<uint32_t>(sums[i]);
      job.out.store(thread * (kTokens / 2) + i, bits);
    }
  }
}

template <void (*kKernel)(ProbeJob), uint32_t kThreads = 32, size_t kShared = 1024>
void run(Queue& queue, const ProbeJob& job) {
  launch(queue, {1, 1, 1, kThreads, kShared}, kKernel, job);
}

template <Warpgroup kWhich, uint32_t kTokens>
constexpr Probe wgmma_probe(const char* name) {
  return {name, 16 + kTokens / 4, kTokens / 2, &run<&probe_wgmma<kWhich, kTokens>, 128, kTokens * 128>,
          128,  Needs::warpgroups};
}

const std::array kProbes{
    Probe{"mma_s8", 10, 4, &run<&probe_mma<true>>},
    Probe{"mma_u8s8", 10, 4, &run<&probe_mma<false>>},
    Probe{"mma_f16", 10, 4, &run<&probe_mma_f16>},
    Probe{"mma_bf16", 10, 4, &run<&probe_mma_bf16>},
    Probe{"mma_tf32", 10, 4, &run<&probe_mma_tf32>},
    Probe{"ldmatrix_x4", 5, 4, &run<&probe_ldmatrix>},
    Probe{"shuffle_xor_1", 2, 1, &run<&probe_shuffle_xor<1>>},
    Probe{"shuffle_xor_2", 2, 1, &run<&probe_shuffle_xor<2>>},
    Probe{"shuffle_xor_16", 2, 1, &run<&probe_shuffle_xor<16>>},
    Probe{"shuffle_from", 2, 1, &run<&probe_shuffle_from>},
    Probe{"prmt", 3, 1, &run<&probe_three_words<ThreeWords::prmt>>},
    Probe{"lop3_96", 3, 1, &run<&probe_three_words<ThreeWords::lop3_96>>},
    Probe{"lop3_ea", 3, 1, &run<&probe_three_words<ThreeWords::lop3_ea>>},
    Probe{"dp4a_s8", 3, 1, &run<&probe_three_words<ThreeWords::dp4a_s8>>},
    Probe{"dp4a_u8s8", 3, 1, &run<&probe_three_words<ThreeWords::dp4a_u8s8>>},
    Probe{"float_to_half", 1, 1, &run<&probe_float_to_half>},
    Probe{"half_to_float", 1, 1, &run<&probe_half_to_float>},
    Probe{"floats_to_halves", 2, 1, &run<&probe_floats_to_halves>},
    Probe{"floats_to_bf16s", 2, 1, &run<&probe_floats_to_bf16s>},
    Probe{"power_of_two", 1, 1, &run<&probe_power_of_two>},
    Probe{"async_copy", 5, 4, &run<&probe_async_copy>},
    Probe{"part_copy", 5, 4, &run<&probe_part_copy>},
    Probe{"hinted_copy", 4, 4, &run<&probe_hinted_copy>},
    Probe{"bulk_copy", 4, 4, &run<&probe_bulk_copy>, 32, Needs::bulk_copies},
    Probe{"named_barrier", 1, 1, &run<&probe_named_barrier, 96>, 96},
    Probe{"flags", 1, 1, &run<&probe_flags>},
    wgmma_probe<Warpgroup::u8s8, 64>("wgmma_u8s8_64"),
    wgmma_probe<Warpgroup::u8s8, 128>("wgmma_u8s8_128"),
    wgmma_probe<Warpgroup::u8s8, 256>("wgmma_u8s8_256"),
    wgmma_probe<Warpgroup::s8, 64>("wgmma_s8_64"),
    wgmma_probe<Warpgroup::s8, 128>("wgmma_s8_128"),
    wgmma_probe<Warpgroup::bf16, 64>("wgmma_bf16_64"),
    wgmma_probe<Warpgroup::bf16, 128>("wgmma_bf16_128"),
};

}  // namespace

std::span<const Probe> instruction_probes() { return kProbes; }

}  // namespace tessera::cuda
