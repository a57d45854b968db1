#include "engine/quantize/quantize_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <mutex>

#include "engine/quantize/matrix_codec.h"
#include "engine/quantize/rounding.h"
#include "engine/quantize/row_blocks.h"
#include "engine/quantize/weight_plan.h"
#include "engine/tokenizer/tokenizer.h"
#include "gguf-like-format/float_types.h"
#include "gguf-like-format/huggingface_config.h"
#include "gguf-like-format/tess_writer.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera {

namespace {

// Floats a worker holds at once: enough to hide the hand-out of blocks, small enough for its cache.
constexpr size_t kBlockElements = size_t{1} << 18;

bool is_finite(float value) { return (std::bit_cast<uint32_t>(value) & 0x7f800000u) != 0x7f800000u; }

// Position of element `index` as the tensor's own indices.
std::string index_text(const std::vector<uint64_t>& shape, uint64_t index) {
  if (shape.size() != 2) return fmt::format("[{}]", index);
  return fmt::format("[{}, {}]", index / shape[1], index % shape[1]);
}

// Throws FileError when a value is not finite or too large for a float scheme; first is the tensor's element
// index of values[0].
void check_values(const std::string& folder, const PlannedWeight& weight, uint64_t first,
                  std::span<const float> values) {
  uint32_t bad = 0;
  for (const float value : values) bad |= is_finite(value) ? 0u : 1u;
  if (bad != 0) {
    const auto at = std::find_if_not(values.begin(), values.end(), is_finite) - values.begin();
    throw FileError(fmt::format("{}: tensor \"{}\": expected finite values, found {} at {}", folder,
                                weight.source->name, values[static_cast<size_t>(at)],
                                index_text(weight.source->shape, first + static_cast<uint64_t>(at))));
  }
  const auto overflows = [&](float value) {
    if (weight.scheme == Scheme::f16) return !is_finite(f16_to_f32(f32_to_f16(value)));
    return weight.scheme == Scheme::bf16 && !is_finite(bf16_to_f32(f32_to_bf16(value)));
  };
  if (!overflows(rounding::largest_magnitude(values))) return;
  const auto at = std::find_if(values.begin(), values.end(), overflows) - values.begin();
  throw FileError(fmt::format("{}: tensor \"{}\": expected values within the range of {}, found {} at {}",
                              folder, weight.source->name, scheme_name(weight.scheme),
                              values[static_cast<size_t>(at)],
                              index_text(weight.source->shape, first + static_cast<uint64_t>(at))));
}

// Sums for the relative error of a tensor.
struct ErrorSums {
  double error = 0;  // sum (w - decoded)^2
  double power = 0;  // sum w^2
};

// Adds one row. Lanes let the compiler vectorize sums whose order it must keep.
void add_row(std::span<const float> values, std::span<const double> decoded, ErrorSums& sums) {
  constexpr size_t kLanes = 8;
  std::array<double, kLanes> error{};
  std::array<double, kLanes> power{};
  const auto add = [&](size_t i, size_t lane) {
    const double value = values[i];
    const double difference = value - decoded[i];
    error[lane] += difference * difference;
    power[lane] += value * value;
  };
  const size_t whole = values.size() / kLanes * kLanes;
  for (size_t i = 0; i < whole; i += kLanes)
    for (size_t lane = 0; lane < kLanes; ++lane) add(i + lane, lane);
  for (size_t i = whole; i < values.size(); ++i) add(i, i - whole);
  for (size_t lane = 0; lane < kLanes; ++lane) {
    sums.error += error[lane];
    sums.power += power[lane];
  }
}

// Counts encoded weights for the progress callback, which is never called from two threads at once.
class Progress {
 public:
  Progress(const std::function<void(uint64_t, uint64_t)>& report, uint64_t total)
      : report_(report), total_(total) {}

  void add(uint64_t weights) {
    const std::lock_guard<std::mutex> lock(mutex_);
    done_ += weights;
    if (report_) report_(done_, total_);
  }

