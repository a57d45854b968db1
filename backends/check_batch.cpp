#include "backends/check_batch.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string_view>

#include "backends/backend.h"
#include "graph/op_weights.h"

namespace tessera {

namespace {

// Positions are 32-bit numbers in kernels.
constexpr size_t kMostPositions = std::numeric_limits<uint32_t>::max();

std::string size_fault(const Batch& batch, const BatchLimits& limits) {
  if (batch.tokens.size() > limits.plan.max_tokens)
    return fmt::format("batch: at most {} tokens were planned, found {}", limits.plan.max_tokens,
                       batch.tokens.size());
  if (batch.output_rows.size() > limits.plan.max_outputs)
    return fmt::format("batch: at most {} output rows were planned, found {}", limits.plan.max_outputs,
                       batch.output_rows.size());
  if (batch.input.size() != batch.tokens.size() * limits.input_columns)
    return fmt::format("batch: expected {} rows of {} input values, found {} values", batch.tokens.size(),
                       limits.input_columns, batch.input.size());
  return {};
}

std::string token_fault(const Batch& batch, const BatchLimits& limits) {
  for (const uint32_t token : batch.tokens) {
    if (token >= limits.vocabulary)
      return fmt::format("batch: expected token ids below {}, found {}", limits.vocabulary, token);
  }
  return {};
}

// pages: ids are below this; kind: in the line, before "pages".
std::string pages_fault(std::span<const uint32_t> ids, size_t index, size_t end, size_t pages,
                        std::string_view kind) {
  const size_t needed = (end - 1) / kKvPageTokens + 1;
  if (ids.size() < needed)
    return fmt::format("batch: sequence {}: {} tokens need {} {} pages, found {}", index, end, needed, kind,
                       ids.size());
  for (const uint32_t page : ids) {
    if (page >= pages)
      return fmt::format("batch: sequence {}: {} page {} of {} does not exist", index, kind, page, pages);
  }
  return {};
}

std::string sequence_fault(const BatchSequence& sequence, size_t index, const BatchLimits& limits) {
  if (sequence.token_count == 0) return fmt::format("batch: sequence {} has no tokens", index);
  if (sequence.token_count > limits.positions || sequence.position > limits.positions - sequence.token_count)
    return fmt::format("batch: sequence {}: position {} is out of range", index, sequence.position);
  const size_t end = sequence.position + sequence.token_count;
  std::string fault = pages_fault(sequence.pages, index, end, limits.pages, "kv");
  if (fault.empty() && limits.window_pages)
    fault = pages_fault(sequence.window_pages, index, end, *limits.window_pages, "window");
  return fault;
}

std::string sequences_fault(const Batch& batch, const BatchLimits& limits) {
  size_t covered = 0;
  for (size_t index = 0; index < batch.sequences.size(); ++index) {
    const BatchSequence& sequence = batch.sequences[index];
    if (sequence.first_row != covered || sequence.token_count > batch.tokens.size() - covered)
      return fmt::format("batch: sequence {} covers rows {} to {}, expected to start at {} of {}", index,
                         sequence.first_row, sequence.first_row + sequence.token_count, covered,
                         batch.tokens.size());
    if (std::string fault = sequence_fault(sequence, index, limits); !fault.empty()) return fault;
    covered += sequence.token_count;
  }
  if (covered != batch.tokens.size())
    return fmt::format("batch: sequences cover {} of {} tokens", covered, batch.tokens.size());
  return {};
}

std::string output_fault(const Batch& batch) {
  for (size_t i = 0; i < batch.output_rows.size(); ++i) {
    const uint32_t row = batch.output_rows[i];
    if (row >= batch.tokens.size())
      return fmt::format("batch: output row {} of {} tokens does not exist", row, batch.tokens.size());
    if (i > 0 && row <= batch.output_rows[i - 1])
      return fmt::format("batch: output rows are not ascending at {}", row);
  }
  return {};
}

}  // namespace

BatchLimits batch_limits(const Graph& graph, const PlanLimits& plan, const KvStorage& kv) {
  BatchLimits limits;
  limits.plan = plan;
  limits.pages = kv.pages();
  if (kv.geometry().any_slides()) limits.window_pages = kv.geometry().window_pages;
  limits.vocabulary = std::numeric_limits<size_t>::max();
  limits.positions = kMostPositions;
  for (const Op& op : graph.ops) {
    for_each_weight(op, [&](WeightId id, WeightRole role) {
      if (role == WeightRole::table) limits.vocabulary = std::min(limits.vocabulary, graph.weights[id].rows);
      if (role == WeightRole::positions)
        limits.positions = std::min(limits.positions, graph.weights[id].rows);
    });
  }
  limits.input_columns = input_columns(graph);
  limits.logits_columns = graph.tensors[graph.logits].columns;
  return limits;
}

std::string batch_fault(const Batch& batch, const BatchLimits& limits) {
  std::string fault = size_fault(batch, limits);
  if (fault.empty()) fault = token_fault(batch, limits);
  if (fault.empty()) fault = sequences_fault(batch, limits);
  if (fault.empty()) fault = output_fault(batch);
  return fault;
}

std::string logits_fault(const Batch& batch, const BatchLimits& limits, size_t floats) {
  const size_t rows = batch.output_rows.size();
  if (rows == 0 || floats / rows >= limits.logits_columns) return {};
  return fmt::format("batch: {} logits rows of {} do not fit {} floats", rows, limits.logits_columns, floats);
}

std::string best_fault(const Batch& batch, size_t count, size_t most_best, size_t entries) {
  if (most_best == 0) return "batch: this backend gives all logits of a row, not the largest";
  if (count == 0 || count > most_best)
    return fmt::format("batch: expected 1 to {} of the largest logits of a row, found {}", most_best, count);
  const size_t rows = batch.output_rows.size();
  if (rows <= entries / count) return {};
  return fmt::format("batch: {} largest logits of {} rows do not fit {} entries", count, rows, entries);
}

}  // namespace tessera
