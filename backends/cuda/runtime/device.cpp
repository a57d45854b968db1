// backends/cuda/device/device.h with the CUDA runtime. It is linked statically, so that without a driver
// calls return errors instead of the executable not starting.
#include "backends/cuda/device/device.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <utility>

namespace tessera::cuda {

namespace {

constexpr unsigned kOldestMajor = 8;  // mma of 8-bit integers and asynchronous copies

std::string line_of(cudaError_t error) { return error == cudaSuccess ? "" : cudaGetErrorString(error); }

cudaStream_t stream_of(void* stream) { return static_cast<cudaStream_t>(stream); }

}  // namespace

Result<std::vector<DeviceFacts>> find_devices(size_t most) {
  using Outcome = Result<std::vector<DeviceFacts>>;
  int driver = 0;
  if (cudaDriverGetVersion(&driver) == cudaSuccess && driver == 0)
    return Outcome::failure("there is no NVIDIA driver");
  int count = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess)
    return Outcome::failure(line_of(error));
  std::vector<DeviceFacts> devices;
  for (int index = 0; index < count && devices.size() < most; ++index) {
    cudaDeviceProp properties{};
    if (const cudaError_t error = cudaGetDeviceProperties(&properties, index); error != cudaSuccess) {
      if (index == 0) return Outcome::failure(line_of(error));  // queues always use device 0
      continue;
    }
    DeviceFacts facts;
    facts.name = properties.name;
    facts.major = static_cast<unsigned>(properties.major);
    facts.minor = static_cast<unsigned>(properties.minor);
    facts.processors = static_cast<size_t>(properties.multiProcessorCount);
    facts.shared_bytes = properties.sharedMemPerBlockOptin;
    facts.memory_bytes = properties.totalGlobalMem;
    if (cudaSetDevice(index) == cudaSuccess) {
      size_t total = 0;
      (void)cudaMemGetInfo(&facts.free_bytes, &total);
    }
    devices.push_back(facts);
  }
  if (devices.empty()) return Outcome::failure("no CUDA device");
  (void)cudaSetDevice(0);
  if (devices.front().major < kOldestMajor) {
    return Outcome::failure(fmt::format("{}: expected compute capability {}.0 or newer, found {}.{}",
                                        devices.front().name, kOldestMajor, devices.front().major,
                                        devices.front().minor));
  }
  return Outcome(std::move(devices));
}

Result<DeviceMemory> DeviceMemory::allocate(size_t bytes) {
  using Outcome = Result<DeviceMemory>;
  if (bytes == 0) return Outcome(DeviceMemory());
  void* base = nullptr;
  const cudaError_t error = cudaMalloc(&base, bytes);
  if (error == cudaSuccess) return Outcome(DeviceMemory(static_cast<std::byte*>(base), bytes));
  (void)cudaGetLastError();  // clears the error: later calls work
  size_t available = 0;
  size_t total = 0;
  (void)cudaMemGetInfo(&available, &total);
  return Outcome::failure(fmt::format("no room for {} bytes, {} of {} are free ({})", bytes, available, total,
                                      cudaGetErrorString(error)));
}

void DeviceMemory::seal() {}  // only the emulator checks it

DeviceMemory::~DeviceMemory() {
  if (base_ != nullptr) (void)cudaFree(base_);
}

