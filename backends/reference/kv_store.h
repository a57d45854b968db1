// The reference KV cache: every page holds the float64 values that the stored form means.
#pragma once

#include <span>
#include <vector>

#include "backends/backend.h"
#include "backends/reference/kv_rounding.h"

namespace tessera::reference {

class KvStore : public KvStorage {
 public:
  static KvPageBytes page_bytes(const KvGeometry& geometry);

  // The geometry must be one that Backend::create_kv accepts. Throws std::bad_alloc or std::length_error.
  KvStore(const KvGeometry& geometry, size_t pages);

  // head_dim values of one token in a page; slot is the token's number within the page.
  std::span<double> key(size_t layer, size_t page, size_t head, size_t slot) {
    return entry(layer, page, head, slot, 0);
  }
  std::span<double> value(size_t layer, size_t page, size_t head, size_t slot) {
    return entry(layer, page, head, slot, 1);
  }
  // What the stored form keeps beside the codes of a key or value.
  KvParameters& key_parameters(size_t layer, size_t page, size_t head, size_t slot) {
    return parameters_[2 * row_of(layer, page, head, slot)];
  }
  KvParameters& value_parameters(size_t layer, size_t page, size_t head, size_t slot) {
    return parameters_[2 * row_of(layer, page, head, slot) + 1];
  }

 private:
  size_t row_of(size_t layer, size_t page, size_t head, size_t slot) const {
    return ((first_page_[layer] + page) * geometry().kv_heads + head) * kKvPageTokens + slot;
  }
  std::span<double> entry(size_t layer, size_t page, size_t head, size_t slot, size_t which) {
    return {values_.data() + (2 * row_of(layer, page, head, slot) + which) * geometry().head_dim,
            geometry().head_dim};
  }

  std::vector<size_t> first_page_;  // of each layer, whose pages follow each other
  std::vector<double> values_;
  std::vector<KvParameters> parameters_;
};

}  // namespace tessera::reference
