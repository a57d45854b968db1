// Cuts new tokens of sequences into batches that a program can run at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/kv_cache/sequences.h"
#include "graph/batch.h"
#include "graph/memory_plan.h"

namespace tessera {

// For which of an input's tokens logits are computed.
enum class LogitRows : uint8_t { none, last, all };

// New tokens of one sequence.
struct SequenceInput {
  SequenceId sequence;
  std::span<const uint32_t> tokens;  // at least one
  LogitRows logits = LogitRows::last;

  // Rows of logits that it gives.
  size_t logit_rows() const {
    return logits == LogitRows::all ? tokens.size() : logits == LogitRows::last ? 1 : 0;
  }
};

// Packs the tokens of the inputs, in their order, into batches within the limits; an input that does not fit
// goes on in the next batch. Inputs and sequences must outlive it, and pages must be reserved.
class BatchPacker {
 public:
  BatchPacker(std::span<const SequenceInput> inputs, const PlanLimits& limits, Sequences& sequences)
      : inputs_(inputs), limits_(limits), sequences_(sequences) {}

  // Packs the next batch and appends its tokens to their sequences; false when no tokens are left.
  bool next();
  // The batch packed last, valid until the next call of next.
  Batch batch() const { return {tokens_, parts_, output_rows_}; }

 private:
  void add_part(const SequenceInput& input);

  std::span<const SequenceInput> inputs_;
  PlanLimits limits_;
  Sequences& sequences_;
  size_t input_ = 0;   // the one that goes on
  size_t offset_ = 0;  // its tokens that were packed already
  std::vector<uint32_t> tokens_;
  std::vector<uint32_t> output_rows_;
  std::vector<BatchSequence> parts_;
};

}  // namespace tessera
