#include "engine/dense_products.h"

#include "backends/cpu/dense_products.h"

namespace tessera {

std::unique_ptr<DenseProducts> make_dense_products(size_t threads) {
  return make_cpu_dense_products(threads);
}

}  // namespace tessera
