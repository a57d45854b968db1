// Refuses batches that a compiled program cannot run.
#pragma once

#include <string>

#include "graph/batch.h"
#include "graph/memory_plan.h"

namespace tessera::reference {

struct BatchLimits {
  PlanLimits plan;
  size_t pages = 0;       // page ids are below this
  size_t vocabulary = 0;  // token ids are below this
};

// One line that says what is wrong; empty when the batch can run. A batch without tokens is a run that does
// nothing.
std::string batch_fault(const Batch& batch, const BatchLimits& limits);

}  // namespace tessera::reference
