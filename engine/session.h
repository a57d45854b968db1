// Tokens in, logits out: sequences over one runtime, batches of any mixture of them. One thread at a time.
// Everything here throws std::runtime_error with one line for what a user can cause.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/batch_packer.h"
#include "engine/finite_logits.h"
#include "engine/kv_cache/sequences.h"
#include "engine/runtime.h"

namespace tessera {

class Session {
 public:
  // Loads the model, which must outlive the session. Throws, with the numbers, when it cannot fit.
  Session(const Model& model, const SessionOptions& options);
  // Takes over a loaded model.
  explicit Session(std::unique_ptr<Runtime> runtime);
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  const Model& model() const { return runtime_->model(); }
  const MemoryFigures& memory() const { return runtime_->memory(); }
  std::string backend_description() const { return runtime_->backend().describe(); }
  size_t context() const { return runtime_->context(); }             // most tokens that one sequence can hold
  size_t pages_in_use() const { return sequences_.pages_in_use(); }  // KV pages held by living sequences
  // What computes: for instruments that measure it.
  Runtime& runtime() { return *runtime_; }

  SequenceId create_sequence() { return sequences_.create(); }
  void release(SequenceId sequence) { sequences_.release(sequence); }  // its pages are free again
  // Forgets all tokens of the sequence after the first token_count, or all of them where a window's pages
  // were used again since. Returns how many are left.
  size_t truncate(SequenceId sequence, size_t token_count) {
    return sequences_.truncate(sequence, token_count);
  }
  size_t length(SequenceId sequence) const { return tokens(sequence).size(); }
  // Those in the cache.
  const std::vector<uint32_t>& tokens(SequenceId sequence) const { return sequences_.tokens(sequence); }

  // Runs the inputs, in several batches when they exceed the limits, and returns the rows of logits they ask
  // for in their order, [rows, vocabulary] flat; the view stays valid until the next call. A sequence may
  // come only once. Throws when the cache is full, and LogitsNotFinite; then nothing is appended, but a
  // sequence whose window's pages were used again is empty.
  std::span<float> run(std::span<const SequenceInput> inputs);

  // Whether run_best can give the `count` best logits of a row; they are fewer than all.
  bool gives_best(size_t count) const;
  // As run, but of every row only the `count` best finite logits, best first, [rows, count] flat; a row that
  // has fewer ends in -infinity. Only where gives_best(count).
  std::span<const TokenLogit> run_best(std::span<const SequenceInput> inputs, size_t count);

 private:
  void run_batches(std::span<const SequenceInput> inputs, size_t best_count);

  std::unique_ptr<Runtime> runtime_;
  Sequences sequences_;
  std::vector<float> logits_;
  std::vector<TokenLogit> best_;
};

}  // namespace tessera
