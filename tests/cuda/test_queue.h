// Set-up of tests on the emulator or on a device: seeded random numbers, and a queue or a backend.
#pragma once

#include <doctest/doctest.h>

#include <cstddef>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "backends/cuda/cuda_backend.h"
#include "backends/cuda/device/device.h"
#include "tests/unit/op_rig.h"

namespace tessera::cuda {

// A generator with a fresh seed, which is printed.
inline rig::Random seeded(const char* what) {
  const uint64_t seed = std::random_device{}();
  std::cout << what << ": seed " << seed << "\n";
  return rig::Random(seed);
}

// Null, with a line that says so, where there is no device.
inline std::unique_ptr<Queue> any_queue(const char* what) {
  const auto devices = find_devices(1);
  if (!devices.ok()) {
    std::cout << "skipped: " << what << ": " << devices.error() << "\n";
    return nullptr;
  }
  auto made = Queue::create();
  REQUIRE(made.ok());
  return std::move(made.value());
}

// Null, with a line that says so, where there is no device.
inline std::unique_ptr<Backend> any_backend(const char* what) {
  auto made = make_cuda_backend();
  if (made.ok()) return std::move(made.value());
  std::cout << "skipped: " << what << ": " << made.error() << "\n";
  return nullptr;
}

inline std::vector<std::byte> downloaded(Queue& queue, const void* at, size_t bytes) {
  std::vector<std::byte> copy(bytes);
  queue.download(copy, static_cast<const std::byte*>(at));
  const Status status = queue.finish();
  const std::string error = status.ok() ? "" : status.error();
  REQUIRE(error == "");
  return copy;
}

}  // namespace tessera::cuda
