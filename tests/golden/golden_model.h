// Checkpoints with golden data for the model tests: where they are, what is expected of them, and the ways to
// run one: every backend and instruction set of this machine.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "backends/cpu/cpu_features.h"
#include "engine/model.h"
#include "engine/quantize/quantize_model.h"
#include "engine/session.h"

namespace tessera::golden {

using Ids = std::vector<uint32_t>;
using Rows = std::vector<std::vector<float>>;  // logits, one vector per row

struct ExpectedRow {
  size_t row;                  // index into Case::sequence; these logits choose token row + 1
  std::vector<double> logits;  // float64 arithmetic
  std::vector<double> kv16;    // the same with keys and values rounded to f16
};

struct Case {
  std::string prompt;
  Ids prompt_ids;
  Ids sequence;            // the prompt and its greedy continuation
  std::string reply_text;  // text of the sequence or of its continuation; empty when not given
  std::vector<ExpectedRow> rows;
};

struct GoldenModel {
  std::string name;
  std::filesystem::path folder;
  std::string stored_scheme;  // a scheme that holds this checkpoint's weights exactly
  std::vector<Case> cases;
  std::vector<std::pair<std::string, Ids>> tokenizer_cases;
  // Whether it is run in every way: cut, batched and truncated, at each KV precision. One model for each kind
  // of op is enough for that.
  bool ways_matter = false;
};

inline GoldenModel in_every_way(GoldenModel model) {
  model.ways_matter = true;
  return model;
}

inline std::vector<double> numbers(const nlohmann::json& list) { return list.get<std::vector<double>>(); }

inline GoldenModel read_golden(const std::filesystem::path& folder, const std::string& stored_scheme) {
  GoldenModel model{folder.filename().string(), folder, stored_scheme, {}, {}, false};
  const nlohmann::json golden = nlohmann::json::parse(std::ifstream(folder / "golden.json"));
  const nlohmann::json list =
      golden.contains("generation") ? golden["generation"] : nlohmann::json::array({golden});
  for (const auto& entry : list) {
    Case c;
    c.prompt = entry["prompt"];
    c.prompt_ids = entry["prompt_ids"].get<Ids>();
    c.sequence = entry["greedy_ids"].get<Ids>();
    c.reply_text = entry.value("greedy_text", "");
    for (const auto& row : entry.value("rows", nlohmann::json::array()))
      c.rows.push_back({row["row"], numbers(row["logits"]), numbers(row["logits_kv16"])});
    if (entry.contains("last_prompt_logits"))
      c.rows.push_back({c.prompt_ids.size() - 1, numbers(entry["last_prompt_logits"]), {}});
    if (entry.contains("last_logits"))
      c.rows.push_back({c.sequence.size() - 1, numbers(entry["last_logits"]), {}});
    model.cases.push_back(std::move(c));
  }
  for (const auto& entry : golden.value("tokenizer", nlohmann::json::array()))
    model.tokenizer_cases.emplace_back(entry["text"], entry["ids"].get<Ids>());
  return model;
}

inline void add_kv16_rows(GoldenModel& model) {
  const nlohmann::json all =
      nlohmann::json::parse(std::ifstream(TESSERA_SOURCE_DIR "/tests/golden/kv16_logits.json"));
  for (const auto& entry : all.at(model.name)) {
    const Ids ids = entry["ids"].get<Ids>();
    for (Case& c : model.cases)
      for (ExpectedRow& row : c.rows)
        if (row.row + 1 == ids.size() && std::equal(ids.begin(), ids.end(), c.sequence.begin()))
          row.kv16 = numbers(entry["last_logits"]);
  }
}

// The random models of this tree: small, every feature of the families.
inline std::vector<GoldenModel> random_models() {
  const std::filesystem::path folder = TESSERA_SOURCE_DIR "/tests/golden/models";
  return {read_golden(folder / "llama3-scaled-bf16", "bf16"),
          in_every_way(read_golden(folder / "qwen2-biased-f16", "f16")),
          read_golden(folder / "llama-linear-f32", "f32"),
          read_golden(folder / "mistral-bf16", "bf16"),
          read_golden(folder / "granite-multipliers-bf16", "bf16"),
          read_golden(folder / "qwen3-norms-bf16", "bf16"),
          read_golden(folder / "llama-yarn-f32", "f32"),
          in_every_way(read_golden(folder / "qwen3-heads12-f32", "f32")),
          read_golden(folder / "mistral-window-bf16", "bf16"),
          read_golden(folder / "gemma-bf16", "bf16"),
          read_golden(folder / "gemma2-caps-bf16", "bf16"),
          in_every_way(read_golden(folder / "gemma3-windows-bf16", "bf16")),
          in_every_way(read_golden(folder / "gpt2-bf16", "bf16")),
          read_golden(folder / "opt-f16", "f16"),
          read_golden(folder / "opt-post-norm-bf16", "bf16"),
          in_every_way(read_golden(folder / "baichuan-alibi-f16", "f16")),
          read_golden(folder / "qwen-logn-bf16", "bf16")};
}

// Those that are run in every way.
inline std::vector<GoldenModel> models_for_every_way() {
  std::vector<GoldenModel> models = random_models();
  std::erase_if(models, [](const GoldenModel& model) { return !model.ways_matter; });
  return models;
}

// Trained models: the one this tree embeds, and one of the shared folder when it is there.
inline std::vector<GoldenModel> trained_models() {
  const std::filesystem::path tree = TESSERA_SOURCE_DIR;
  std::vector<GoldenModel> models = {read_golden(tree / "tests/golden/tessera-tiny", "bf16")};
  models.back().folder = tree / "models/tessera-tiny";
  const std::filesystem::path stories = std::filesystem::path(TESSERA_SHARED_DIR) / "models/stories260k";
  if (std::filesystem::exists(stories / "golden.json"))
    models.push_back(read_golden(stories, "f32"));
  else
    std::cout << "skipped: no " << stories.string() << '\n';
  for (GoldenModel& model : models) add_kv16_rows(model);
  return models;
}

// A checkpoint quantized to a temporary file and opened; the file goes with the object.
class QuantizedModel {
 public:
  QuantizedModel(const GoldenModel& source, const std::string& scheme, bool keep_head)
      : path_(std::filesystem::temp_directory_path() /
              ("tessera-golden-" + std::to_string(getpid()) + "-" + source.name + "-" + scheme + ".tess")) {
    QuantizeOptions options;
    options.source = source.folder.string();
    options.target = path_.string();
    options.scheme = parse_scheme(scheme).value();
    options.keep_head = keep_head;
    options.kv_bits = 16;
    options.threads = 1;
    options.command = "model golden test";
    quantize_model(options);
    model_ = std::make_unique<Model>(Model::open(path_.string(), true));
  }
  ~QuantizedModel() {
    model_.reset();
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }
  QuantizedModel(const QuantizedModel&) = delete;
  QuantizedModel& operator=(const QuantizedModel&) = delete;
  const Model& model() const { return *model_; }

