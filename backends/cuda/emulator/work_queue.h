// The emulator's implementation of a stream: work is done at once, or stored while a recording is being made.
#pragma once

#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "backends/cuda/emulator/memory.h"

namespace tessera::emulator {

using RecordedWork = std::vector<std::function<void()>>;

struct WorkQueue {
  std::optional<RecordedWork> recorded;  // while a recording is being made
};

// stream: that of a cuda::Queue.
inline WorkQueue& work_queue(void* stream) { return *static_cast<WorkQueue*>(stream); }

inline void submit(void* stream, std::function<void()> work) {
  WorkQueue& queue = work_queue(stream);
  if (queue.recorded) {
    queue.recorded->push_back(std::move(work));
  } else {
    work();
  }
}

// Throws Fault while a recording is being made.
inline void refuse_recording(void* stream, const char* what) {
  if (work_queue(stream).recorded) throw Fault(std::string(what) + " cannot be recorded");
}

}  // namespace tessera::emulator
