// The products that calibration computes with, by the fastest backend of this build.
#pragma once

#include <cstddef>
#include <memory>

#include "backends/dense_products.h"

namespace tessera {

// threads 0: the cores this process may use.
std::unique_ptr<DenseProducts> make_dense_products(size_t threads);

}  // namespace tessera
