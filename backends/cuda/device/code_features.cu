#include "backends/cuda/device/code_features.h"

#include "backends/cuda/device/launch.h"

namespace tessera::cuda {

namespace {

TESSERA_KERNEL void report_features(Global<uint32_t> to) {
  if (thread_index() == 0) to.store(0, (kHasBulkCopies ? 1u : 0u) | (kHasWarpgroups ? 2u : 0u));
}

}  // namespace

CodeFeatures code_features(Queue& queue) {
  uint32_t bits = 0;
  launch(queue, {}, &report_features, queue.scratch().as<uint32_t>());
  queue.download(std::as_writable_bytes(std::span(&bits, 1)), queue.scratch().address());
  queue.fill(queue.scratch().address(), 0, sizeof bits);
  if (const Status status = queue.finish(); !status.ok()) {
    queue.remember_error(status.error());
    return {};
  }
  return {(bits & 1) != 0, (bits & 2) != 0};
}

}  // namespace tessera::cuda
