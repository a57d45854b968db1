// The values of one row as a whole block works on them: in quads of 4 columns, a thread has every
// block_size()-th. The first ones stay in its registers, so that what makes a value is read once.
#pragma once

#include "backends/cuda/device/views.h"

namespace tessera::cuda {

// Few enough that their registers fit beside a block of a product, which still runs when they begin.
inline constexpr uint32_t kMostRowThreads = 512;
// Rows are worked on as if they had a multiple of so many columns, those beyond the last one zero: the lanes
// of a warp then share everything.
inline constexpr uint32_t kRowPad = 256;

struct Quad {
  float at[4];
};

TESSERA_BOTH constexpr uint32_t padded_quads(uint32_t columns) {
  return (columns + kRowPad - 1) / kRowPad * (kRowPad / 4);
}
// Threads of a block for rows of so many columns, whatever their number: sums are then always added in the
// same order.
constexpr uint32_t row_threads(uint32_t columns) {
  return padded_quads(columns) < kMostRowThreads ? padded_quads(columns) : kMostRowThreads;
}

// The same for kernels in which a thread takes single columns.
constexpr uint32_t row_threads_by_columns(uint32_t columns) {
  return columns < kMostRowThreads ? (columns + 31) / 32 * 32 : kMostRowThreads;
}

// Columns 4 quad … of `from`, which has so many columns and is aligned to 16 bytes if they are whole quads.
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

// make(quad) gives a quad of the row, the same each time it is asked; it is asked once but for rows that are
// too long to be held.
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

  // visit(quad, its values) for each of the thread's quads. All lanes of a warp come along.
  template <class Visit>
  TESSERA_DEVICE void each(const Visit& visit) const {
    each_with(*this, [&](uint32_t quad, const Quad& value, const Quad&) { visit(quad, value); });
  }
  // visit(quad, its values, those of another row of as many columns).
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

// kHeld: quads that a thread holds at most; rows of up to 2048 kHeld columns are held whole.
template <uint32_t kHeld, class Make>
TESSERA_DEVICE RowQuads<kHeld, Make> row_quads(uint32_t columns, const Make& make) {
  return RowQuads<kHeld, Make>(columns, make);
}

}  // namespace tessera::cuda
