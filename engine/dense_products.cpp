#include "engine/dense_products.h"

#include "engine/backends.h"

namespace tessera {

std::unique_ptr<DenseProducts> make_dense_products(size_t threads) {
  return find_backend(kHostBackend).make_dense_products(threads);
}

}  // namespace tessera
