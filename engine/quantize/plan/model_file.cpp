#include "engine/quantize/plan/model_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "engine/chat_format/chat_format.h"
#include "engine/codec/matrix_codec.h"
#include "engine/quantize/plan/checkpoint_values.h"
#include "engine/quantize/plan/kept_matrix.h"
#include "engine/quantize/plan/row_blocks.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera {

namespace {

// Floats a worker holds at once: enough to hide the hand-out of blocks, small enough for its cache.
constexpr size_t kBlockElements = size_t{1} << 18;

void check_options(const ModelFileOptions& options) {
  if (!scheme_facts(options.scheme).stores_matrices())
    throw FileError(fmt::format("{}: scheme: expected one for matrices, found {}", options.target,
                                scheme_name(options.scheme)));
  if (options.kv_bits != 4 && options.kv_bits != 8 && options.kv_bits != 16)
    throw FileError(
        fmt::format("{}: KV bits: expected 4, 8 or 16, found {}", options.target, options.kv_bits));
}

// What is wrong with the chat template, which only chats would find out; nothing where they can use it.
std::optional<std::string> template_note(const std::string& path, const ChatSettings& chat,
                                         const Tokenizer& tokenizer) {
  const ChatFormat format(chat.chat_template, chat, tokenizer);
  if (!format.fault().empty())
    return fmt::format("{}: {}: chats need --chat-template FILE, --raw does without", path, format.fault());
  if (!format.question_fault().empty())
    return fmt::format("{}: a question alone cannot be rendered: {}", path, format.question_fault());
  if (!format.takes_system())
    return fmt::format("{}: the chat template knows no system messages: they go before the first message",
                       path);
  return std::nullopt;
}

const ModelFileOptions& checked(const ModelFileOptions& options) {
  check_options(options);
  return options;
}

}  // namespace

ModelFile::ModelFile(const ModelFileOptions& options)
    : target_(checked(options).target),
      output_(options.output),
      checkpoint_(open_checkpoint(options.source)),
      keeps_(options.keep == Keep::everything ||
             (options.keep == Keep::where_quantized && has_quantized_tensors(*checkpoint_))),
      header_(checkpoint_->header()),
      plan_(plan_weights(*checkpoint_, header_.hyperparameters, options.scheme,
                         options.keep_head.value_or(false))),
      arrays_(tokenizer().store()) {
  if (options.import_note)
    for (const std::string& line : checkpoint_->notes()) options.import_note(line);
  if (options.chat_template) header_.chat.chat_template = *options.chat_template;
  if (options.import_note)
    if (const auto note = template_note(options.source, header_.chat, tokenizer()))
      options.import_note(*note);
  if (tokenizer().vocabulary() > header_.hyperparameters.vocabulary)
    throw FileError(
        fmt::format("{}: tokenizer: expected at most the {} entries of vocab_size in config.json, found {}",
                    options.source, header_.hyperparameters.vocabulary, tokenizer().vocabulary()));
  if (header_.chat.stop_tokens.empty() && tokenizer().eos())
    header_.chat.stop_tokens.push_back(*tokenizer().eos());
  header_.tokenizer = arrays_.settings;
  const std::string_view kept_name = options.keep_for_int8 ? kKeptInt8Scheme : kKeptScheme;
  if (keeps_)
    orders_ = keep_matrices(plan_, header_.hyperparameters,
                            options.keep_for_int8 ? ActivationType::int8 : ActivationType::bf16,
                            options.keep_head == false, options.threads);
  header_.quantization.scheme = keeps_ ? kept_name : scheme_name(options.scheme);
  header_.quantization.head_scheme = scheme_name(head_scheme(plan_));
  header_.quantization.kv_bits = options.kv_bits;
  header_.quantization.calibration_hash.clear();
  header_.quantization.tool_version = TESSERA_VERSION;
  header_.quantization.command = options.command;
}

void ModelFile::untie_head() {
  if (!header_.hyperparameters.tied_head) return;
  header_.hyperparameters.tied_head = false;
  PlannedWeight head = plan_.front();  // the embedding
  head.expected = expected_tensors(header_.hyperparameters).back();
  plan_.push_back(std::move(head));
}

