// backends/cuda/device/device.h with the emulator: device memory is registered host memory, work is done at
// once.
#include "backends/cuda/device/device.h"

#include <fmt/format.h>

#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include "backends/cuda/emulator/work_queue.h"

namespace tessera::cuda {

namespace {

constexpr size_t kAlignment = 256;
constexpr size_t kMemoryBytes = size_t{4} << 30;

template <class Work>
std::string fault_of(const Work& work) {
  try {
    work();
  } catch (const emulator::Fault& fault) {
    return fault.what();
  }
  return {};
}

}  // namespace

Result<std::vector<DeviceFacts>> find_devices(size_t) {
  const emulator::DeviceKind& kind = emulator::device_kind();
  return std::vector<DeviceFacts>{
      {"emulator", kind.major, kind.minor, kind.processors, kind.shared_bytes, kMemoryBytes, kMemoryBytes}};
}

Result<DeviceMemory> DeviceMemory::allocate(size_t bytes) {
  using Outcome = Result<DeviceMemory>;
  if (bytes == 0) return Outcome(DeviceMemory());
  const std::string refusal = fmt::format("no room for {} bytes", bytes);
  if (bytes > kMemoryBytes) return Outcome::failure(refusal);
  // Exactly the requested bytes, so that the address sanitizer finds accesses beyond them.
  void* base = nullptr;
  if (posix_memalign(&base, kAlignment, bytes) != 0) return Outcome::failure(refusal);
  std::memset(base, 0xff, bytes);
  emulator::register_global(base, bytes);
  return Outcome(DeviceMemory(static_cast<std::byte*>(base), bytes));
}

void DeviceMemory::seal() {
  if (base_ != nullptr) emulator::seal_global(base_);
}

DeviceMemory::~DeviceMemory() {
  if (base_ == nullptr) return;
  emulator::unregister_global(base_);
  std::free(base_);
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
  DeviceFacts facts = find_devices(1).value().front();
  auto scratch = DeviceMemory::allocate(kScratchHead + facts.processors * kScratchShare);
  if (!scratch.ok()) return Outcome::failure(scratch.error());
  std::unique_ptr<Queue> queue(new Queue(std::make_unique<emulator::WorkQueue>().release(), std::move(facts),
                                         std::move(scratch.value())));
  queue->fill(queue->scratch_.address(), 0, kScratchHead);
  const emulator::DeviceKind& kind = emulator::device_kind();
  queue->features_ = code_features(*queue);
  queue->features_.bulk_copies = queue->features_.bulk_copies && kind.major >= 9;
  queue->features_.warpgroups = queue->features_.warpgroups && kind.major == 9 && kind.minor == 0;
  return Outcome(std::move(queue));
}

Queue::~Queue() { const std::unique_ptr<emulator::WorkQueue> queue(&emulator::work_queue(stream_)); }

void Queue::upload(std::byte* to, std::span<const std::byte> from) {
  if (from.empty()) return;
  remember_error(fault_of([&] {
    emulator::refuse_recording(stream_, "an upload");
    emulator::check_copy(to, from.size(), emulator::Access::write);
    std::memcpy(to, from.data(), from.size());
  }));
}

void Queue::upload_rows(std::byte* to, const std::byte* from, size_t row_bytes, size_t to_stride,
                        size_t rows) {
  for (size_t row = 0; row < rows; ++row) upload(to + row * to_stride, {from + row * row_bytes, row_bytes});
}

void Queue::download(std::span<std::byte> to, const std::byte* from) {
  if (to.empty()) return;
  remember_error(fault_of([&] {
    emulator::refuse_recording(stream_, "a download");
    emulator::check_copy(from, to.size());
    std::memcpy(to.data(), from, to.size());
  }));
}

void Queue::download_rows(std::byte* to, const std::byte* from, size_t row_bytes, size_t from_stride,
                          size_t rows) {
  for (size_t row = 0; row < rows; ++row)
    download({to + row * row_bytes, row_bytes}, from + row * from_stride);
}

void Queue::fill(std::byte* to, uint8_t value, size_t bytes) {
  if (bytes == 0) return;
  emulator::submit(stream_, [this, to, value, bytes] {
    remember_error(fault_of([&] {
      emulator::check_copy(to, bytes, emulator::Access::write);
      std::memset(to, value, bytes);
    }));
  });
}

void Queue::begin_recording() {
  before_ = std::exchange(error_, std::nullopt);
  emulator::work_queue(stream_).recorded.emplace();
}

Result<Recording> Queue::end_recording() {
  using Outcome = Result<Recording>;
  auto work = std::make_shared<emulator::RecordedWork>(
      std::move(*std::exchange(emulator::work_queue(stream_).recorded, std::nullopt)));
  if (error_) return Outcome::failure(*std::exchange(error_, std::exchange(before_, std::nullopt)));
  error_ = std::exchange(before_, std::nullopt);
  return Recording(std::move(work));
}

void Queue::replay(const Recording& recording) {
  for (const auto& work : *static_cast<const emulator::RecordedWork*>(recording.work())) work();
}

Status Queue::finish() {
  if (!error_) return Status::success();
  Status status = Status::failure(*error_);
  error_.reset();
  return status;
}

void Queue::remember_error(const std::string& error) {
  if (!error_ && !error.empty()) error_ = error;
}

}  // namespace tessera::cuda
