// What a token of a test costs by the model's shape: the bytes and operations that its speed is compared
// with.
#pragma once

#include <cstddef>

#include "commands/bench/bench_test.h"
#include "engine/model.h"
#include "engine/runtime_plan.h"

namespace tessera {

// Of one token, the mean over all tokens of the test.
struct TokenWork {
  double weight_bytes = 0;  // read from memory; none for attention
  double kv_bytes = 0;      // of the KV cache, read
  double operations = 0;    // a multiply or an add
};

// batch: most tokens of a prompt in one run. Nothing for products, which are counted one by one.
TokenWork token_work(const BenchTest& test, const Model& model, const MemoryFigures& memory, size_t batch);

}  // namespace tessera
