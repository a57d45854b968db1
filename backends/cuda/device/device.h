// One CUDA device: its memory, and a queue of work that runs in order. runtime/ implements this with the CUDA
// runtime, emulator/runtime/ with the emulator. Nothing throws; a queue keeps its first error until finish()
// returns it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "backends/cuda/device/code_features.h"
#include "backends/cuda/device/views.h"
#include "backends/status.h"

namespace tessera::cuda {

struct DeviceFacts {
  std::string name;
  unsigned major = 0;  // compute capability
  unsigned minor = 0;
  size_t processors = 0;
  size_t shared_bytes = 0;  // largest shared memory of a block
  size_t memory_bytes = 0;
  size_t free_bytes = 0;
};

// The devices, from the first one on, at least one and at most `most`; each query of free memory costs the
// device some memory, hence the limit. Fails with the reason when there is no device, or the first one is too
// old.
Result<std::vector<DeviceFacts>> find_devices(size_t most = std::numeric_limits<size_t>::max());

// Memory of device 0, aligned to 256 bytes, freed with the object.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  // Fails with one line when the device has no room. 0 bytes are an empty object.
  static Result<DeviceMemory> allocate(size_t bytes);
  ~DeviceMemory();
  DeviceMemory(DeviceMemory&& other) noexcept;
  DeviceMemory& operator=(DeviceMemory&& other) noexcept;
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  // Promises that nothing writes here once the queue has finished. Kernels that begin early may read only
  // sealed memory before they wait.
  void seal();

  size_t size() const { return bytes_; }
  std::byte* address() const { return base_; }
  // The memory from byte offset `byte` on, as an array of Value.
  template <class Value>
  Global<Value> view(size_t byte = 0) const {
    return Global<std::byte>(base_).as<Value>(byte);
  }

 private:
  DeviceMemory(std::byte* base, size_t bytes) : base_(base), bytes_(bytes) {}
  std::byte* base_ = nullptr;
  size_t bytes_ = 0;
};

// Launches and fills that were recorded once and can be replayed at little cost for the host. Arguments that
// were passed by value are part of the recording: replays differ only by the contents of device memory.
class Recording {
 public:
  explicit Recording(std::shared_ptr<void> work) : work_(std::move(work)) {}
  void* work() const { return work_.get(); }

 private:
  std::shared_ptr<void> work_;
};

// Work for device 0, done in the order of the calls. Calls return at once unless they say otherwise.
class Queue {
 public:
  static Result<std::unique_ptr<Queue>> create();
  ~Queue();
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  // `from` may be changed as soon as this returns.
  void upload(std::byte* to, std::span<const std::byte> from);
  // Copies `rows` rows of row_bytes; they are contiguous in `from` and to_stride bytes apart on the device.
  void upload_rows(std::byte* to, const std::byte* from, size_t row_bytes, size_t to_stride, size_t rows);
  // `to` is filled when finish() returns.
  void download(std::span<std::byte> to, const std::byte* from);
  // Copies `rows` rows of row_bytes, from_stride bytes apart on the device, contiguous in `to`.
  void download_rows(std::byte* to, const std::byte* from, size_t row_bytes, size_t from_stride, size_t rows);
  void fill(std::byte* to, uint8_t value, size_t bytes);
  // Launches and fills from here to end_recording are recorded instead of done; no other call is allowed in
  // between.
  void begin_recording();
  // Fails with one line when something could not be recorded.
  Result<Recording> end_recording();
  // Queues the recorded work. The recording must live until finish().
  void replay(const Recording& recording);
  // Waits until all work is done. Fails with the first error since the last call.
  Status finish();

  void* stream() const { return stream_; }
  // The queue's device; memory sizes are 0.
  const DeviceFacts& facts() const { return facts_; }
  // What the code was compiled for that this device runs.
  const CodeFeatures& features() const { return features_; }
  // Memory through which the blocks of one launch exchange sums: kScratchHead bytes that are zero before and
  // after every kernel, then kScratchShare bytes for each multiprocessor.
  static constexpr size_t kScratchHead = 4096;
  static constexpr size_t kScratchShare = size_t{64} << 10;
  Global<std::byte> scratch() const { return scratch_.view<std::byte>(); }
  // Keeps the error for finish() unless there is an earlier one. An empty string is no error.
  void remember_error(const std::string& error);
  // Whether the last queued work was a kernel, before whose end another one may begin. Always false on the
  // emulator.
  bool follows_kernel() const { return follows_kernel_; }
  void remember_kernel() { follows_kernel_ = true; }

 private:
  Queue(void* stream, DeviceFacts facts, DeviceMemory scratch)
      : stream_(stream), facts_(std::move(facts)), scratch_(std::move(scratch)) {}
  void* stream_;
  DeviceFacts facts_;
  CodeFeatures features_;
  DeviceMemory scratch_;
  std::optional<std::string> error_;
  std::optional<std::string> before_;  // the error before the recording began
  bool follows_kernel_ = false;
};

}  // namespace tessera::cuda
