#include "tests/simt/warpgroup.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "tests/simt/machine_state.h"

namespace tessera::cuda {

namespace {

using simt::Fault;
using simt::Thread;

constexpr uint32_t kGroupThreads = simt::kGroupWarps * simt::kWarpLanes;
constexpr uint32_t kRows = 64;
constexpr uint32_t kColumns = 32;
constexpr int32_t kPoison = 0x5bad5bad;

struct Operands {
  uint32_t tokens;
  int32_t* sums;
  const uint32_t* a;
  uint64_t b;
  bool accumulate;
};

void require_warpgroups(const char* what) {
  const auto& kind = simt::device_kind();
  if (kind.major != 9 || kind.minor != 0)
    throw Fault(fmt::format("{}: the device has compute capability {}.{}", what, kind.major, kind.minor));
}

// Where byte k of row n of B lies, as bytes from the start of shared memory. The descriptor's fields, by the
// PTX manual: bits 0-13 the start, 16-29 the leading and 32-45 the stride byte offset, each divided by 16;
// 49-51 the base offset; 62-63 the swizzle mode. With columns side by side and swizzling over 128 bytes (mode
// 1), eight rows of 128 bytes make an atom of 1024, atoms follow each other at the stride, the leading offset
// is not used, and bits 4-6 of an address are its own exclusive-or with bits 7-9.
struct Layout {
  size_t start;
  size_t stride;

