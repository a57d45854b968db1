// The values of one row, distributed over the threads of a block: in quads of 4 columns, of which each thread
// has every block_size()-th. A thread keeps its first quads in registers, so that they are computed once.
#pragma once

#include "backends/cuda/device/views.h"

namespace tessera::cuda {

// Few enough for a block to fit on a multiprocessor beside a block of a product that still runs.
inline constexpr uint32_t kMostRowThreads = 512;
// Rows are padded with zeros to a multiple of this number of columns, so that all lanes of a warp visit the
// same number of quads.
inline constexpr uint32_t kRowPad = 256;

struct Quad {
  float at[4];
};

TESSERA_BOTH constexpr uint32_t padded_quads(uint32_t columns) {
  return (columns + kRowPad - 1) / kRowPad * (kRowPad / 4);
}
// Threads of a block for rows of `columns` columns. It depends on nothing else, so that sums are always added
// in the same order.
constexpr uint32_t row_threads(uint32_t columns) {
  return padded_quads(columns) < kMostRowThreads ? padded_quads(columns) : kMostRowThreads;
}

// The same for kernels in which a thread has single columns instead of quads.
constexpr uint32_t row_threads_by_columns(uint32_t columns) {
  return columns < kMostRowThreads ? (columns + 31) / 32 * 32 : kMostRowThreads;
}

// Columns 4 quad … 4 quad + 3 of the row `from` of `columns` columns, zero beyond its end. A row whose
// columns are a multiple of 4 must be aligned to 16 bytes.
TESSERA_DEVICE Quad load_quad(Global<const float> from, uint32_t columns, uint32_t quad) {
  const uint32_t first = 4 * quad;
  if (columns % 4 == 0) {
    if (first >= columns) return {};
    const Floats4 values = from.as<const Floats4>()[quad];
    return {{values.x, values.y, values.z, values.w}};
  }
  Quad result{};
  TESSERA_UNROLL
  for (uint32_t i = 0; i < 4; ++i) {
    if (first + i < columns) result.at[i] = from[first + i];
  }
  return result;
}
TESSERA_DEVICE void store_quad(Global<float> to, uint32_t columns, uint32_t quad, const Quad& value) {
  const uint32_t first = 4 * quad;
  if (columns % 4 == 0) {
    if (first < columns) to.as<Floats4>().store(quad, {value.at[0], value.at[1], value.at[2], value.at[3]});
    return;
  }
  TESSERA_UNROLL
  for (uint32_t i = 0; i < 4; ++i) {
    if (first + i < columns) to.store(first + i, value.at[i]);
  }
}

// make(quad) computes a quad of the row. It is called once for each quad that is kept in registers and again
// at each visit of the others, so it must always return the same.
template <uint32_t kHeld, class Make>
class RowQuads {
 public:
  TESSERA_DEVICE RowQuads(uint32_t columns, const Make& make) : quads_(padded_quads(columns)), make_(make) {
    TESSERA_UNROLL
    for (uint32_t i = 0; i < kHeld; ++i) {
      const uint32_t quad = thread_index() + i * block_size();
      if (quad < quads_) held_[i] = make_(quad);
    }
  }

  // Calls visit(quad, values) for each of the thread's quads, the same number of times in all lanes of a
  // warp.
  template <class Visit>
  TESSERA_DEVICE void each(const Visit& visit) const {
    each_with(*this, [&](uint32_t quad, const Quad& value, const Quad&) { visit(quad, value); });
  }
  // Calls visit(quad, values, values of `other`), another row with as many columns.
  template <class Other, class Visit>
  TESSERA_DEVICE void each_with(const RowQuads<kHeld, Other>& other, const Visit& visit) const {
    TESSERA_UNROLL
    for (uint32_t i = 0; i < kHeld; ++i) {
      const uint32_t quad = thread_index() + i * block_size();
      if (quad < quads_) visit(quad, held_[i], other.held_[i]);
    }
    for (uint32_t quad = thread_index() + kHeld * block_size(); quad < quads_; quad += block_size())
      visit(quad, make_(quad), other.make_(quad));
  }

 private:
  template <uint32_t, class>
  friend class RowQuads;

  uint32_t quads_;
  Make make_;
  Quad held_[kHeld];
};

// kHeld: quads that a thread keeps in registers; rows of up to 2048 kHeld columns are kept whole.
template <uint32_t kHeld, class Make>
TESSERA_DEVICE RowQuads<kHeld, Make> row_quads(uint32_t columns, const Make& make) {
  return RowQuads<kHeld, Make>(columns, make);
}

}  // namespace tessera::cuda