 private:
  const std::function<void(uint64_t, uint64_t)>& report_;
  uint64_t total_;
  uint64_t done_ = 0;
  std::mutex mutex_;
};

// Encodes a whole matrix into out and measures it by decoding every row again.
ErrorSums encode_matrix(const QuantizeOptions& options, const PlannedWeight& weight, std::span<std::byte> out,
                        Progress& progress) {
  const size_t rows = static_cast<size_t>(weight.expected.shape[0]);
  const size_t columns = static_cast<size_t>(weight.expected.shape[1]);
  const size_t block_rows =
      tile::kPanelRows * std::max<size_t>(1, kBlockElements / (columns * tile::kPanelRows));
  const size_t blocks = (rows + block_rows - 1) / block_rows;
  const size_t workers = worker_count(blocks, options.threads);
  std::vector<std::vector<float>> values(workers);
  std::vector<std::vector<double>> decoded(workers);
  std::vector<ErrorSums> sums(blocks);  // per block, so that the total does not depend on who did what

  run_row_blocks(blocks, options.threads, [&](size_t block, size_t worker) {
    const size_t first_row = block * block_rows;
    const size_t row_count = std::min(block_rows, rows - first_row);
    std::vector<float>& block_values = values[worker];
    std::vector<double>& row_values = decoded[worker];
    block_values.resize(row_count * columns);
    row_values.resize(columns);
    read_floats(*weight.source, uint64_t{first_row} * columns, block_values);
    check_values(options.source, weight, uint64_t{first_row} * columns, block_values);
    encode_rows(weight.scheme, rows, columns, first_row, row_count, block_values, out);
    ErrorSums block_sums;
    for (size_t row = 0; row < row_count; ++row) {
      decode_row(weight.scheme, rows, columns, out, first_row + row, row_values);
      add_row(std::span<const float>(block_values).subspan(row * columns, columns), row_values, block_sums);
    }
    sums[block] = block_sums;
    progress.add(uint64_t{row_count} * columns);
  });

  ErrorSums total;
  for (const ErrorSums& part : sums) {
    total.error += part.error;
    total.power += part.power;
  }
  return total;
}

// Copies a vector, which stays f32, into out.
void copy_vector(const QuantizeOptions& options, const PlannedWeight& weight, std::span<std::byte> out,
                 Progress& progress) {
  std::vector<float> values(static_cast<size_t>(weight.expected.shape[0]));
  read_floats(*weight.source, 0, values);
  check_values(options.source, weight, 0, values);
  std::memcpy(out.data(), values.data(), out.size());
  progress.add(values.size());
}

// One line of the table while its sums are still open.
struct OpenSummary {
  QuantizeSummary line;
  ErrorSums sums;
};

OpenSummary& summary_of(std::vector<OpenSummary>& table, const PlannedWeight& weight) {
  const std::string scheme(scheme_name(weight.scheme));
  for (OpenSummary& entry : table)
    if (entry.line.kind == weight.expected.kind && entry.line.scheme == scheme) return entry;
  OpenSummary& added = table.emplace_back();
  added.line.kind = weight.expected.kind;
  added.line.scheme = scheme;
  return added;
}

// Arrays of the tokenizer as tensors of the file; an array without elements has no tensor.
struct TokenizerBytes {
  std::vector<PlannedTensor> planned;
  std::vector<std::span<const std::byte>> bytes;
};

TokenizerBytes tokenizer_bytes(const TokenizerArrays& arrays) {
  TokenizerBytes result;
  for (const auto& [name, values] : arrays.byte_tensors) {
    if (values.empty()) continue;
    result.planned.push_back({name, Scheme::u8, {values.size()}});
    result.bytes.push_back(std::as_bytes(std::span(values)));
  }
  for (const auto& [name, values] : arrays.word_tensors) {
    if (values.empty()) continue;
    result.planned.push_back({name, Scheme::u32, {values.size()}});
    result.bytes.push_back(std::as_bytes(std::span(values)));
  }
  return result;
}

void check_options(const QuantizeOptions& options) {
  if (options.scheme == Scheme::u8 || options.scheme == Scheme::u32)
    throw FileError(fmt::format("{}: scheme: expected one for matrices, found {}", options.target,
                                scheme_name(options.scheme)));
  if (options.kv_bits != 4 && options.kv_bits != 8 && options.kv_bits != 16)
    throw FileError(
        fmt::format("{}: KV bits: expected 4, 8 or 16, found {}", options.target, options.kv_bits));
}

}  // namespace

std::vector<QuantizeSummary> quantize_model(const QuantizeOptions& options) {
  check_options(options);
  ModelHeader header = read_huggingface_folder(options.source);
  const Checkpoint checkpoint = Checkpoint::open(options.source);
  const std::vector<PlannedWeight> plan =
      plan_weights(options.source, checkpoint, header.hyperparameters, options.scheme, options.keep_head);

  const Tokenizer tokenizer = Tokenizer::from_folder(options.source);
  if (tokenizer.vocabulary() > header.hyperparameters.vocabulary)
    throw FileError(
        fmt::format("{}: tokenizer: expected at most the {} entries of vocab_size in config.json, found {}",
                    options.source, header.hyperparameters.vocabulary, tokenizer.vocabulary()));
  if (header.chat.stop_tokens.empty() && tokenizer.eos()) header.chat.stop_tokens.push_back(*tokenizer.eos());
  const TokenizerArrays arrays = tokenizer.store();
  header.tokenizer = arrays.settings;
  header.quantization.scheme = scheme_name(options.scheme);
  header.quantization.head_scheme = scheme_name(head_scheme(plan));
  header.quantization.kv_bits = options.kv_bits;
  header.quantization.calibration_hash.clear();
  header.quantization.tool_version = TESSERA_VERSION;
  header.quantization.command = options.command;

  std::vector<PlannedTensor> planned;
  uint64_t weights = 0;
  for (const PlannedWeight& weight : plan) {
    planned.push_back({weight.expected.name, weight.scheme, weight.expected.shape});
    weights += weight.source->elements();
  }
  const TokenizerBytes text = tokenizer_bytes(arrays);
  planned.insert(planned.end(), text.planned.begin(), text.planned.end());

  TessWriter writer(options.target, header, planned);
  Progress progress(options.progress, weights);
  std::vector<OpenSummary> table;
  std::vector<std::byte> out;
  for (const PlannedWeight& weight : plan) {
    const auto bytes = stored_bytes(weight.scheme, weight.expected.shape);
    out.resize(static_cast<size_t>(bytes.value()));
    OpenSummary& summary = summary_of(table, weight);
    if (weight.expected.shape.size() == 2) {
      const ErrorSums sums = encode_matrix(options, weight, out, progress);
      summary.sums.error += sums.error;
      summary.sums.power += sums.power;
    } else {
      copy_vector(options, weight, out, progress);
    }
    writer.write(out);
    summary.line.tensors += 1;
    summary.line.weights += weight.source->elements();
    summary.line.bytes += out.size();
  }
  for (const std::span<const std::byte> bytes : text.bytes) writer.write(bytes);
  writer.finish();

  std::vector<QuantizeSummary> result;
  for (OpenSummary& entry : table) {
    if (entry.sums.power > 0) entry.line.relative_error = std::sqrt(entry.sums.error / entry.sums.power);
    result.push_back(std::move(entry.line));
  }
  return result;
}

}  // namespace tessera
