// What the code that a device runs was compiled for. A device may run a build for older targets, in which the
// kernels for newer targets have empty bodies.
#pragma once

namespace tessera::cuda {

class Queue;

struct CodeFeatures {
  bool bulk_copies = false;  // sm_90, which also has griddepcontrol
  bool warpgroups = false;   // sm_90a
};
// Runs a kernel that reports it, and waits for the result. Uses the head of the queue's scratch memory and
// leaves it zero. After an error no feature is set, and queue.finish() returns the error.
CodeFeatures code_features(Queue& queue);

}  // namespace tessera::cuda
