#include "backends/cuda/emulator/emulated_warpgroup.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <vector>

#include "backends/cuda/emulator/machine_state.h"
#include "gguf-like-format/float_types.h"

namespace tessera::cuda {

namespace {

using emulator::Fault;
using emulator::Thread;

constexpr uint32_t kGroupThreads = emulator::kGroupWarps * emulator::kWarpLanes;
constexpr uint32_t kRows = 64;
constexpr uint32_t kRowBytes = 32;  // of B in a product: 32 columns, or 16 of bf16
constexpr uint32_t kPoison = 0x5bad5bad;

using emulated::Elements;
using emulated::Operands;

void require_warpgroups(const char* what) {
  const auto& kind = emulator::device_kind();
  if (kind.major != 9 || kind.minor != 0)
    throw Fault(fmt::format("{}: the device has compute capability {}.{}", what, kind.major, kind.minor));
}

// Offset in shared memory of byte k of row n of B. The descriptor's fields, by the PTX manual: bits 0-13 the
// start, 16-29 the leading and 32-45 the stride byte offset, each divided by 16; 49-51 the base offset; 62-63
// the swizzle mode. With columns side by side and swizzling over 128 bytes (mode 1), eight rows of 128 bytes
// make an atom of 1024, atoms follow each other at the stride, the leading offset is not used, and bits 4-6
// of an address are its own exclusive-or with bits 7-9.
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
    if (start % 128 + kRowBytes > 128) throw Fault("wgmma: columns beyond the atom's 128 bytes");
  }
  // k: in bytes
  size_t byte(uint32_t n, uint32_t k) const {
    const size_t linear = start + n / 8 * stride + n % 8 * 128 + k;
    return linear ^ (linear >> 7 & 7) << 4;
  }
};

// Checks that all bytes of B have been written, those that threads wrote before a proxy fence of the writer
// or of the reader.
void check_tile(const Layout& layout, uint32_t tokens, const Thread& reader) {
  auto& m = emulator::machine();
  for (uint32_t atom = 0; atom < tokens / 8; ++atom) {
    for (uint32_t n = 8 * atom; n < 8 * atom + 8; ++n) {
      for (uint32_t k = 0; k < kRowBytes; k += 16) {
        const std::byte* at = m.shared.base() + layout.byte(n, k);
        m.shared.check(at, 16, emulator::Access::read, emulator::accessor(reader), reader.knowledge);
        m.shared.writers(at, 16, [&](const emulator::Accessor& writer) {
          if (std::max(m.threads[writer.thread]->proxy_fence, reader.proxy_fence) <= writer.time)
            throw Fault(fmt::format("wgmma reads what thread {} wrote with no proxy fence in between",
                                    writer.thread));
        });
      }
    }
  }
}

// A [64 rows] and B [tokens] as doubles, which hold every sum of integers and every product of bf16 exactly.
struct Matrices {
  uint32_t columns;
  std::vector<double> a;
  std::vector<double> b;

  double dot(double sum, uint32_t row, uint32_t token) const {
    for (uint32_t k = 0; k < columns; ++k) sum += a[row * columns + k] * b[token * columns + k];
    return sum;
  }
};

// Element i of the four bytes at `word`: of A, or of B, whose bytes are signed.
double element(Elements elements, const void* word, uint32_t i, bool of_a) {
  std::array<uint8_t, 4> bytes;
  std::memcpy(bytes.data(), word, sizeof bytes);
  if (elements == Elements::bf16)
    return bf16_to_f32(static_cast<uint16_t>(bytes[2 * i] | bytes[2 * i + 1] << 8));
  const int byte = of_a && elements == Elements::u8s8 ? bytes[i] : static_cast<int8_t>(bytes[i]);
  return static_cast<double>(byte);
}

// Reads A from the registers of all threads and B from shared memory. By the PTX manual each warp has 16 rows
// of A in the fragments of mma.m16n8k32, or m16n8k16 for bf16.
void gather(Matrices& to, const std::array<const Operands*, kGroupThreads>& operands, const Layout& layout) {
  const Operands& first = *operands[0];
  const uint32_t word_elements = first.elements == Elements::bf16 ? 2 : 4;
  to.columns = 8 * word_elements;
  to.a.resize(size_t{kRows} * to.columns);
  to.b.resize(size_t{first.tokens} * to.columns);
  for (uint32_t i = 0; i < kGroupThreads; ++i) {
    for (uint32_t r = 0; r < 4; ++r) {
      const uint32_t row = 16 * (i / 32) + i % 32 / 4 + 8 * (r % 2);
      const uint32_t word = 4 * (r / 2) + i % 4;
      for (uint32_t j = 0; j < word_elements; ++j)
        to.a[row * to.columns + word_elements * word + j] =
            element(first.elements, operands[i]->a + r, j, true);
    }
  }
  for (uint32_t n = 0; n < first.tokens; ++n) {
    for (uint32_t k = 0; k < to.columns; ++k)
      to.b[n * to.columns + k] =
          element(first.elements, emulator::machine().shared.base() + layout.byte(n, k / word_elements * 4),
                  k % word_elements, false);
  }
}

