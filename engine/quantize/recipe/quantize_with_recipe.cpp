#include "engine/quantize/recipe/quantize_with_recipe.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <unordered_map>

#include "engine/quantize/calibration/calibrate_layer.h"
#include "engine/quantize/calibration/calibration_windows.h"
#include "engine/quantize/calibration/float_ops.h"
#include "engine/quantize/calibration/layer_graph.h"
#include "engine/quantize/plan/checkpoint_values.h"
#include "engine/quantize/plan/model_file.h"
#include "engine/quantize/qoq/rotate_layer.h"
#include "engine/quantize/recipe/known_roles.h"
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

Graph float_graph(const Hyperparameters& hyperparameters) {
  return build_graph(hyperparameters, [](const ExpectedTensor&) { return Scheme::f32; });
}

// By WeightId. The graph is that of the plan.
std::vector<Role> roles_of(const Graph& graph, const std::vector<PlannedWeight>& plan) {
  std::unordered_map<std::string_view, Role> by_name;
  for (const PlannedWeight& weight : plan) by_name.emplace(weight.expected.name, weight.expected.role);
  std::vector<Role> roles;
  for (const Weight& weight : graph.weights) roles.push_back(by_name.at(weight.name));
  return roles;
}

// Columns of the residual stream. Throws std::runtime_error when ops before the first layer are not those
// that write_first_stream knows.
size_t hidden_columns(const Graph& graph, std::span<const LayerGraph> layers) {
  const size_t first = layers.empty() ? 1 : layers.front().before.op;
  for (size_t op = 0; op < first; ++op) {
    const OpKind& kind = graph.ops[op].kind;
    const bool known =
        op == 0 ? std::holds_alternative<Embed>(kind)
                : std::holds_alternative<Linear>(kind) || std::holds_alternative<AddPosition>(kind);
    if (!known)
      throw std::runtime_error(fmt::format("op \"{}\": expected embeddings before the first layer, found {}",
                                           graph.ops[op].name, op_name(kind)));
  }
  return graph.tensors[graph.ops.at(first - 1).outputs.at(0)].columns;
}

class Run {
 public:
  Run(const ModelFileOptions& options, const Recipe& recipe, DenseProducts& products,
      const std::function<void(const std::string&)>& note)
      : options_(options),
        recipe_(recipe),
        products_(products),
        file_(options),
        graph_(float_graph(file_.hyperparameters())),
        precision_(file_.plan().front().source->precision == Scheme::bf16 ? DenseProduct::Precision::bf16
                                                                          : DenseProduct::Precision::f32),
        context_{products_, precision_, note} {
    if (recipe_.rotate || recipe_.needs_text()) refuse_unknown_roles(options.source, file_.plan());
    layers_ = find_layers(graph_, roles_of(graph_, file_.plan()));
    hidden_ = hidden_columns(graph_, layers_);
    prepare_rotation();
    assign_weights();
    if (!recipe_.needs_text()) return;
    say_what_is_left_out();
    if (!recipe_.calibration) throw std::runtime_error("calibration text: the recipe needs one, found none");
    const CalibrationText& text = *recipe_.calibration;
    text_ =
        cut_calibration_text(text, file_.tokenizer(), static_cast<size_t>(file_.hyperparameters().context));
    file_.set_calibration_hash(hash_text(XXH64(text.text.data(), text.text.size(), 0)));
  }

  std::vector<QuantizeSummary> run();

 private:
  // Steps that the graph has no place for, which nothing else tells of.
  void say_what_is_left_out() const {
    const bool none = std::none_of(layers_.begin(), layers_.end(),
                                   [](const LayerGraph& layer) { return layer.attention.has_value(); });
    if (recipe_.smooth_attention && none && options_.import_note)
      options_.import_note(fmt::format(
          "{}: SmoothAttention is left out: something lies between q and k and their rotary positions, "
          "such as norms of heads",
          options_.source));
  }
  void prepare_rotation();
  void assign_weights();
  const PlannedWeight& planned(Role role) const;
  void calibrate_layers(RunFolder& folder, size_t finished, Progress& progress);
  FloatMatrix embedded(std::span<const uint32_t> window) const;
  void write_first_stream(RunFolder& folder) const;
  std::vector<EncodedTensor> finish_layer(size_t layer, FloatLayer& weights, LayerStatistics* statistics,
                                          Progress& progress) const;
  FloatLayer rotated_layer(size_t layer) const;
  std::vector<EncodedTensor> stored_layer(const RunFolder& folder, size_t layer) const;
  EncodedTensor outside_layers(const PlannedWeight& weight, Progress& progress) const;
  uint64_t layer_weights(size_t layer) const;