  explicit Layout(uint64_t descriptor) {
    start = static_cast<size_t>(descriptor & 0x3fff) * 16;
    stride = static_cast<size_t>(descriptor >> 32 & 0x3fff) * 16;
    const auto mode = static_cast<unsigned>(descriptor >> 62);
    if (mode != 1) throw Fault(fmt::format("wgmma: swizzle mode {} is not emulated", mode));
    if ((descriptor >> 49 & 7) != 0 || (start & ~size_t{127}) % 1024 != 0 || stride % 1024 != 0)
      throw Fault(
          fmt::format("wgmma: atoms at {} + i * {} do not begin at multiples of 1024 bytes", start, stride));
    if (start % 128 + kColumns > 128) throw Fault("wgmma: columns beyond the atom's 128 bytes");
  }
  size_t byte(uint32_t n, uint32_t k) const {
    const size_t linear = start + n / 8 * stride + n % 8 * 128 + k;
    return linear ^ (linear >> 7 & 7) << 4;
  }
};

// All bytes of B must have arrived, and those that threads wrote must lie before a fence of the writer or of
// the reader.
void check_tile(const Layout& layout, uint32_t tokens, const Thread& reader) {
  auto& m = simt::machine();
  for (uint32_t atom = 0; atom < tokens / 8; ++atom) {
    for (uint32_t n = 8 * atom; n < 8 * atom + 8; ++n) {
      for (uint32_t k = 0; k < kColumns; k += 16) {
        const std::byte* at = m.shared.base() + layout.byte(n, k);
        m.shared.check(at, 16, simt::Access::read, simt::visitor(reader), reader.knowledge);
        m.shared.writers(at, 16, [&](const simt::Visitor& writer) {
          if (std::max(m.threads[writer.thread]->proxy_fence, reader.proxy_fence) <= writer.time)
            throw Fault(fmt::format("wgmma reads what thread {} wrote with no proxy fence in between",
                                    writer.thread));
        });
      }
    }
  }
}

// What a thread holds of A and of the sums, by the manual: those of mma.m16n8k32, with 16 rows for each warp
// and 8 columns of sums for each four registers.
void multiply(uint32_t first_thread) {
  auto& m = simt::machine();
  const auto operands_of = [&](uint32_t i) {
    return static_cast<const Operands*>(m.threads[first_thread + i]->operand);
  };
  const Operands& first = *operands_of(0);
  const uint32_t tokens = first.tokens;
  static std::vector<int32_t> a(kRows * kColumns);
  static std::vector<int32_t> b;
  b.resize(size_t{tokens} * kColumns);
  for (uint32_t i = 0; i < kGroupThreads; ++i) {
    const Operands& own = *operands_of(i);
    if (own.tokens != tokens || own.b != first.b || own.accumulate != first.accumulate)
      throw Fault(
          fmt::format("wgmma: threads {} and {} disagree about the product", first_thread, first_thread + i));
    const uint32_t row = 16 * (i / 32) + i % 32 / 4;
    for (uint32_t r = 0; r < 4; ++r) {
      for (uint32_t j = 0; j < 4; ++j)
        a[(row + 8 * (r % 2)) * kColumns + 16 * (r / 2) + 4 * (i % 4) + j] =
            static_cast<int32_t>(own.a[r] >> (8 * j) & 255);
    }
  }
  const Layout layout(first.b);
  for (uint32_t warp = 0; warp < simt::kGroupWarps; ++warp)
    check_tile(layout, tokens, *m.threads[first_thread + warp * simt::kWarpLanes]);
  for (uint32_t n = 0; n < tokens; ++n) {
    for (uint32_t k = 0; k < kColumns; ++k)
      b[n * kColumns + k] = static_cast<int8_t>(m.shared.base()[layout.byte(n, k)]);
  }
  const std::byte* lent = m.shared.base() + (layout.start & ~size_t{127});
  const size_t lent_bytes = (tokens / 8 - 1) * layout.stride + 1024;
  m.shared.lend(lent, lent_bytes);
  for (uint32_t i = 0; i < kGroupThreads; ++i) {
    Thread& thread = *m.threads[first_thread + i];
    const Operands& own = *operands_of(i);
    const auto same = [&](const simt::Product& p) { return p.sums == own.sums; };
    auto before = std::find_if(thread.products.rbegin(), thread.products.rend(), same);
    simt::Product product{own.sums, {}, own.a,       {own.a[0], own.a[1], own.a[2], own.a[3]},
                          nullptr,  0,  thread.batch};
    if (before != thread.products.rend()) {
      if (std::any_of(own.sums, own.sums + tokens / 2, [](int32_t v) { return v != kPoison; }))
        throw Fault("wgmma: sums were touched while a product was adding to them");
      product.values = before->values;
    } else {
      product.values.assign(own.sums, own.sums + tokens / 2);
    }
    if (!own.accumulate) std::fill(product.values.begin(), product.values.end(), 0);
    for (uint32_t j = 0; j < tokens / 2; ++j) {
      const uint32_t row = 16 * (i / 32) + i % 32 / 4 + 8 * (j / 2 % 2);
      const uint32_t column = 8 * (j / 4) + 2 * (i % 4) + j % 2;
      int32_t sum = 0;
      for (uint32_t k = 0; k < kColumns; ++k) sum += a[row * kColumns + k] * b[column * kColumns + k];
      product.values[j] =
          static_cast<int32_t>(static_cast<uint32_t>(product.values[j]) + static_cast<uint32_t>(sum));
    }
    std::fill(own.sums, own.sums + tokens / 2, kPoison);
    if (i == 0) {
      product.lent = lent;
      product.lent_bytes = lent_bytes;
    }
    thread.products.push_back(std::move(product));
  }
}

}  // namespace

namespace emulated {

void set_registers(uint32_t count) {
  require_warpgroups("setmaxnreg");
  if (count < 24 || count > 256 || count % 8 != 0)
    throw Fault(fmt::format("setmaxnreg: {} registers", count));
}

void wgmma(uint32_t tokens, int32_t* sums, const uint32_t (&a)[4], uint64_t b, bool accumulate) {
  require_warpgroups("wgmma");
  auto& m = simt::machine();
  Thread& thread = simt::self();
  if (!thread.registers_fenced) throw Fault("wgmma: registers were not fenced before the first product");
  const uint32_t group = thread.at.thread / kGroupThreads;
  if (group >= m.groups.size()) throw Fault("wgmma: the last warps of the block are no whole warpgroup");
  const Operands operands{tokens, sums, a, b, accumulate};
  thread.operand = &operands;
  m.groups[group].operation = "wgmma";
  if (++m.groups[group].arrived < kGroupThreads) {
    simt::wait_until_ready(thread, simt::State::at_group);
    return;
  }
  m.groups[group].arrived = 0;
  multiply(group * kGroupThreads);
  for (uint32_t i = 0; i < kGroupThreads; ++i) {
    Thread& other = *m.threads[group * kGroupThreads + i];
    if (&other != &thread) simt::make_ready(other);
  }
}

void wgmma_wait(uint32_t batches_left) {
  auto& m = simt::machine();
  Thread& thread = simt::self();
  auto& products = thread.products;
  while (!products.empty() && products.front().batch + batches_left < thread.batch) {
    const simt::Product done = std::move(products.front());
    products.erase(products.begin());
    if (std::memcmp(done.operand, done.operand_was.data(), sizeof done.operand_was) != 0)
      throw Fault("wgmma: registers of A changed before the product was waited for");
    if (done.lent != nullptr) m.shared.give_back(done.lent, done.lent_bytes, simt::visitor(thread));
    const auto same = [&](const simt::Product& p) { return p.sums == done.sums; };
    if (std::none_of(products.begin(), products.end(), same))
      std::copy(done.values.begin(), done.values.end(), done.sums);
  }
}

}  // namespace emulated

void wgmma_fence() { simt::self().registers_fenced = true; }

void wgmma_commit() {
  Thread& thread = simt::self();
  ++thread.batch;
  thread.registers_fenced = false;
}

}  // namespace tessera::cuda
