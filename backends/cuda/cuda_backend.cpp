#include "backends/cuda/cuda_backend.h"

#include <fmt/format.h>

#include <algorithm>

#include "backends/cuda/cuda_program.h"
#include "backends/cuda/device/device.h"
#include "backends/cuda/device/library_products.h"
#include "backends/cuda/device_kv.h"
#include "backends/cuda/device_limits.h"
#include "backends/cuda/uploaded_weight.h"

namespace tessera {

namespace cuda {

namespace {

// Device memory that is left to the driver, kernels and staging.
constexpr size_t kReservedBytes = size_t{256} << 20;

class CudaBackend : public Backend {
 public:
  CudaBackend(const DeviceFacts& facts, std::unique_ptr<Queue> queue)
      : facts_(facts), queue_(std::move(queue)) {}

  std::string describe() const override {
    return fmt::format("cuda {}, compute capability {}.{}", facts_.name, facts_.major, facts_.minor);
  }

  std::optional<size_t> available_memory() const override {
    return facts_.free_bytes - std::min(facts_.free_bytes, kReservedBytes);
  }

  Result<std::optional<DeviceLimits>> measure_limits() override {
    using Outcome = Result<std::optional<DeviceLimits>>;
    auto limits = measure_device_limits(*queue_, facts_.processors, LimitSizes{});
    if (!limits.ok()) return Outcome::failure(limits.error());
    return Outcome(std::optional(limits.value()));
  }

  std::optional<double> library_seconds(const ProductShape& shape, unsigned bits) override {
    return cuda::library_seconds(*queue_, shape, bits);
  }

  KvPageBytes kv_page_bytes(const KvGeometry& geometry) const override {
    return DeviceKv::page_bytes(geometry);
  }

 protected:
  Result<std::unique_ptr<KvStorage>> make_kv(const KvGeometry& geometry, size_t pages) override {
    return DeviceKv::create(geometry, pages);
  }

  Result<WeightHandle> make_weight(const StoredTensor& tensor) override {
    auto weight = UploadedWeight::upload(*queue_, staging_, tensor);
    if (!weight.ok()) return Result<WeightHandle>::failure(weight.error());
    return Result<WeightHandle>(std::move(weight.value()));
  }

  Result<std::unique_ptr<Program>> make_program(const Graph& graph, const MemoryPlan& plan,
                                                std::span<const WeightHandle> weights,
                                                KvStorage& kv) override {
    staging_ = DeviceMemory();  // everything is uploaded; a later upload makes it anew
    return CudaProgram::create(*queue_, graph, plan, weights, static_cast<DeviceKv&>(kv));
  }

 private:
  DeviceFacts facts_;
  std::unique_ptr<Queue> queue_;
  DeviceMemory staging_;
};

}  // namespace

}  // namespace cuda

Result<std::unique_ptr<Backend>> make_cuda_backend() {
  using Outcome = Result<std::unique_ptr<Backend>>;
  auto devices = cuda::find_devices(1);
  if (!devices.ok()) return Outcome::failure(fmt::format("backend cuda: {}", devices.error()));
  auto queue = cuda::Queue::create();
  if (!queue.ok()) return Outcome::failure(fmt::format("backend cuda: {}", queue.error()));
  return Outcome(std::make_unique<cuda::CudaBackend>(devices.value().front(), std::move(queue.value())));
}

std::string list_cuda_devices() {
  auto devices = cuda::find_devices();
  if (!devices.ok()) return fmt::format("cuda: not usable here: {}\n", devices.error());
  constexpr double kGib = 1024.0 * 1024.0 * 1024.0;
  std::string text;
  for (const cuda::DeviceFacts& facts : devices.value()) {
    text += fmt::format(
        "cuda: {}, compute capability {}.{}, {} processors, {:.1f} of {:.1f} GiB of memory free{}\n",
        facts.name, facts.major, facts.minor, facts.processors, static_cast<double>(facts.free_bytes) / kGib,
        static_cast<double>(facts.memory_bytes) / kGib,
        &facts == &devices.value().front() ? "" : ", not used");
  }
  return text;
}

}  // namespace tessera