  const ModelFileOptions& options_;
  Recipe recipe_;  // without rotation where the model cannot be rotated
  DenseProducts& products_;
  ModelFile file_;
  Graph graph_;  // in f32
  std::vector<LayerGraph> layers_;
  std::vector<std::vector<const PlannedWeight*>> planned_;  // of every layer, in the order of its weights
  std::vector<std::optional<size_t>> layer_of_;  // of every tensor in the plan; nothing outside of layers
  size_t hidden_ = 0;                            // columns of the residual stream
  DenseProduct::Precision precision_;
  LayerContext context_;
  std::optional<ModelRotation> rotation_;
  CalibrationWindows text_;
};

// Rotates the model where its layers allow it. An obstacle is no error: the other steps do not need rotation.
void Run::prepare_rotation() {
  if (!recipe_.rotate) return;
  const std::string obstacle = rotation_obstacle(layers_);
  if (obstacle.empty()) {
    // A table that is the head too stays one where its gain can be applied between rotations.
    const size_t order = Rotation::order_for(hidden_);
    if (file_.hyperparameters().tied_head && order != 0 && order <= RotatedGain::kMostOrder)
      file_.rotate_table();
    rotation_.emplace(hidden_, layers_);
    return;
  }
  recipe_.rotate = false;
  context_.say(fmt::format("rotation left out, because {}", obstacle));
}

// Finds the plan's tensor for every weight of every layer.
void Run::assign_weights() {
  std::unordered_map<std::string_view, size_t> places;
  for (size_t i = 0; i < file_.plan().size(); ++i) places.emplace(file_.plan()[i].expected.name, i);
  layer_of_.resize(file_.plan().size());
  for (size_t layer = 0; layer < layers_.size(); ++layer) {
    std::vector<const PlannedWeight*>& planned = planned_.emplace_back();
    for (const WeightId id : layers_[layer].weights) {
      const size_t place = places.at(graph_.weights[id].name);
      planned.push_back(&file_.plan()[place]);
      layer_of_[place] = layer;
    }
  }
  for (size_t i = 0; i < file_.plan().size(); ++i) {
    const ExpectedTensor& expected = file_.plan()[i].expected;
    // Where norms follow, that of the last layer lies behind all layers.
    if (role_row(expected.role).in_layer && expected.shape.size() == 2 && !layer_of_[i])
      throw FileError(fmt::format("{}: tensor \"{}\": expected to be read by an op of a layer, found none",
                                  options_.source, expected.source.name));
  }
}

const PlannedWeight& Run::planned(Role role) const {
  return *std::find_if(file_.plan().begin(), file_.plan().end(),
                       [&](const PlannedWeight& weight) { return weight.expected.role == role; });
}

uint64_t Run::layer_weights(size_t layer) const {
  uint64_t weights = 0;
  for (const PlannedWeight* weight : planned_[layer]) weights += weight->elements();
  return weights;
}

FloatLayer Run::rotated_layer(size_t layer) const {
  FloatLayer weights = load_layer(products_, options_.source, layers_[layer], planned_[layer]);
  if (rotation_) rotation_->rotate_layer(products_, weights);
  return weights;
}

// What the first layer reads of a text, before any rotation.
FloatMatrix Run::embedded(std::span<const uint32_t> window) const {
  const PlannedWeight& embedding = planned(Role::token_embedding);
  FloatMatrix block(window.size(), embedding.expected.shape[1]);
  for (size_t i = 0; i < window.size(); ++i)
    read_finite(options_.source, embedding, uint64_t{window[i]} * block.columns, block.row(i));
  const auto& embed = std::get<Embed>(graph_.ops.front().kind);
  if (embed.multiplier != 1.0f)
    for (float& value : block.values) value *= embed.multiplier;
  const size_t end = layers_.empty() ? 1 : layers_.front().before.op;
  for (size_t op = 1; op < end; ++op) {
    if (std::holds_alternative<Linear>(graph_.ops[op].kind)) {
      const PlannedWeight& projection = planned(Role::embedding_projection);
      FloatMatrix matrix(hidden_, block.columns);
      read_finite(options_.source, projection, 0, matrix.values);
      block = project(products_, precision_, block, matrix, {});
      continue;
    }
    FloatMatrix positions(block.rows, block.columns);
    read_finite(options_.source, planned(Role::position_embedding), 0, positions.values);
    add_rows(products_, block, positions, 1.0f);
  }
  return block;
}

