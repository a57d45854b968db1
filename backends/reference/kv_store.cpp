#include "backends/reference/kv_store.h"

#include <fmt/format.h>

#include <array>
#include <limits>

namespace tessera::reference {

std::string kv_fault(const KvGeometry& geometry) {
  if (geometry.bits != 4 && geometry.bits != 8 && geometry.bits != 16)
    return fmt::format("kv cache: expected 4, 8 or 16 bits, found {}", geometry.bits);
  if (geometry.head_dim == 0 || geometry.head_dim % 8 != 0)
    return fmt::format("kv cache: expected a head size that is a multiple of 8, found {}", geometry.head_dim);
  if (geometry.kv_heads == 0) return "kv cache: expected at least 1 kv head, found 0";
  if (!KvStore::page_values(geometry))
    return fmt::format("kv cache: {} layers of {} heads of {} exceed the address space", geometry.layers,
                       geometry.kv_heads, geometry.head_dim);
  return {};
}

std::optional<size_t> KvStore::page_values(const KvGeometry& geometry) {
  constexpr size_t kMost = std::numeric_limits<size_t>::max() / sizeof(double);
  size_t product = 2 * kKvPageTokens;
  for (const size_t factor : std::array{geometry.layers, geometry.kv_heads, geometry.head_dim}) {
    if (factor != 0 && product > kMost / factor) return std::nullopt;
    product *= factor;
  }
  return product;
}

KvStore::KvStore(const KvGeometry& geometry, size_t pages)
    : geometry_(geometry),
      pages_(pages),
      values_(*page_values(geometry) * pages, 0.0),
      parameters_(values_.size() / geometry.head_dim) {}

}  // namespace tessera::reference
