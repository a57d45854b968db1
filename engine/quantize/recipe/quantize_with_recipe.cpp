#include "engine/quantize/recipe/quantize_with_recipe.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <stdexcept>

#include "engine/quantize/calibration/calibrate_layer.h"
#include "engine/quantize/calibration/calibration_windows.h"
#include "engine/quantize/plan/checkpoint_values.h"
#include "engine/quantize/plan/model_file.h"
#include "engine/quantize/qoq/rotate_layer.h"
#include "engine/quantize/recipe/quantize_layer.h"
#include "engine/quantize/recipe/run_folder.h"
#include "gguf-like-format/hyperparameter_checks.h"

namespace tessera::quantize {

namespace {

// Bumped when the same input would give other parts than before.
constexpr int kPartsVersion = 5;

std::string hash_text(uint64_t hash) { return fmt::format("{:016x}", hash); }

uint64_t hash_of(std::span<const std::byte> bytes, uint64_t seed) {
  return XXH64(bytes.data(), bytes.size(), seed);
}

// Everything the parts of a run depend on: the checkpoint's values, the text and the choices.
uint64_t key_of(const ModelFileOptions& options, const Recipe& recipe, const ModelFile& file,
                const CalibrationWindows& text) {
  const auto number = [](const std::optional<double>& value) {
    return value ? fmt::format("{:a}", *value) : "best";
  };
  std::string choices =
      fmt::format("{} {} {} {} {} {} {} {} {} {} {} {} {} {} {}", TESSERA_VERSION, kPartsVersion,
                  scheme_name(options.scheme), recipe.rotate, recipe.reorder, recipe.smooth_attention,
                  recipe.smooth_outputs, recipe.clip, recipe.feedback, static_cast<int>(recipe.table),
                  recipe.scale_search, recipe.awq, recipe.train_scales, number(recipe.attention_alpha),
                  number(recipe.output_alpha));
  for (const auto& [field, value] : hyperparameter_texts(file.hyperparameters()))
    choices += fmt::format(" {}={}", field, value);
  uint64_t key = hash_of(std::as_bytes(std::span(choices)), 0);
  for (const PlannedWeight& weight : file.plan()) {
    const std::string name = fmt::format("{} {} {}", weight.expected.name, weight.source->type,
                                         fmt::join(weight.expected.shape, " "));
    key = hash_of(std::as_bytes(std::span(name)), key);
    key = weight.checkpoint->hash(*weight.source, key);
  }
  for (const std::vector<uint32_t>& window : text.windows) {
    const uint64_t length = window.size();
    key = hash_of(std::as_bytes(std::span(&length, 1)), key);
    key = hash_of(std::as_bytes(std::span(window)), key);
  }
  return key;
}

class Run {
 public:
  Run(const ModelFileOptions& options, const Recipe& recipe, DenseProducts& products,
      const std::function<void(const std::string&)>& note)
      : options_(options),
        recipe_(recipe),
        products_(products),
        file_(options, recipe_.rotate),
        shape_(file_.hyperparameters()),
        layers_(static_cast<size_t>(file_.hyperparameters().layers)),
        precision_(file_.plan().front().source->precision == Scheme::bf16 ? DenseProduct::Precision::bf16
                                                                          : DenseProduct::Precision::f32),
        context_{products_, precision_, shape_, note} {
    if (recipe_.rotate) rotation_.emplace(shape_);
    if (!recipe_.needs_text()) return;
    if (!recipe_.calibration) throw std::runtime_error("calibration text: the recipe needs one, found none");
    const CalibrationText& text = *recipe_.calibration;
    text_ =
        cut_calibration_text(text, file_.tokenizer(), static_cast<size_t>(file_.hyperparameters().context));
    file_.set_calibration_hash(hash_text(XXH64(text.text.data(), text.text.size(), 0)));
  }

  std::vector<QuantizeSummary> run();

 private:
  const PlannedWeight* planned(std::string_view name) const;
  void calibrate_layers(RunFolder& folder, size_t finished, Progress& progress);
  void write_first_stream(RunFolder& folder) const;
  std::vector<EncodedTensor> finish_layer(size_t layer, LayerWeights& weights, LayerStatistics* statistics,
                                          Progress& progress) const;
  LayerWeights rotated_layer(size_t layer) const;
  std::vector<EncodedTensor> stored_layer(const RunFolder& folder, size_t layer) const;
  EncodedTensor outside_layers(const PlannedWeight& weight, Progress& progress) const;
  uint64_t layer_weights(size_t layer) const;

