// The reference KV cache: every page holds the float64 values that the stored form means.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "backends/backend.h"

namespace tessera::reference {

class KvStore : public KvStorage {
 public:
  // Doubles in one page over all layers; nothing when their number overflows.
  static std::optional<size_t> page_values(const KvGeometry& geometry);
  // The geometry must have no kv_fault. Throws std::bad_alloc or std::length_error.
  KvStore(const KvGeometry& geometry, size_t pages);

  const KvGeometry& geometry() const { return geometry_; }
  size_t pages() const { return pages_; }
  // head_dim values of one token in a page; slot is the token's number within the page.
  std::span<double> key(size_t layer, size_t page, size_t head, size_t slot) {
    return entry(layer, page, head, slot, 0);
  }
  std::span<double> value(size_t layer, size_t page, size_t head, size_t slot) {
    return entry(layer, page, head, slot, 1);
  }

 private:
  std::span<double> entry(size_t layer, size_t page, size_t head, size_t slot, size_t which) {
    const size_t row = ((page * geometry_.layers + layer) * geometry_.kv_heads + head) * kKvPageTokens + slot;
    return {values_.data() + (2 * row + which) * geometry_.head_dim, geometry_.head_dim};
  }

  KvGeometry geometry_;
  size_t pages_;
  std::vector<double> values_;
};

// One line that says what is wrong with a geometry; empty when it is usable.
std::string kv_fault(const KvGeometry& geometry);

}  // namespace tessera::reference
