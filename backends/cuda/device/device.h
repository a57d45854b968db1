// One CUDA device as the backend sees it: memory, and a queue of work that runs in order. runtime/ implements
// this on the CUDA runtime, tests/emulator on the emulator. Nothing throws; the first error of a queue waits
// for finish().
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
  size_t shared_bytes = 0;  // that a block may have
  size_t memory_bytes = 0;
  size_t free_bytes = 0;
};

// The devices that kernels of this build can run on, at most so many of the first ones, and at least one:
// asking a device for its free memory takes some of it. Fails with the reason when there is none.
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

  // Nobody writes here any more, once the queue has finished: even kernels that begin early may read it.
  void seal();

  size_t size() const { return bytes_; }
  std::byte* address() const { return base_; }
  // From `byte` on, as Values.
  template <class Value>
  Global<Value> view(size_t byte = 0) const {
    return Global<std::byte>(base_).as<Value>(byte);
  }

 private:
  DeviceMemory(std::byte* base, size_t bytes) : base_(base), bytes_(bytes) {}
  std::byte* base_ = nullptr;
  size_t bytes_ = 0;
};

// Launches and fills recorded once, to be done again and again at little cost for the host. What they were
// given by value stays as it was: a replay differs by what lies in device memory only.
class Recording {
 public:
  explicit Recording(std::shared_ptr<void> work) : work_(std::move(work)) {}
  void* work() const { return work_.get(); }

 private:
  std::shared_ptr<void> work_;
};

// Work for device 0, done in the order it was asked for.
class Queue {
 public:
  static Result<std::unique_ptr<Queue>> create();
  ~Queue();
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  // from may change once this returns.
  void upload(std::byte* to, std::span<const std::byte> from);
  // rows of row_bytes, close together in from and to_stride bytes apart on the device.
  void upload_rows(std::byte* to, const std::byte* from, size_t row_bytes, size_t to_stride, size_t rows);
  // to is filled when finish() returns.
  void download(std::span<std::byte> to, const std::byte* from);
  // rows of row_bytes, from_stride bytes apart on the device and close together in to.
  void download_rows(std::byte* to, const std::byte* from, size_t row_bytes, size_t from_stride, size_t rows);
  void fill(std::byte* to, uint8_t value, size_t bytes);
  // Launches and fills from here to end_recording are not done but recorded; nothing else may be asked for in
  // between.
  void begin_recording();
  // Fails with one line when something could not be recorded.
  Result<Recording> end_recording();
  // The recording must live until finish().
  void replay(const Recording& recording);
  // Waits until all work is done. Fails with the first error since the last call.
  Status finish();

  void* stream() const { return stream_; }
  // Of the queue's device; memory sizes are left at 0.
  const DeviceFacts& facts() const { return facts_; }
  // Of the kernels as they are there.
  const CodeFeatures& features() const { return features_; }
  // Memory for the kernels of one launch to hand sums to each other: kScratchHead bytes that every kernel
  // finds and leaves zero, then kScratchShare for each processor.
  static constexpr size_t kScratchHead = 4096;
  static constexpr size_t kScratchShare = size_t{64} << 10;
  Global<std::byte> scratch() const { return scratch_.view<std::byte>(); }
  // Remembers an error unless there is one already; empty is none.
  void note(const std::string& error);
  // Whether the last thing asked for was a kernel, so that another one may begin before it ends. On a device.
  bool follows_kernel() const { return follows_kernel_; }
  void note_kernel() { follows_kernel_ = true; }

 private:
  Queue(void* stream, DeviceFacts facts, DeviceMemory scratch)
      : stream_(stream), facts_(std::move(facts)), scratch_(std::move(scratch)) {}
  void* stream_;
  DeviceFacts facts_;
  CodeFeatures features_;
  DeviceMemory scratch_;
  std::optional<std::string> error_;
  std::optional<std::string> before_;  // a recording's beginning
  bool follows_kernel_ = false;
};

}  // namespace tessera::cuda