DeviceMemory::DeviceMemory(DeviceMemory&& other) noexcept
    : base_(std::exchange(other.base_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

DeviceMemory& DeviceMemory::operator=(DeviceMemory&& other) noexcept {
  std::swap(base_, other.base_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

Result<std::unique_ptr<Queue>> Queue::create() {
  using Outcome = Result<std::unique_ptr<Queue>>;
  const auto attribute = [](cudaDeviceAttr which) {
    int value = 0;
    (void)cudaDeviceGetAttribute(&value, which, 0);
    return static_cast<unsigned>(value);
  };
  DeviceFacts facts;
  facts.major = attribute(cudaDevAttrComputeCapabilityMajor);
  facts.minor = attribute(cudaDevAttrComputeCapabilityMinor);
  facts.processors = attribute(cudaDevAttrMultiProcessorCount);
  facts.shared_bytes = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  auto scratch = DeviceMemory::allocate(kScratchHead + facts.processors * kScratchShare);
  if (!scratch.ok()) return Outcome::failure(scratch.error());
  cudaStream_t stream = nullptr;
  const cudaError_t error = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  if (error != cudaSuccess) return Outcome::failure(line_of(error));
  std::unique_ptr<Queue> queue(new Queue(stream, std::move(facts), std::move(scratch.value())));
  queue->fill(queue->scratch_.address(), 0, kScratchHead);
  queue->features_ = code_features(*queue);
  if (const Status status = queue->finish(); !status.ok()) return Outcome::failure(status.error());
  return Outcome(std::move(queue));
}

Queue::~Queue() { (void)cudaStreamDestroy(stream_of(stream_)); }

void Queue::upload(std::byte* to, std::span<const std::byte> from) {
  if (from.empty()) return;
  follows_kernel_ = false;
  remember_error(
      line_of(cudaMemcpyAsync(to, from.data(), from.size(), cudaMemcpyHostToDevice, stream_of(stream_))));
}

void Queue::upload_rows(std::byte* to, const std::byte* from, size_t row_bytes, size_t to_stride,
                        size_t rows) {
  if (row_bytes == 0 || rows == 0) return;
  follows_kernel_ = false;
  remember_error(line_of(cudaMemcpy2DAsync(to, to_stride, from, row_bytes, row_bytes, rows,
                                           cudaMemcpyHostToDevice, stream_of(stream_))));
}

void Queue::download(std::span<std::byte> to, const std::byte* from) {
  if (to.empty()) return;
  follows_kernel_ = false;
  remember_error(
      line_of(cudaMemcpyAsync(to.data(), from, to.size(), cudaMemcpyDeviceToHost, stream_of(stream_))));
}

void Queue::download_rows(std::byte* to, const std::byte* from, size_t row_bytes, size_t from_stride,
                          size_t rows) {
  if (row_bytes == 0 || rows == 0) return;
  follows_kernel_ = false;
  remember_error(line_of(cudaMemcpy2DAsync(to, row_bytes, from, from_stride, row_bytes, rows,
                                           cudaMemcpyDeviceToHost, stream_of(stream_))));
}

void Queue::fill(std::byte* to, uint8_t value, size_t bytes) {
  if (bytes == 0) return;
  follows_kernel_ = false;
  remember_error(line_of(cudaMemsetAsync(to, value, bytes, stream_of(stream_))));
}

void Queue::begin_recording() {
  before_ = std::exchange(error_, std::nullopt);
  follows_kernel_ = false;
  remember_error(line_of(cudaStreamBeginCapture(stream_of(stream_), cudaStreamCaptureModeThreadLocal)));
}

Result<Recording> Queue::end_recording() {
  using Outcome = Result<Recording>;
  follows_kernel_ = false;
  cudaGraph_t graph = nullptr;
  remember_error(line_of(cudaStreamEndCapture(stream_of(stream_), &graph)));
  cudaGraphExec_t work = nullptr;
  if (!error_) remember_error(line_of(cudaGraphInstantiate(&work, graph, 0)));
  if (graph != nullptr) (void)cudaGraphDestroy(graph);
  if (error_) {
    (void)cudaGetLastError();  // clears the error: the stream still works
    return Outcome::failure(*std::exchange(error_, std::exchange(before_, std::nullopt)));
  }
  error_ = std::exchange(before_, std::nullopt);
  return Recording(std::shared_ptr<void>(
      work, [](void* made) { (void)cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(made)); }));
}

void Queue::replay(const Recording& recording) {
  follows_kernel_ = false;
  remember_error(
      line_of(cudaGraphLaunch(static_cast<cudaGraphExec_t>(recording.work()), stream_of(stream_))));
}

Status Queue::finish() {
  remember_error(line_of(cudaStreamSynchronize(stream_of(stream_))));
  if (!error_) return Status::success();
  Status status = Status::failure(*error_);
  error_.reset();
  return status;
}

void Queue::remember_error(const std::string& error) {
  if (!error_ && !error.empty()) error_ = error;
}

}  // namespace tessera::cuda