void ModelFile::rotate_table() {
  header_.hyperparameters.rotated_table = true;
  PlannedWeight gain = plan_.back();  // the output norm's
  gain.expected = expected_tensors(header_.hyperparameters).back();
  plan_.push_back(std::move(gain));
}

uint64_t ModelFile::weights() const {
  return std::accumulate(plan_.begin(), plan_.end(), uint64_t{0},
                         [](uint64_t sum, const PlannedWeight& weight) { return sum + weight.elements(); });
}

TessWriter ModelFile::writer() const {
  std::vector<PlannedTensor> planned;
  for (const PlannedWeight& weight : plan_)
    planned.push_back({weight.expected.name, weight.scheme, weight.expected.shape});
  for (const ColumnOrder& order : orders_)
    planned.push_back({order.name, Scheme::u32, {order.columns.size()}});
  // An array without elements has no tensor.
  for (const auto& [name, values] : arrays_.byte_tensors)
    if (!values.empty()) planned.push_back({name, Scheme::u8, {values.size()}});
  for (const auto& [name, values] : arrays_.word_tensors)
    if (!values.empty()) planned.push_back({name, Scheme::u32, {values.size()}});
  return output_ != nullptr ? TessWriter(*output_, target_, header_, std::move(planned))
                            : TessWriter(target_, header_, std::move(planned));
}

void ModelFile::write_rest(TessWriter& writer) const {
  for (const ColumnOrder& order : orders_) writer.write(std::as_bytes(std::span(order.columns)));
  for (const auto& [name, values] : arrays_.byte_tensors)
    if (!values.empty()) writer.write(std::as_bytes(std::span(values)));
  for (const auto& [name, values] : arrays_.word_tensors)
    if (!values.empty()) writer.write(std::as_bytes(std::span(values)));
}

void Progress::add(uint64_t work) {
  const std::lock_guard<std::mutex> lock(mutex_);
  done_ += work;
  if (report_) report_(done_, total_);
}

ErrorSums over_row_blocks(const ModelFileOptions& options, const PlannedWeight& weight, Progress& progress,
                          const std::function<ErrorSums(size_t, size_t)>& job) {
  const size_t rows = static_cast<size_t>(weight.expected.shape[0]);
  const size_t columns = static_cast<size_t>(weight.expected.shape[1]);
  const size_t block_rows =
      tile::kPanelRows * std::max<size_t>(1, kBlockElements / (columns * tile::kPanelRows));
  const size_t blocks = (rows + block_rows - 1) / block_rows;
  std::vector<ErrorSums> sums(blocks);  // per block, so that the total does not depend on who did what
  run_row_blocks(blocks, options.threads, [&](size_t block, size_t) {
    const size_t first_row = block * block_rows;
    const size_t row_count = std::min(block_rows, rows - first_row);
    sums[block] = job(first_row, row_count);
    progress.add(uint64_t{row_count} * columns);
  });
  ErrorSums total;
  for (const ErrorSums& part : sums) total.add(part);
  return total;
}

ErrorSums encode_by_rounding(const ModelFileOptions& options, const PlannedWeight& weight,
                             const RowChange& change, std::span<std::byte> out, Progress& progress) {
  const size_t rows = static_cast<size_t>(weight.expected.shape[0]);
  const size_t columns = static_cast<size_t>(weight.expected.shape[1]);
  write_default_table(weight.scheme, rows, columns, out);
  return over_row_blocks(options, weight, progress, [&](size_t first_row, size_t row_count) {
    std::vector<float> values(row_count * columns);
    std::vector<double> scratch;
    read_finite(options.source, weight, uint64_t{first_row} * columns, values);
    for (size_t row = 0; change && row < row_count; ++row)
      change(std::span(values).subspan(row * columns, columns), scratch);
    check_representable(options.source, weight, uint64_t{first_row} * columns, values);
    encode_rows(weight.scheme, rows, columns, first_row, row_count, values, out);
    return rounding_error(weight.scheme, rows, columns, out, first_row, values);
  });
}

void copy_vector(const ModelFileOptions& options, const PlannedWeight& weight, std::span<std::byte> out,
                 Progress& progress) {
  std::vector<float> values(static_cast<size_t>(weight.expected.shape[0]));
  read_finite(options.source, weight, 0, values);
  std::memcpy(out.data(), values.data(), out.size());
  progress.add(values.size());
}

}  // namespace tessera
