#include "backends/reference/batch_check.h"

#include <fmt/format.h>

#include <limits>

namespace tessera::reference {

namespace {

std::string sequence_fault(const BatchSequence& sequence, size_t index, size_t pages) {
  if (sequence.token_count == 0) return fmt::format("batch: sequence {} has no tokens", index);
  if (sequence.position > std::numeric_limits<size_t>::max() - sequence.token_count)
    return fmt::format("batch: sequence {}: position {} is out of range", index, sequence.position);
  const size_t end = sequence.position + sequence.token_count;
  const size_t needed = (end - 1) / kKvPageTokens + 1;
  if (sequence.pages.size() < needed)
    return fmt::format("batch: sequence {}: {} tokens need {} kv pages, found {}", index, end, needed,
                       sequence.pages.size());
  for (size_t i = 0; i < needed; ++i) {
    if (sequence.pages[i] >= pages)
      return fmt::format("batch: sequence {}: kv page {} of {} does not exist", index, sequence.pages[i],
                         pages);
  }
  return {};
}

}  // namespace

std::string batch_fault(const Batch& batch, const BatchLimits& limits) {
  if (batch.tokens.size() > limits.plan.max_tokens)
    return fmt::format("batch: at most {} tokens were planned, found {}", limits.plan.max_tokens,
                       batch.tokens.size());
  if (batch.output_rows.size() > limits.plan.max_outputs)
    return fmt::format("batch: at most {} output rows were planned, found {}", limits.plan.max_outputs,
                       batch.output_rows.size());
  for (const uint32_t token : batch.tokens) {
    if (token >= limits.vocabulary)
      return fmt::format("batch: expected token ids below {}, found {}", limits.vocabulary, token);
  }
  size_t covered = 0;
  for (size_t index = 0; index < batch.sequences.size(); ++index) {
    const BatchSequence& sequence = batch.sequences[index];
    if (sequence.first_row != covered || sequence.token_count > batch.tokens.size() - covered)
      return fmt::format("batch: sequence {} covers rows {} to {}, expected to start at {} of {}", index,
                         sequence.first_row, sequence.first_row + sequence.token_count, covered,
                         batch.tokens.size());
    if (std::string fault = sequence_fault(sequence, index, limits.pages); !fault.empty()) return fault;
    covered += sequence.token_count;
  }
  if (covered != batch.tokens.size())
    return fmt::format("batch: sequences cover {} of {} tokens", covered, batch.tokens.size());
  for (size_t i = 0; i < batch.output_rows.size(); ++i) {
    if (batch.output_rows[i] >= batch.tokens.size())
      return fmt::format("batch: output row {} of {} tokens does not exist", batch.output_rows[i],
                         batch.tokens.size());
    if (i > 0 && batch.output_rows[i] <= batch.output_rows[i - 1])
      return fmt::format("batch: output rows are not ascending at {}", batch.output_rows[i]);
  }
  return {};
}

}  // namespace tessera::reference