  const ModelFileOptions& options_;
  const Recipe& recipe_;
  DenseProducts& products_;
  ModelFile file_;
  DecoderShape shape_;
  size_t layers_;
  DenseProduct::Precision precision_;
  LayerContext context_;
  std::optional<ModelRotation> rotation_;
  CalibrationWindows text_;
};

const PlannedWeight* Run::planned(std::string_view name) const {
  const auto found = std::find_if(file_.plan().begin(), file_.plan().end(),
                                  [&](const PlannedWeight& weight) { return weight.expected.name == name; });
  return found != file_.plan().end() ? &*found : nullptr;
}

uint64_t Run::layer_weights(size_t layer) const {
  uint64_t weights = 0;
  for (const PlannedWeight& weight : layer_plan(file_.plan(), layer)) weights += weight.elements();
  return weights;
}

LayerWeights Run::rotated_layer(size_t layer) const {
  LayerWeights weights = load_layer(products_, options_.source, layer_plan(file_.plan(), layer));
  if (rotation_) rotation_->layer(products_, weights);
  return weights;
}

// The embedded text, rotated where the model is.
void Run::write_first_stream(RunFolder& folder) const {
  const PlannedWeight& embedding = *planned("token_embedding");
  RunFolder::StreamWriter writer = folder.write_stream(0);
  FloatMatrix block;
  std::vector<std::vector<double>> scratch(products_.threads());
  for (const std::vector<uint32_t>& window : text_.windows) {
    block = FloatMatrix(window.size(), shape_.hidden);
    for (size_t i = 0; i < window.size(); ++i)
      read_finite(options_.source, embedding, uint64_t{window[i]} * shape_.hidden, block.row(i));
    if (rotation_)
      for_row_blocks(products_, block.rows, 16, [&](size_t first, size_t count, size_t thread) {
        for (size_t row = first; row < first + count; ++row)
          rotation_->residual_row(block.row(row), scratch[thread]);
      });
    writer.append(block.values);
  }
  writer.commit();
}

std::vector<EncodedTensor> Run::finish_layer(size_t layer, LayerWeights& weights, LayerStatistics* statistics,
                                             Progress& progress) const {
  LayerContext context = context_;
  if (context_.note) {
    context.note = [&](const std::string& line) { context_.note(fmt::format("layer {}: {}", layer, line)); };
  }
  if (statistics != nullptr) smooth_layer(context, recipe_, options_.scheme, weights, *statistics);
  return encode_layer(context, recipe_, options_.scheme, options_.source, layer_plan(file_.plan(), layer),
                      weights, statistics, [&](uint64_t done) { progress.add(done); });
}

void Run::calibrate_layers(RunFolder& folder, size_t finished, Progress& progress) {
  const std::vector<size_t> lengths = text_.lengths();
  const uint64_t tokens = text_.tokens();
  if (finished == 0) write_first_stream(folder);
  for (size_t layer = finished; layer < layers_; ++layer) {
    const uint64_t weights_here = layer_weights(layer);
    LayerWeights weights = rotated_layer(layer);
    LayerStatistics statistics;
    {
      const RunFolder::Stream before = folder.open_stream(layer);
      if (before.values().size() != tokens * shape_.hidden)
        throw FileError(fmt::format("{}: the residual stream before layer {}: expected {} values, found {}",
                                    folder.path(), layer, tokens * shape_.hidden, before.values().size()));
      RunFolder::StreamWriter after = folder.write_stream(layer + 1);
      uint64_t passed = 0;
      statistics = calibrate_layer(
          products_, precision_, shape_, weights, recipe_.needs_moments(), lengths, before.values(),
          [&](std::span<const float> values) { after.append(values); },
          [&](size_t count) {
            // Shares of the layer's weights, so that they add up to all of them; 128 bits are not needed
            // below 2^40 weights and 2^24 tokens.
            progress.add(weights_here * (passed + count) / tokens - weights_here * passed / tokens);
            passed += count;
          });
      after.commit();
    }
    std::vector<std::byte> bytes;
    for (const EncodedTensor& tensor : finish_layer(layer, weights, &statistics, progress)) {
      const auto sums = std::as_bytes(std::span(&tensor.sums, 1));
      bytes.insert(bytes.end(), tensor.bytes.begin(), tensor.bytes.end());
      bytes.insert(bytes.end(), sums.begin(), sums.end());
    }
    folder.store_layer(layer, bytes);
    folder.remove_stream(layer);
  }
}

std::vector<EncodedTensor> Run::stored_layer(const RunFolder& folder, size_t layer) const {
  const std::vector<std::byte> bytes = folder.layer(layer);
  std::vector<EncodedTensor> tensors;
  size_t at = 0;
  for (const PlannedWeight& weight : layer_plan(file_.plan(), layer)) {
    const size_t size = static_cast<size_t>(stored_bytes(weight.scheme, weight.expected.shape).value());
    if (bytes.size() - at < size + sizeof(ErrorSums))
      throw FileError(fmt::format("{}: layer {}: expected more than {} bytes, found no more", folder.path(),
                                  layer, bytes.size()));
    EncodedTensor& tensor = tensors.emplace_back();
    const auto begin = bytes.begin() + static_cast<std::ptrdiff_t>(at);
    tensor.bytes.assign(begin, begin + static_cast<std::ptrdiff_t>(size));
    std::memcpy(&tensor.sums, bytes.data() + at + size, sizeof(ErrorSums));
    at += size + sizeof(ErrorSums);
  }
  return tensors;
}

// Embedding, output norm and head.
EncodedTensor Run::outside_layers(const PlannedWeight& weight, Progress& progress) const {
  EncodedTensor tensor;
  tensor.bytes.resize(static_cast<size_t>(stored_bytes(weight.scheme, weight.expected.shape).value()));
  if (weight.expected.shape.size() == 1) {
    copy_vector(options_, weight, tensor.bytes, progress);
    if (rotation_) {  // folded into the head
      const std::vector<float> ones(static_cast<size_t>(weight.expected.shape[0]), 1.0f);
      std::memcpy(tensor.bytes.data(), ones.data(), tensor.bytes.size());
    }
    return tensor;
  }
  RowChange change;
  std::vector<float> norm(shape_.hidden);
  if (rotation_ && weight.expected.role == Role::output_head) {
    read_finite(options_.source, *planned("output_norm"), 0, norm);
    change = [&](std::span<float> row, std::vector<double>& scratch) {
      rotation_->head_row(norm, row, scratch);
    };
  } else if (rotation_) {
    change = [&](std::span<float> row, std::vector<double>& scratch) {
      rotation_->residual_row(row, scratch);
    };
  }
  tensor.sums = encode_by_rounding(options_, weight, change, tensor.bytes, progress);
  return tensor;
}

std::vector<QuantizeSummary> Run::run() {
  TessWriter writer = file_.writer();  // first, so that a full disk or a bad target is found before the work
  uint64_t total = file_.weights();
  std::optional<RunFolder> folder;
  size_t finished = 0;
  uint64_t done_before = 0;
  if (recipe_.needs_text()) {
    for (size_t layer = 0; layer < layers_; ++layer) total += layer_weights(layer);
    folder.emplace(options_.target, key_of(options_, recipe_, file_, text_));
    finished = folder->finished_layers(layers_, uint64_t{text_.tokens()} * shape_.hidden);
    for (size_t layer = 0; layer < finished; ++layer) done_before += 2 * layer_weights(layer);
  }
  Progress progress(options_.progress, total, done_before);
  if (folder) calibrate_layers(*folder, finished, progress);

  SummaryTable summary;
  const auto write = [&](const PlannedWeight& weight, const EncodedTensor& tensor) {
    writer.write(tensor.bytes);
    summary.add(weight, tensor.bytes.size(), tensor.sums);
  };
  size_t layer = 0;
  for (size_t i = 0; i < file_.plan().size();) {
    const std::span<const PlannedWeight> tensors = layer_plan(file_.plan(), layer);
    if (tensors.empty() || tensors.data() != &file_.plan()[i]) {
      write(file_.plan()[i], outside_layers(file_.plan()[i], progress));
      ++i;
      continue;
    }
    std::vector<EncodedTensor> encoded;
    if (folder) {
      encoded = stored_layer(*folder, layer);
    } else {
      LayerWeights weights = rotated_layer(layer);
      encoded = finish_layer(layer, weights, nullptr, progress);
    }
    for (size_t j = 0; j < tensors.size(); ++j) write(tensors[j], encoded[j]);
    i += tensors.size();
    ++layer;
  }
  file_.write_tokenizer(writer);
  writer.finish();
  if (folder) folder->remove();
  return summary.lines();
}

}  // namespace

std::vector<QuantizeSummary> quantize_with_recipe(const ModelFileOptions& options, const Recipe& recipe,
                                                  DenseProducts& products,
                                                  const std::function<void(const std::string&)>& note) {
  return Run(options, recipe, products, note).run();
}

}  // namespace tessera::quantize
