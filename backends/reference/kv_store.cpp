#include "backends/reference/kv_store.h"

namespace tessera::reference {

namespace {

// Of one page of one layer.
size_t page_rows(const KvGeometry& geometry) { return 2 * kKvPageTokens * geometry.kv_heads; }

}  // namespace

KvPageBytes KvStore::page_bytes(const KvGeometry& geometry) {
  KvPageBytes bytes;
  for (size_t layer = 0; layer < geometry.layers; ++layer)
    (geometry.layer_slides(layer) ? bytes.window : bytes.full) +=
        page_rows(geometry) * geometry.head_dim * sizeof(double);
  return bytes;
}

KvStore::KvStore(const KvGeometry& geometry, size_t pages) : KvStorage(geometry, pages) {
  size_t all_pages = 0;
  for (size_t layer = 0; layer < geometry.layers; ++layer) {
    first_page_.push_back(all_pages);
    all_pages += geometry.layer_pages(layer, pages);
  }
  const size_t rows = all_pages * page_rows(geometry);
  values_.resize(rows * geometry.head_dim, 0.0);  // first: more than a vector can have is refused here
  parameters_.resize(rows);
}

}  // namespace tessera::reference
