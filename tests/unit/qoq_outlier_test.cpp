// Outliers planted in a trained model without changing its function: what plain rounding loses by them, and
// that the step of the recipe which is meant for them wins it back.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "engine/dense_products.h"
#include "gguf-like-format/safetensors/safetensors.h"
#include "tests/golden/golden_model.h"

using namespace tessera;
using namespace tessera::golden;
namespace fs = std::filesystem;

namespace {

constexpr float kOutlier = 50.0f;
constexpr size_t kLayers = 6, kHidden = 256, kKvHeads = 2, kQueriesPerKvHead = 2, kHeadDim = 64, kFfn = 768;

struct Tensor {
  std::vector<uint64_t> shape;
  std::vector<float> values;

  void scale_row(size_t row, float factor) {
    const size_t columns = static_cast<size_t>(shape[1]);
    for (size_t i = 0; i < columns; ++i) values[row * columns + i] *= factor;
  }
  void scale_column(size_t column, float factor) {
    const size_t columns = static_cast<size_t>(shape[1]);
    for (size_t i = column; i < values.size(); i += columns) values[i] *= factor;
  }
};

// The embedded model's checkpoint in f32, to be changed and written to a folder of its own.
class Checkpoints {
 public:
  Checkpoints()
      : folder_(fs::temp_directory_path() / ("tessera-outliers-" + std::to_string(std::random_device{}()))) {
    fs::create_directories(folder_);
    const Checkpoint checkpoint = Checkpoint::open(source_);
    for (const CheckpointTensor& tensor : checkpoint.tensors()) {
      Tensor& copy = tensors[tensor.name];
      copy.shape = tensor.shape;
      copy.values.resize(static_cast<size_t>(tensor.elements()));
      read_floats(tensor, 0, copy.values);
    }
  }
  ~Checkpoints() {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }
  Checkpoints(const Checkpoints&) = delete;
  Checkpoints& operator=(const Checkpoints&) = delete;

  std::string file(const std::string& name) const { return (folder_ / name).string(); }

