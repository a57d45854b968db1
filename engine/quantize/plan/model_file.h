// What every way of quantizing a checkpoint shares: the plan of the new file with its header and tokenizer,
// and encoding a matrix of the checkpoint by plain rounding.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/checkpoint/checkpoint_source.h"
#include "engine/quantize/plan/rounding_error.h"
#include "engine/quantize/plan/weight_plan.h"
#include "engine/tokenizer/tokenizer.h"
#include "gguf-like-format/file_target.h"
#include "gguf-like-format/model_header.h"
#include "gguf-like-format/scheme.h"
#include "gguf-like-format/tess/tess_writer.h"

namespace tessera {

// Whether codes and floats stay as the checkpoint has them instead of being rounded to a scheme.
enum class Keep : uint8_t { nothing, where_quantized, everything };

// From what, to where and in which precision: what every way of quantizing needs to know.
struct ModelFileOptions {
  std::string source;  // checkpoint: a Hugging Face folder or a GGUF file
  std::string target;  // .tess path
  // Where the file goes instead; outlives the call. target then only names the file in errors.
  FileTarget* output = nullptr;
  Scheme scheme = Scheme::w4a8_g128;
  // where_quantized: everything is kept of a checkpoint with quantized tensors, nothing of others. What no
  // scheme holds is rounded to one near it. `scheme` has no meaning then.
  Keep keep = Keep::nothing;
  bool keep_for_int8 = false;  // codes go into schemes with int8 activations
  // Whether head and embedding stay in the checkpoint's precision, or codes, instead of becoming w8a8; where
  // nothing is said, they follow the rest.
  std::optional<bool> keep_head;
  unsigned kv_bits = 8;                      // recommendation stored in the file
  std::optional<std::string> chat_template;  // in place of the checkpoint's
  size_t threads = 0;                        // 0: all cores
  std::string command;                       // stored in the file
  // A line for what the checkpoint's files say and the new file does not, before the work begins. May be
  // empty.
  std::function<void(const std::string&)> import_note;
  // Work done so far out of all of it, in weights; begins above zero when a run is resumed. May be empty.
  std::function<void(uint64_t done, uint64_t total)> progress;
};

// Everything about the file that is known before its weights are.
class ModelFile {
 public:
  // Reads the folder's settings, tensors and tokenizer. Throws FileError.
  explicit ModelFile(const ModelFileOptions& options);

  // Gives a tied model a head of its own, made from the same rows as the embedding. Pointers into the plan
  // are no longer valid.
  void untie_head();
  // Makes the table of a tied model a rotated one, with the output norm's gain as a tensor of its own.
  // Pointers into the plan are no longer valid.
  void rotate_table();

  bool keeps() const { return keeps_; }  // what the checkpoint has
  const std::vector<PlannedWeight>& plan() const { return plan_; }
  const Hyperparameters& hyperparameters() const { return header_.hyperparameters; }
  const CheckpointSource& checkpoint() const { return *checkpoint_; }
  const Tokenizer& tokenizer() const { return checkpoint_->tokenizer(); }
  uint64_t weights() const;  // of the whole plan
  void set_calibration_hash(const std::string& hash) { header_.quantization.calibration_hash = hash; }

  // The file under construction: the plan's tensors come first, then write_rest.
  TessWriter writer() const;
  void write_rest(TessWriter& writer) const;  // orders of columns and the tokenizer

 private:
  std::string target_;
  FileTarget* output_;
  std::unique_ptr<CheckpointSource> checkpoint_;
  bool keeps_;
  ModelHeader header_;
  std::vector<PlannedWeight> plan_;
  std::vector<ColumnOrder> orders_;
  TokenizerArrays arrays_;
};

// Counts work for the progress callback, which is never called from two threads at once.
class Progress {
 public:
  // The first report, made here, says what an earlier run has done already.
  Progress(std::function<void(uint64_t, uint64_t)> report, uint64_t total, uint64_t done)
      : report_(std::move(report)), total_(total) {
    add(done);
  }
  void add(uint64_t work);

 private:
  std::function<void(uint64_t, uint64_t)> report_;
  uint64_t total_;
  uint64_t done_ = 0;
  std::mutex mutex_;
};

// Changes one row of a matrix before it is encoded; scratch is the calling thread's own.
using RowChange = std::function<void(std::span<float> row, std::vector<double>& scratch)>;

// Calls job(first row, rows) for all rows of a matrix in blocks of whole panels on all threads, reports
// progress, and sums what the calls return in the order of the rows. Throws what the lowest failing job
// throws.
ErrorSums over_row_blocks(const ModelFileOptions& options, const PlannedWeight& weight, Progress& progress,
                          const std::function<ErrorSums(size_t, size_t)>& job);

// Encodes a whole matrix of the checkpoint into out by plain rounding and measures it by decoding every row
// again; table schemes get their default table. change may be empty. Throws FileError for values that cannot
// be stored.
ErrorSums encode_by_rounding(const ModelFileOptions& options, const PlannedWeight& weight,
                             const RowChange& change, std::span<std::byte> out, Progress& progress);

// Copies a vector, which stays f32, into out.
void copy_vector(const ModelFileOptions& options, const PlannedWeight& weight, std::span<std::byte> out,
                 Progress& progress);

}  // namespace tessera