// The embedded text, rotated where the model is.
void Run::write_first_stream(RunFolder& folder) const {
  RunFolder::StreamWriter writer = folder.write_stream(0);
  FloatMatrix block;
  std::vector<std::vector<double>> scratch(products_.threads());
  for (const std::vector<uint32_t>& window : text_.windows) {
    block = embedded(window);
    if (rotation_)
      for_row_blocks(products_, block.rows, 16, [&](size_t first, size_t count, size_t thread) {
        for (size_t row = first; row < first + count; ++row)
          rotation_->rotate_residual(block.row(row), scratch[thread]);
      });
    writer.append(block.values);
  }
  writer.commit();
}

std::vector<EncodedTensor> Run::finish_layer(size_t layer, FloatLayer& weights, LayerStatistics* statistics,
                                             Progress& progress) const {
  LayerContext context = context_;
  if (context_.note) {
    context.note = [&](const std::string& line) { context_.note(fmt::format("layer {}: {}", layer, line)); };
  }
  if (statistics != nullptr) smooth_layer(context, recipe_, options_.scheme, weights, *statistics);
  return encode_layer(context, recipe_, options_.scheme, options_.source, planned_[layer], weights,
                      statistics, [&](uint64_t done) { progress.add(done); });
}

void Run::calibrate_layers(RunFolder& folder, size_t finished, Progress& progress) {
  const std::vector<size_t> lengths = text_.lengths();
  const uint64_t tokens = text_.tokens();
  if (finished == 0) write_first_stream(folder);
  for (size_t layer = finished; layer < layers_.size(); ++layer) {
    const uint64_t weights_here = layer_weights(layer);
    FloatLayer weights = rotated_layer(layer);
    LayerStatistics statistics;
    {
      const RunFolder::Stream before = folder.open_stream(layer);
      if (before.values().size() != tokens * hidden_)
        throw FileError(fmt::format("{}: the residual stream before layer {}: expected {} values, found {}",
                                    folder.path(), layer, tokens * hidden_, before.values().size()));
      RunFolder::StreamWriter after = folder.write_stream(layer + 1);
      uint64_t passed = 0;
      statistics = calibrate_layer(
          products_, precision_, weights, recipe_.needs_moments(), lengths, before.values(),
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
  for (const PlannedWeight* weight : planned_[layer]) {
    const size_t size = static_cast<size_t>(stored_bytes(weight->scheme, weight->expected.shape).value());
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
    if (rotation_ && weight.expected.role != Role::output_gain) {  // a gain or the head has its values
      const std::vector<float> ones(static_cast<size_t>(weight.expected.shape[0]), 1.0f);
      std::memcpy(tensor.bytes.data(), ones.data(), tensor.bytes.size());
    }
    return tensor;
  }
  RowChange change;
  std::vector<float> norm(hidden_);
  if (rotation_ && weight.expected.role == Role::output_head) {
    read_finite(options_.source, planned(Role::output_norm), 0, norm);
    change = [&](std::span<float> row, std::vector<double>& scratch) {
      rotation_->rotate_head(norm, row, scratch);
    };
  } else if (rotation_) {
    change = [&](std::span<float> row, std::vector<double>& scratch) {
      rotation_->rotate_residual(row, scratch);
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
    for (size_t layer = 0; layer < layers_.size(); ++layer) total += layer_weights(layer);
    folder.emplace(options_.target, key_of(options_, recipe_, file_, text_));
    finished = folder->finished_layers(layers_.size(), uint64_t{text_.tokens()} * hidden_);
    for (size_t layer = 0; layer < finished; ++layer) done_before += 2 * layer_weights(layer);
  }
  Progress progress(options_.progress, total, done_before);
  if (folder) calibrate_layers(*folder, finished, progress);

  SummaryTable summary;
  const auto write = [&](const PlannedWeight& weight, const EncodedTensor& tensor) {
    writer.write(tensor.bytes);
    summary.add(weight, tensor.bytes.size(), tensor.sums);
  };
  std::optional<size_t> at_hand;  // the layer whose tensors these are
  std::vector<EncodedTensor> encoded;
  for (size_t i = 0; i < file_.plan().size(); ++i) {
    const PlannedWeight& weight = file_.plan()[i];
    const std::optional<size_t> layer = layer_of_[i];
    if (!layer) {
      write(weight, outside_layers(weight, progress));
      continue;
    }
    if (at_hand != layer) {
      at_hand = layer;
      if (folder) {
        encoded = stored_layer(*folder, *layer);
      } else {
        FloatLayer weights = rotated_layer(*layer);
        encoded = finish_layer(*layer, weights, nullptr, progress);
      }
    }
    const std::vector<const PlannedWeight*>& tensors = planned_[*layer];
    const auto place = std::find(tensors.begin(), tensors.end(), &weight) - tensors.begin();
    write(weight, encoded[static_cast<size_t>(place)]);
  }
  file_.write_rest(writer);
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
