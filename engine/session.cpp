#include "engine/session.h"

#include <stdexcept>

#include "engine/model.h"
#include "engine/value_or_throw.h"

namespace tessera {

Session::Session(const Model& model, const SessionOptions& options)
    : Session(std::make_unique<Runtime>(model, options)) {}

Session::Session(std::unique_ptr<Runtime> runtime)
    : runtime_(std::move(runtime)),
      sequences_(runtime_->kv_pages(), runtime_->context(), runtime_->window_pages()) {}

// Rows of the results go to best_ where only the best_count best of each are computed, else to logits_.
void Session::run_batches(std::span<const SequenceInput> inputs, size_t best_count) {
  std::vector<SequenceGrowth> growth;
  size_t rows = 0;
  for (const SequenceInput& input : inputs) {
    growth.push_back({input.sequence, input.tokens.size()});
    rows += input.logit_rows();
  }
  sequences_.reserve(growth);
  std::vector<size_t> lengths;
  for (const SequenceInput& input : inputs) lengths.push_back(length(input.sequence));

  const size_t columns = best_count == 0 ? runtime_->vocabulary() : best_count;
  if (best_count == 0) {
    logits_.resize(rows * columns);
  } else {
    best_.resize(rows * columns);
  }
  try {
    size_t rows_done = 0;
    for (BatchPacker packer(inputs, runtime_->limits(), sequences_); packer.next();) {
      const Batch batch = packer.batch();
      const size_t first = rows_done * columns;
      const size_t count = batch.output_rows.size() * columns;
      Program& program = runtime_->program();
      if (best_count == 0) {
        const std::span<float> logits = std::span(logits_).subspan(first, count);
        check_status(program.run(batch, logits));
        if (!seem_finite(logits, columns)) throw LogitsNotFinite(model().file().path());
      } else {
        const std::span<TokenLogit> best = std::span(best_).subspan(first, count);
        check_status(program.run_best(batch, best_count, best));
        if (!have_finite(best, best_count)) throw LogitsNotFinite(model().file().path());
      }
      rows_done += batch.output_rows.size();
    }
  } catch (...) {
    for (size_t i = 0; i < inputs.size(); ++i) sequences_.truncate(inputs[i].sequence, lengths[i]);
    throw;
  }
}

std::span<float> Session::run(std::span<const SequenceInput> inputs) {
  run_batches(inputs, 0);
  return logits_;
}

bool Session::gives_best(size_t count) const {
  const Runtime& runtime = *runtime_;
  return count > 0 && count <= runtime.program().most_best() && count < runtime.vocabulary();
}

std::span<const TokenLogit> Session::run_best(std::span<const SequenceInput> inputs, size_t count) {
  if (!gives_best(count)) throw std::invalid_argument("more of the best logits than the backend gives");
  run_batches(inputs, count);
  return best_;
}

}  // namespace tessera