// The bits of a sum plus the product of a row and a token. Integers wrap around. The manual leaves the
// rounding of float32 sums open; here, as with mma, they are rounded once.
uint32_t added(Elements elements, uint32_t bits, const Matrices& matrices, uint32_t row, uint32_t token) {
  if (elements == Elements::bf16)
    return std::bit_cast<uint32_t>(
        static_cast<float>(matrices.dot(double{std::bit_cast<float>(bits)}, row, token)));
  return static_cast<uint32_t>(
      static_cast<int64_t>(matrices.dot(static_cast<double>(std::bit_cast<int32_t>(bits)), row, token)));
}

// Computes the product of a warpgroup. A thread's sums are in the order of mma's, 8 columns for each four
// registers.
void multiply(uint32_t first_thread) {
  auto& m = emulator::machine();
  std::array<const Operands*, kGroupThreads> operands{};
  for (uint32_t i = 0; i < kGroupThreads; ++i)
    operands[i] = static_cast<const Operands*>(m.threads[first_thread + i]->operand);
  const Operands& first = *operands[0];
  const uint32_t tokens = first.tokens;
  for (uint32_t i = 0; i < kGroupThreads; ++i) {
    const Operands& own = *operands[i];
    if (own.elements != first.elements || own.tokens != tokens || own.b != first.b ||
        own.accumulate != first.accumulate)
      throw Fault(
          fmt::format("wgmma: threads {} and {} disagree about the product", first_thread, first_thread + i));
  }
  const Layout layout(first.b);
  for (uint32_t warp = 0; warp < emulator::kGroupWarps; ++warp)
    check_tile(layout, tokens, *m.threads[first_thread + warp * emulator::kWarpLanes]);
  static Matrices matrices;
  gather(matrices, operands, layout);
  const std::byte* tile = m.shared.base() + (layout.start & ~size_t{127});
  const size_t tile_bytes = (tokens / 8 - 1) * layout.stride + 1024;
  m.shared.begin_product_read(tile, tile_bytes);
  std::vector<uint32_t> registers(tokens / 2);
  for (uint32_t i = 0; i < kGroupThreads; ++i) {
    Thread& thread = *m.threads[first_thread + i];
    const Operands& own = *operands[i];
    const auto same = [&](const emulator::Product& p) { return p.sums == own.sums; };
    auto before = std::find_if(thread.products.rbegin(), thread.products.rend(), same);
    emulator::Product product{own.sums, {}, own.a,       {own.a[0], own.a[1], own.a[2], own.a[3]},
                              nullptr,  0,  thread.batch};
    std::memcpy(registers.data(), own.sums, 4 * registers.size());
    if (before != thread.products.rend()) {
      if (std::any_of(registers.begin(), registers.end(), [](uint32_t v) { return v != kPoison; }))
        throw Fault("wgmma: sums were touched while a product was adding to them");
      product.values = before->values;
    } else {
      product.values = registers;
    }
    if (!own.accumulate) std::fill(product.values.begin(), product.values.end(), 0);
    for (uint32_t j = 0; j < tokens / 2; ++j) {
      const uint32_t row = 16 * (i / 32) + i % 32 / 4 + 8 * (j / 2 % 2);
      const uint32_t token = 8 * (j / 4) + 2 * (i % 4) + j % 2;
      product.values[j] = added(own.elements, product.values[j], matrices, row, token);
    }
    std::fill(registers.begin(), registers.end(), kPoison);
    std::memcpy(own.sums, registers.data(), 4 * registers.size());
    if (i == 0) {
      product.tile = tile;
      product.tile_bytes = tile_bytes;
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

void wgmma(const Operands& operands) {
  require_warpgroups("wgmma");
  auto& m = emulator::machine();
  Thread& thread = emulator::current_thread();
  if (!thread.registers_fenced) throw Fault("wgmma: registers were not fenced before the first product");
  const uint32_t group = thread.at.thread / kGroupThreads;
  if (group >= m.groups.size()) throw Fault("wgmma: the last warps of the block are no whole warpgroup");
  thread.operand = &operands;
  m.groups[group].operation = "wgmma";
  if (++m.groups[group].arrived < kGroupThreads) {
    emulator::wait_until_ready(thread, emulator::State::at_group);
    return;
  }
  m.groups[group].arrived = 0;
  multiply(group * kGroupThreads);
  for (uint32_t i = 0; i < kGroupThreads; ++i) {
    Thread& other = *m.threads[group * kGroupThreads + i];
    if (&other != &thread) emulator::make_ready(other);
  }
}

void wgmma_wait(uint32_t batches_left) {
  auto& m = emulator::machine();
  Thread& thread = emulator::current_thread();
  auto& products = thread.products;
  while (!products.empty() && products.front().batch + batches_left < thread.batch) {
    const emulator::Product done = std::move(products.front());
    products.erase(products.begin());
    if (std::memcmp(done.operand, done.operand_was.data(), sizeof done.operand_was) != 0)
      throw Fault("wgmma: registers of A changed before the product was waited for");
    if (done.tile != nullptr)
      m.shared.end_product_read(done.tile, done.tile_bytes, emulator::accessor(thread));
    const auto same = [&](const emulator::Product& p) { return p.sums == done.sums; };
    if (std::none_of(products.begin(), products.end(), same))
      std::memcpy(done.sums, done.values.data(), 4 * done.values.size());
  }
}

}  // namespace emulated

void wgmma_fence() { emulator::current_thread().registers_fenced = true; }

void wgmma_commit() {
  Thread& thread = emulator::current_thread();
  ++thread.batch;
  thread.registers_fenced = false;
}

}  // namespace tessera::cuda