 private:
  std::filesystem::path path_;
  std::unique_ptr<Model> model_;
};

struct Runner {
  std::string backend;
  std::string isa;
  std::string name() const { return backend == "cpu" ? "cpu " + isa : backend; }
};

inline std::vector<Runner> cpu_runners() {
  const cpu::Features features = cpu::detect_features();
  std::vector<Runner> runners = {{"cpu", "portable"}};
  if (features.avx2) runners.push_back({"cpu", "avx2"});
  if (features.avx512) runners.push_back({"cpu", "avx512"});
  return runners;
}

inline std::vector<Runner> all_runners() {
  std::vector<Runner> runners = cpu_runners();
  runners.insert(runners.begin(), Runner{"reference", "auto"});
  return runners;
}

inline SessionOptions options_for(const Runner& runner, unsigned kv_bits = 16) {
  SessionOptions options;
  options.backend = runner.backend;
  options.isa = runner.isa;
  options.threads = 2;
  options.context = 1024;
  options.kv_bits = kv_bits;
  options.max_outputs = 256;
  return options;
}

// Runs tokens of one sequence and copies the wanted logits rows.
inline Rows run_rows(Session& session, SequenceId sequence, std::span<const uint32_t> tokens,
                     LogitRows wanted = LogitRows::all) {
  const SequenceInput input{sequence, tokens, wanted};
  const std::span<float> logits = session.run({&input, 1});
  const size_t count = wanted == LogitRows::all ? tokens.size() : 1;
  const size_t width = logits.size() / count;
  Rows rows;
  for (size_t i = 0; i < count; ++i)
    rows.emplace_back(logits.begin() + static_cast<std::ptrdiff_t>(i * width),
                      logits.begin() + static_cast<std::ptrdiff_t>((i + 1) * width));
  return rows;
}

template <class Left, class Right>
double largest_difference(const Left& left, const Right& right) {
  if (left.size() != right.size()) return INFINITY;
  double worst = 0;
  for (size_t i = 0; i < left.size(); ++i) {
    const double difference = std::abs(static_cast<double>(left[i]) - static_cast<double>(right[i]));
    worst = std::isnan(difference) ? INFINITY : std::max(worst, difference);
  }
  return worst;
}

inline double largest_difference(const Rows& left, const Rows& right) {
  if (left.size() != right.size()) return INFINITY;
  double worst = 0;
  for (size_t i = 0; i < left.size(); ++i) worst = std::max(worst, largest_difference(left[i], right[i]));
  return worst;
}

template <class Row>
double largest_magnitude(const Row& row) {
  double worst = 0;
  for (const auto value : row) worst = std::max(worst, std::abs(static_cast<double>(value)));
  return worst;
}

inline uint32_t best_token(const std::vector<float>& row) {
  return static_cast<uint32_t>(std::max_element(row.begin(), row.end()) - row.begin());
}

// Distance between the best two logits: how clear the choice of the best is.
inline double top_gap(std::vector<float> row) {
  std::nth_element(row.begin(), row.begin() + 1, row.end(), std::greater<>());
  return static_cast<double>(row[0]) - static_cast<double>(row[1]);
}

// sqrt(mean (left - right)^2) over sqrt(mean right^2), each row after subtracting its mean, since a constant
// added to all logits of a row means nothing.
inline double relative_error(const Rows& left, const Rows& right) {
  double error = 0, power = 0;
  for (size_t r = 0; r < right.size(); ++r) {
    double left_mean = 0, right_mean = 0;
    for (size_t i = 0; i < right[r].size(); ++i) {
      left_mean += static_cast<double>(left[r][i]) / static_cast<double>(right[r].size());
      right_mean += static_cast<double>(right[r][i]) / static_cast<double>(right[r].size());
    }
    for (size_t i = 0; i < right[r].size(); ++i) {
      const double centred = static_cast<double>(right[r][i]) - right_mean;
      const double difference = static_cast<double>(left[r][i]) - left_mean - centred;
      error += difference * difference;
      power += centred * centred;
    }
  }
  return std::sqrt(error / power);
}

inline Ids random_ids(std::mt19937& generator, size_t count, uint64_t vocabulary) {
  std::uniform_int_distribution<uint32_t> any(0, static_cast<uint32_t>(vocabulary - 1));
  Ids ids(count);
  for (uint32_t& id : ids) id = any(generator);
  return ids;
}

}  // namespace tessera::golden