  std::string write(const std::string& name, const std::map<std::string, Tensor>& changed) const {
    const fs::path target = folder_ / name;
    fs::create_directories(target);
    for (const char* each :
         {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"})
      fs::copy_file(fs::path(source_) / each, target / each, fs::copy_options::overwrite_existing);
    nlohmann::json header;
    uint64_t offset = 0;
    for (const auto& [tensor, content] : changed) {
      const uint64_t end = offset + content.values.size() * sizeof(float);
      header[tensor] = {{"dtype", "F32"}, {"shape", content.shape}, {"data_offsets", {offset, end}}};
      offset = end;
    }
    const std::string text = header.dump();
    const uint64_t length = text.size();
    std::ofstream out(target / "model.safetensors", std::ios::binary);
    out.write(reinterpret_cast<const char*>(&length), sizeof(length));
    out << text;
    for (const auto& [tensor, content] : changed)
      out.write(reinterpret_cast<const char*>(content.values.data()),
                static_cast<std::streamsize>(content.values.size() * sizeof(float)));
    return target.string();
  }

  std::map<std::string, Tensor> tensors;

 private:
  std::string source_ = TESSERA_SOURCE_DIR "/models/tessera-tiny";
  fs::path folder_;
};

std::string in_layer(size_t layer, const std::string& part) {
  return "model.layers." + std::to_string(layer) + "." + part + ".weight";
}

size_t any(std::mt19937& generator, size_t count) {
  return std::uniform_int_distribution<size_t>(0, count - 1)(generator);
}

// Eight channels behind every norm.
void plant_in_norms(std::map<std::string, Tensor>& tensors, std::mt19937& generator) {
  for (size_t layer = 0; layer < kLayers; ++layer) {
    for (int i = 0; i < 8; ++i) {
      const size_t channel = any(generator, kHidden);
      tensors[in_layer(layer, "input_layernorm")].values[channel] *= kOutlier;
      for (const char* part : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"})
        tensors[in_layer(layer, part)].scale_column(channel, 1 / kOutlier);
      tensors[in_layer(layer, "post_attention_layernorm")].values[channel] *= kOutlier;
      for (const char* part : {"mlp.gate_proj", "mlp.up_proj"})
        tensors[in_layer(layer, part)].scale_column(channel, 1 / kOutlier);
    }
  }
}

// A pair of channels, so that the change commutes with RoPE, of every key head; the queries make up for it.
void plant_in_keys(std::map<std::string, Tensor>& tensors, std::mt19937& generator) {
  for (size_t layer = 0; layer < kLayers; ++layer) {
    for (size_t head = 0; head < kKvHeads; ++head) {
      const size_t pair = any(generator, kHeadDim / 2);
      for (const size_t channel : {pair, pair + kHeadDim / 2}) {
        tensors[in_layer(layer, "self_attn.k_proj")].scale_row(head * kHeadDim + channel, kOutlier);
        for (size_t query = 0; query < kQueriesPerKvHead; ++query)
          tensors[in_layer(layer, "self_attn.q_proj")].scale_row(
              (head * kQueriesPerKvHead + query) * kHeadDim + channel, 1 / kOutlier);
      }
    }
  }
}

// Eight channels of what down reads.
void plant_in_ffn(std::map<std::string, Tensor>& tensors, std::mt19937& generator) {
  for (size_t layer = 0; layer < kLayers; ++layer) {
    for (int i = 0; i < 8; ++i) {
      const size_t channel = any(generator, kFfn);
      tensors[in_layer(layer, "mlp.up_proj")].scale_row(channel, kOutlier);
      tensors[in_layer(layer, "mlp.down_proj")].scale_column(channel, 1 / kOutlier);
    }
  }
}

std::vector<Ids> validation_dialogues(const Tokenizer& tokenizer) {
  constexpr size_t kDialogues = 6, kTokens = 112;
  std::vector<Ids> dialogues;
  std::ifstream file(TESSERA_SOURCE_DIR "/tests/golden/tessera-tiny/valid_dialogues.txt");
  for (std::string line; std::getline(file, line) && dialogues.size() < kDialogues;) {
    Ids ids = tokenizer.encode(line, true);
    ids.resize(std::min(ids.size(), kTokens));
    dialogues.push_back(std::move(ids));
  }
  return dialogues;
}

Rows predictions(const Model& model, std::span<const Ids> dialogues, unsigned kv_bits) {
  SessionOptions options;
  options.threads = 1;
  options.context = 256;
  options.kv_bits = kv_bits;
  options.max_outputs = 256;
  Session session(model, options);
  const SequenceId sequence = session.create_sequence();
  Rows rows;
  for (const Ids& ids : dialogues) {
    session.truncate(sequence, 0);
    Rows more = run_rows(session, sequence, ids);
    rows.insert(rows.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
  }
  return rows;
}

double log_sum(const std::vector<float>& logits) {
  const double most = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - most);
  return most + std::log(sum);
}

std::vector<double> probabilities(const std::vector<float>& logits) {
  const double total = log_sum(logits);
  std::vector<double> result(logits.size());
  std::transform(logits.begin(), logits.end(), result.begin(),
                 [&](float logit) { return std::exp(static_cast<double>(logit) - total); });
  return result;
}

// Tokens' probabilities, and sum p log p.
struct Distribution {
  std::vector<double> p;
  double self = 0;

  explicit Distribution(const std::vector<float>& logits) : p(probabilities(logits)) {
    const double total = log_sum(logits);
    for (size_t i = 0; i < p.size(); ++i) self += p[i] * (static_cast<double>(logits[i]) - total);
  }
};

// Mean KL divergence of `found` from the first rows of `reference` in nats per token.
double divergence(const std::vector<Distribution>& reference, const Rows& found) {
  REQUIRE(!found.empty());
  REQUIRE(found.size() <= reference.size());
  double total = 0;
  for (size_t row = 0; row < found.size(); ++row) {
    double crossed = 0;
    for (size_t i = 0; i < found[row].size(); ++i)
      crossed += reference[row].p[i] * static_cast<double>(found[row][i]);
    total += reference[row].self - crossed + log_sum(found[row]);
  }
  return total / static_cast<double>(found.size());
}

// What the model itself says, drawn at random: the calibration text.
std::string own_words(const Model& model, std::mt19937& generator) {
  SessionOptions options;
  options.threads = 1;
  options.context = 256;
  Session session(model, options);
  const SequenceId sequence = session.create_sequence();
  std::string text;
  for (int i = 0; i < 8; ++i) {
    session.truncate(sequence, 0);
    Ids ids = {*model.tokenizer().bos(), *model.tokenizer().find("<|user|>")};
    std::vector<float> logits = run_rows(session, sequence, ids, SequenceInput::Want::last).front();
    while (ids.size() < 112) {
      const std::vector<double> p = probabilities(logits);
      ids.push_back(static_cast<uint32_t>(std::discrete_distribution<size_t>(p.begin(), p.end())(generator)));
      logits = run_rows(session, sequence, std::span(ids).last(1), SequenceInput::Want::last).front();
    }
    std::string line = model.tokenizer().decode(ids, true);
    std::replace(line.begin(), line.end(), '\n', ' ');
    text += line + "\n";
  }
  return text;
}

enum class Step { none, rotate, smooth_attention, smooth_outputs };

// The model without outliers and what all trials measure with.
class Ground {
 public:
  static Ground& shared() {
    static Ground ground;
    return ground;
  }

  Model quantized(const std::string& checkpoint, Scheme scheme, Step step) {
    QuantizeOptions options;
    options.source = checkpoint;
    options.target = checkpoints.file("model.tess");
    options.scheme = scheme;
    options.threads = 1;
    options.command = "outlier test";
    if (step != Step::none) {
      options.products = products_.get();
      quantize::Recipe& recipe = options.recipe.emplace();
      recipe.rotate = step == Step::rotate;
      recipe.smooth_attention = step == Step::smooth_attention;
      recipe.smooth_outputs = step == Step::smooth_outputs;
      recipe.reorder = recipe.clip = recipe.feedback = false;
      recipe.calibration = quantize::CalibrationText{words_, true, true};
    }
    quantize_model(options);
    return Model::open(options.target, false);
  }

  double loss(const std::string& checkpoint, Scheme scheme, Step step, unsigned kv_bits, size_t dialogues) {
    const Model model = quantized(checkpoint, scheme, step);
    return divergence(exact_, predictions(model, std::span(dialogues_).first(dialogues), kv_bits));
  }
  double loss(const std::string& checkpoint, Step step, unsigned kv_bits) {
    const double found = loss(checkpoint, Scheme::w4a8_g128, step, kv_bits, dialogues_.size());
    std::cout << (checkpoint == clean_ ? "clean" : "planted") << ", step " << static_cast<int>(step)
              << ", KV " << kv_bits << " bits: KL " << found << '\n';
    return found;
  }
  double clean_loss(unsigned kv_bits) {
    const auto known = clean_losses_.find(kv_bits);
    if (known != clean_losses_.end()) return known->second;
    return clean_losses_[kv_bits] = loss(clean_, Step::none, kv_bits);
  }

  Checkpoints checkpoints;
  std::mt19937 generator;

 private:
  Ground() : generator(seed()), clean_(checkpoints.write("clean", checkpoints.tensors)) {
    const Model reference = quantized(clean_, Scheme::f32, Step::none);
    dialogues_ = validation_dialogues(reference.tokenizer());
    for (const std::vector<float>& logits : predictions(reference, dialogues_, 16))
      exact_.emplace_back(logits);
    words_ = own_words(quantized(clean_, Scheme::w8a8, Step::none), generator);
  }
  static unsigned seed() {
    const unsigned seed = std::random_device{}();
    std::cout << "seed " << seed << '\n';
    return seed;
  }

  std::unique_ptr<DenseProducts> products_ = make_dense_products(1);
  std::string clean_, words_;
  std::vector<Ids> dialogues_;
  std::vector<Distribution> exact_;
  std::map<unsigned, double> clean_losses_;
};

// What planted outliers cost in nats per token.
class Trial {
 public:
  explicit Trial(void (*plant)(std::map<std::string, Tensor>&, std::mt19937&)) {
    std::map<std::string, Tensor> planted = ground_.checkpoints.tensors;
    plant(planted, ground_.generator);
    planted_ = ground_.checkpoints.write("planted", planted);
    // Planted without changing the function.
    CHECK(ground_.loss(planted_, Scheme::f32, Step::none, 16, 2) < 1e-4);
  }
  double clean_loss(unsigned kv_bits) { return ground_.clean_loss(kv_bits); }
  double planted_loss(Step step, unsigned kv_bits) { return ground_.loss(planted_, step, kv_bits); }

 private:
  Ground& ground_ = Ground::shared();
  std::string planted_;
};

}  // namespace

TEST_CASE("rotation wins back what outlier channels behind the norms cost") {
  Trial trial(plant_in_norms);
  const double clean = trial.clean_loss(16);
  const double rounded = trial.planted_loss(Step::none, 16);
  CHECK(rounded > 5 * clean);
  CHECK(trial.planted_loss(Step::smooth_outputs, 16) > 3 * clean);  // no other step does it
  CHECK(trial.planted_loss(Step::rotate, 16) < 1.3 * clean);
}

TEST_CASE("SmoothAttention wins back what outlier channels of the keys cost a 4-bit cache") {
  Trial trial(plant_in_keys);
  const double clean = trial.clean_loss(4);
  const double rounded = trial.planted_loss(Step::none, 4);
  CHECK(rounded > 5 * clean);
  CHECK(trial.planted_loss(Step::rotate, 4) > 4 * clean);  // no other step does it
  CHECK(trial.planted_loss(Step::smooth_attention, 4) < 1.3 * clean);
}

TEST_CASE("smoothing wins back what outlier channels within the feed-forward part cost") {
  Trial trial(plant_in_ffn);
  const double clean = trial.clean_loss(16);
  const double rounded = trial.planted_loss(Step::none, 16);
  CHECK(rounded > 1.8 * clean);
  CHECK(trial.planted_loss(Step::rotate, 16) > 1.8 * clean);
  CHECK(trial.planted_loss(Step::smooth_outputs, 16) < 1.5 * clean);
}
