// The CUDA backend: kernels for compute capability 8.0 and newer, on the first device.
#pragma once

#include <memory>
#include <string>

#include "backends/backend.h"

namespace tessera {

// Fails with the reason where no device can be used: no driver, no device, one that is too old.
Result<std::unique_ptr<Backend>> make_cuda_backend();

// One line for each usable device of this machine, or one line that says why there is none.
std::string list_cuda_devices();

}  // namespace tessera
