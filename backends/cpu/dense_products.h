// Products of plain float matrices with the cpu backend's kernels and threads.
#pragma once

#include <cstddef>
#include <memory>

#include "backends/dense_products.h"

namespace tessera {

// With the best instruction set of this machine. threads 0: the cores this process may use.
std::unique_ptr<DenseProducts> make_cpu_dense_products(size_t threads);

namespace cpu {

struct Kernels;

// With one instruction set's kernels, which this machine must have; threads >= 1.
std::unique_ptr<DenseProducts> make_dense_products(const Kernels& kernels, size_t threads);

}  // namespace cpu

}  // namespace tessera
