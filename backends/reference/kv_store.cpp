#include "backends/reference/kv_store.h"

namespace tessera::reference {

size_t KvStore::page_values(const KvGeometry& geometry) {
  return 2 * kKvPageTokens * geometry.layers * geometry.kv_heads * geometry.head_dim;
}

KvStore::KvStore(const KvGeometry& geometry, size_t pages)
    : KvStorage(geometry, pages),
      values_(page_values(geometry) * pages, 0.0),
      parameters_(values_.size() / geometry.head_dim) {}

}  // namespace tessera::reference
