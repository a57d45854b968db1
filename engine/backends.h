// The backends that tessera knows, as one table: whatever lists, makes or tells apart backends reads it.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "backends/backend.h"
#include "backends/dense_products.h"

namespace tessera {

// The backend that is used unless another is asked for. It computes in the machine's own memory, and layers
// that do not fit a device run on it.
inline constexpr const char* kHostBackend = "cpu";

struct BackendOptions {
  std::string isa = "auto";  // instruction set: "auto", "avx512", "avx2", "portable"
  size_t threads = 0;        // 0: the cores this process may use
  std::string numa = "off";  // "local", "interleave": where weights lie on machines of several memory nodes
};

struct BackendRow {
  const char* name;
  // Makes one; throws std::runtime_error with the reason where it cannot be used. Null: not in this build.
  std::unique_ptr<Backend> (*make)(const BackendOptions&);
  // Its devices on this machine, one line each, for --list-devices.
  std::string (*list_devices)();
  // Products of float matrices for work outside a graph. Null: it offers none.
  std::unique_ptr<DenseProducts> (*make_dense_products)(size_t threads);
  // Weights, KV cache and activations lie in the memory of a device and not in the machine's. Layers that do
  // not fit there run on kHostBackend.
  bool on_device;
  // --isa and --numa have a meaning: for all layers, or for those that run on kHostBackend.
  bool uses_cpu_kernels;
};

std::span<const BackendRow> backend_table();  // kHostBackend first

// The row of that name. Throws std::runtime_error with the names of this build when there is none.
const BackendRow& find_backend(std::string_view name);

// The backend whose memory is a device's: what --gpu-layers is about.
const BackendRow& device_backend();

// Makes the backend of that name. Throws std::runtime_error where this build or this machine has none.
std::unique_ptr<Backend> make_backend(std::string_view name, const BackendOptions& options);

// Names the devices and instruction sets that this binary can use here, one per line.
std::string list_devices();

// Bytes of the machine's memory that can still be allocated; 0 when unknown.
size_t available_host_memory();

}  // namespace tessera
