// What the code that a device runs was compiled for: a build for other targets than the device's own runs
// there too, but its kernels for newer targets have no body.
#pragma once

namespace tessera::cuda {

class Queue;

struct CodeFeatures {
  bool bulk_copies = false;  // sm_90, which also has griddepcontrol
  bool warpgroups = false;   // sm_90a
};
// Asks the device, and waits for the answer. Uses the head of the queue's scratch memory and leaves it zero.
// Errors wait in the queue; then there are no features.
CodeFeatures code_features(Queue& queue);

}  // namespace tessera::cuda
