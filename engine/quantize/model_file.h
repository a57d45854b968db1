// What every way of quantizing a checkpoint shares: the plan of the new file with its header and tokenizer,
// and encoding a matrix of the checkpoint by plain rounding.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "engine/checkpoint/checkpoint_source.h"
#include "engine/quantize/quantize_model.h"
#include "engine/quantize/rounding_error.h"
#include "engine/quantize/weight_plan.h"
#include "engine/tokenizer/tokenizer.h"
#include "gguf-like-format/model_header.h"
#include "gguf-like-format/tess/tess_writer.h"

namespace tessera {

// Everything about the file that is known before its weights are.
class ModelFile {
 public:
  // Reads the folder's settings, tensors and tokenizer. untie_head gives a tied model a head of its own, made
  // from the same rows as the embedding. Throws FileError.
  ModelFile(const QuantizeOptions& options, bool untie_head);

  const std::vector<PlannedWeight>& plan() const { return plan_; }
  const Hyperparameters& hyperparameters() const { return header_.hyperparameters; }
  const CheckpointSource& checkpoint() const { return *checkpoint_; }
  const Tokenizer& tokenizer() const { return checkpoint_->tokenizer(); }
  uint64_t weights() const;  // of the whole plan
  void set_calibration_hash(const std::string& hash) { header_.quantization.calibration_hash = hash; }

  // The file under construction: the plan's tensors come first, then write_tokenizer.
  TessWriter writer() const;
  void write_tokenizer(TessWriter& writer) const;

 private:
  std::string target_;
  std::unique_ptr<CheckpointSource> checkpoint_;
  ModelHeader header_;
  std::vector<PlannedWeight> plan_;
  TokenizerArrays arrays_;
};

// Counts work for the progress callback, which is never called from two threads at once.
class Progress {
 public:
  // The first report, made here, says what an earlier run has done already.
  Progress(const std::function<void(uint64_t, uint64_t)>& report, uint64_t total, uint64_t done)
      : report_(report), total_(total) {
    add(done);
  }
  void add(uint64_t work);

 private:
  const std::function<void(uint64_t, uint64_t)>& report_;
  uint64_t total_;
  uint64_t done_ = 0;
  std::mutex mutex_;
};

// Changes one row of a matrix before it is encoded; scratch is the calling thread's own.
using RowChange = std::function<void(std::span<float> row, std::vector<double>& scratch)>;

// Encodes a whole matrix of the checkpoint into out by plain rounding and measures it by decoding every row
// again; table schemes take their default table. change may be empty. Throws FileError for values that cannot
// be stored.
ErrorSums encode_by_rounding(const QuantizeOptions& options, const PlannedWeight& weight,
                             const RowChange& change, std::span<std::byte> out, Progress& progress);

// Copies a vector, which stays f32, into out.
void copy_vector(const QuantizeOptions& options, const PlannedWeight& weight, std::span<std::byte> out,
                 Progress& progress);

}  // namespace tessera
