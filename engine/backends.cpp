#include "engine/backends.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <stdexcept>
#include <vector>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/cpu_features.h"
#include "backends/cpu/dense_products.h"
#include "backends/reference/reference_backend.h"
#include "engine/value_or_throw.h"
#if defined(TESSERA_WITH_CUDA)
#include "backends/cuda/cuda_backend.h"
#endif

namespace tessera {

namespace {

double gib(size_t bytes) { return static_cast<double>(bytes) / static_cast<double>(size_t{1} << 30); }

std::unique_ptr<Backend> make_cpu(const BackendOptions& options) {
  return value_or_throw(
      make_cpu_backend({.isa = options.isa, .threads = options.threads, .numa = options.numa}));
}

std::string list_cpu() {
  return fmt::format("cpu: {}, {} threads, instruction sets {}, {:.1f} GiB of memory available\n",
                     cpu::processor_name(), cpu::usable_threads(), fmt::join(usable_instruction_sets(), ", "),
                     gib(cpu::available_memory()));
}

#if defined(TESSERA_WITH_CUDA)
std::unique_ptr<Backend> make_cuda(const BackendOptions&) { return value_or_throw(make_cuda_backend()); }
constexpr auto* kMakeCuda = make_cuda;
constexpr auto* kListCuda = list_cuda_devices;
#else
std::string list_no_cuda() { return "cuda: not in this build\n"; }
constexpr std::unique_ptr<Backend> (*kMakeCuda)(const BackendOptions&) = nullptr;
constexpr auto* kListCuda = list_no_cuda;
#endif

std::unique_ptr<Backend> make_reference(const BackendOptions&) { return make_reference_backend(); }

std::string list_reference() { return "reference: plain loops in float64, one thread\n"; }

constexpr std::array kBackends = {
    BackendRow{kHostBackend, make_cpu, list_cpu, make_cpu_dense_products, false, true},
    BackendRow{"cuda", kMakeCuda, kListCuda, nullptr, true, true},
    BackendRow{"reference", make_reference, list_reference, nullptr, false, false},
};

// "cpu, cuda and reference": those of this build.
std::string usable_names() {
  std::vector<std::string> names;
  for (const BackendRow& row : kBackends) {
    if (row.make != nullptr) names.emplace_back(row.name);
  }
  const std::string last = names.back();
  names.pop_back();
  return fmt::format("{} and {}", fmt::join(names, ", "), last);
}

[[noreturn]] void refuse(std::string_view name) {
  throw std::runtime_error(fmt::format("backend {}: this build has {}", name, usable_names()));
}

}  // namespace

std::span<const BackendRow> backend_table() { return kBackends; }

const BackendRow& find_backend(std::string_view name) {
  const auto found = std::find_if(kBackends.begin(), kBackends.end(),
                                  [&](const BackendRow& row) { return row.name == name; });
  if (found == kBackends.end()) refuse(name);
  return *found;
}

const BackendRow& device_backend() {
  static_assert(
      std::any_of(kBackends.begin(), kBackends.end(), [](const BackendRow& row) { return row.on_device; }));
  return *std::find_if(kBackends.begin(), kBackends.end(),
                       [](const BackendRow& row) { return row.on_device; });
}

std::unique_ptr<Backend> make_backend(std::string_view name, const BackendOptions& options) {
  const BackendRow& row = find_backend(name);
  if (row.make == nullptr) refuse(name);
  return row.make(options);
}

std::string list_devices() {
  std::string text;
  for (const BackendRow& row : kBackends) text += row.list_devices();
  return text;
}

size_t available_host_memory() { return cpu::available_memory(); }

}  // namespace tessera
