// The recipe's function-preserving steps on whole models: a transformed f32 file must give the logits of the
// plain one, on every backend. And that an interrupted run ends in the same bytes.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "engine/codec/matrix_codec.h"
#include "engine/dense_products.h"
#include "engine/quantize/calibration/float_layer.h"
#include "engine/quantize/calibration/float_ops.h"
#include "engine/quantize/calibration/run_ops.h"
#include "golden_model.h"
#include "graph/rotation.h"
#include "tests/unit/qoq_layers.h"

using namespace tessera;
using namespace tessera::golden;
namespace fs = std::filesystem;

namespace {

// A folder of its own for each test, removed at the end.
class Folder {
 public:
  Folder() : path_(fs::temp_directory_path() / ("tessera-qoq-" + std::to_string(std::random_device{}()))) {
    fs::create_directories(path_);
  }
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string file(const std::string& name) const { return (path_ / name).string(); }
  std::vector<std::string> entries() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(path_)) names.push_back(entry.path().filename().string());
    return names;
  }

 private:
  fs::path path_;
};

std::string bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// Words enough for a few windows of any of the models.
std::string calibration_text() {
  std::string text;
  for (int i = 0; i < 40; ++i)
    text += "Once upon a time, in town number " + std::to_string(i) +
            ", a little girl wanted to book a table for two. She asked her friend: \"Where is the best "
            "place?\"\n";
  return text;
}

quantize::Recipe all_steps() {
  quantize::Recipe recipe;
  recipe.calibration.emplace();
  recipe.calibration->text = calibration_text();
  recipe.calibration->window = 48;
  recipe.calibration->windows = 6;
  return recipe;
}

quantize::Recipe no_steps() {
  quantize::Recipe recipe = all_steps();
  recipe.rotate = recipe.reorder = recipe.smooth_attention = recipe.smooth_outputs = false;
  recipe.clip = recipe.feedback = false;
  return recipe;
}

QuantizeOptions options_of(const GoldenModel& model, const std::string& target, Scheme scheme,
                           DenseProducts& products) {
  QuantizeOptions options;
  options.source = model.folder.string();
  options.target = target;
  options.scheme = scheme;
  options.kv_bits = 16;
  options.threads = 2;
  options.command = "recipe test";
  options.products = &products;
  return options;
}

Rows logits_of(const std::string& path, const Runner& runner, const Ids& ids) {
  const Model model = Model::open(path, true);
  SessionOptions options = options_for(runner);
  options.context = 64;
  Session session(model, options);
  return run_rows(session, session.create_sequence(), ids);
}

// The logits of a file of float matrices by the calibrator's own layers, which round nothing: a Session keeps
// keys and values in 16 bits at best.
Rows float_logits(const std::string& path, const Ids& ids, DenseProducts& products) {
  const Model model = Model::open(path, true);
  const TessFile& file = model.file();
  const auto matrix = [&](const std::string& name) {
    const StoredTensor& stored = file.require(name);
    quantize::FloatMatrix out(stored.rows(), stored.columns());
    std::vector<double> row(out.columns);
    for (size_t i = 0; i < out.rows; ++i) {
      decode_row(stored.scheme, out.rows, out.columns, stored.bytes, i, row);
      std::copy(row.begin(), row.end(), out.row(i).begin());
    }
    return out;
  };
  const auto vector = [&](const std::string& name) {
    const StoredTensor* stored = file.find(name);
    std::vector<float> out(stored != nullptr ? stored->columns() : 0);
    if (stored != nullptr) std::memcpy(out.data(), stored->bytes.data(), stored->bytes.size());
    return out;
  };
  const qoq_test::Decoder decoder(model.hyperparameters());
  const quantize::FloatMatrix embedding = matrix("token_embedding");
  quantize::FloatMatrix stream(ids.size(), embedding.columns);
  for (size_t i = 0; i < ids.size(); ++i)
    std::copy_n(embedding.row(ids[i]).begin(), embedding.columns, stream.row(i).begin());
  for (float& value : stream.values) value *= std::get<Embed>(decoder.graph.ops.front().kind).multiplier;
  const auto projected = [&](const char* name) {
    if (file.find(name) != nullptr)
      stream = quantize::project(products, DenseProduct::Precision::f32, stream, matrix(name), {});
  };
  projected("embedding_projection");
  if (file.find("position_embedding") != nullptr) {
    const quantize::FloatMatrix positions = matrix("position_embedding");
    for (size_t i = 0; i < stream.values.size(); ++i) stream.values[i] += positions.values[i];
  }
  const std::vector<size_t> windows = {ids.size()};
  for (const quantize::LayerGraph& layer : decoder.layers) {
    quantize::FloatLayer weights(layer);
    for (const WeightId id : layer.weights) {
      const std::string& name = decoder.graph.weights[id].name;
      if (file.require(name).shape.size() == 1)
        weights.matrix(id).values = vector(name);
      else
        weights.matrix(id) = matrix(name);
    }
    quantize::run_layer(products, DenseProduct::Precision::f32, weights, windows, stream);
  }
  const float epsilon = static_cast<float>(model.hyperparameters().norm_epsilon);
  if (model.hyperparameters().norms_follow) {
    // The last norm is what the last layer ends in, behind its sum.
    const std::string last = "layers." + std::to_string(model.hyperparameters().layers - 1) + ".ffn_norm";
    stream = quantize::normalized(products, stream, vector(last), vector(last + "_bias"), epsilon);
  } else
    stream =
        quantize::normalized(products, stream, vector("output_norm"), vector("output_norm_bias"), epsilon);
  projected("head_projection");
  if (model.hyperparameters().rotated_table) {
    const Rotation rotation(stream.columns);
    const std::vector<float> gain = vector("output_gain");
    for (size_t i = 0; i < stream.rows; ++i) {
      std::vector<double> row(stream.row(i).begin(), stream.row(i).end());
      rotation.undo(row);
      for (size_t j = 0; j < row.size(); ++j) row[j] *= static_cast<double>(gain[j]);
      rotation.apply(row);
      std::transform(row.begin(), row.end(), stream.row(i).begin(),
                     [](double value) { return static_cast<float>(value); });
    }
  }
  const bool tied = model.hyperparameters().tied_head;
  const quantize::FloatMatrix logits = quantize::project(products, DenseProduct::Precision::f32, stream,
                                                         tied ? embedding : matrix("output_head"), {});
  Rows rows;
  const auto cap = static_cast<float>(model.hyperparameters().logits_soft_cap);
  for (size_t i = 0; i < logits.rows; ++i) rows.emplace_back(logits.row(i).begin(), logits.row(i).end());
  if (cap > 0)
    for (std::vector<float>& row : rows)
      for (float& logit : row) logit = cap * std::tanh(logit / cap);
  return rows;
}

struct Step {
  const char* name;
  bool quantize::Recipe::*on;
};
constexpr std::array kSteps = {Step{"rotate", &quantize::Recipe::rotate},
                               Step{"reorder", &quantize::Recipe::reorder},
                               Step{"smooth attention", &quantize::Recipe::smooth_attention},
                               Step{"smooth outputs", &quantize::Recipe::smooth_outputs}};

}  // namespace

TEST_CASE("every step alone and all together leave a model's logits where they were") {
  const auto seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 generator(seed);
  const auto products = make_dense_products(2);
  std::vector<GoldenModel> models = random_models();
  for (GoldenModel& model : trained_models()) models.push_back(std::move(model));
  const std::vector<Runner> runners = {{"reference", "auto"}, {"cpu", "auto"}};
  for (const GoldenModel& model : models) {
    CAPTURE(model.name);
    const Folder folder;
    QuantizeOptions options = options_of(model, folder.file("plain.tess"), Scheme::f32, *products);
    quantize_model(options);
    const uint64_t vocabulary = Model::open(options.target, true).hyperparameters().vocabulary;
    const Ids ids = random_ids(generator, 40, vocabulary);
    const Rows exact = float_logits(options.target, ids, *products);
    std::vector<Rows> plain;
    std::vector<double> cache_noise;  // of the keys and values in 16 bits, rounded otherwise after a change
    for (const Runner& runner : runners) {
      plain.push_back(logits_of(options.target, runner, ids));
      cache_noise.push_back(relative_error(plain.back(), exact));
      CHECK(cache_noise.back() < 5e-3);
    }

    std::vector<std::pair<std::string, quantize::Recipe>> recipes;
    for (const Step& step : kSteps) {
      recipes.emplace_back(step.name, no_steps());
      recipes.back().second.*step.on = true;
    }
    recipes.emplace_back("all", all_steps());
    recipes.emplace_back("fixed exponents", all_steps());
    recipes.back().second.attention_alpha = 1.0;
    recipes.back().second.output_alpha = 0.9;
    const std::string before = bytes_of(options.target);
    // Where norms stand behind the matrices that write the residual stream it cannot be rotated.
    const Hyperparameters hyperparameters = Model::open(options.target, true).hyperparameters();
    const bool rotates = qoq_test::Decoder(hyperparameters).layers.front().rotation_obstacle.empty();
    for (const auto& [named, recipe] : recipes) {
      const auto& name = named;  // Clang 14 does not let a lambda, which CAPTURE is, use a structured binding
      CAPTURE(name);
      options.target = folder.file("changed.tess");
      options.recipe = recipe;
      quantize_model(options);
      const std::string after = bytes_of(options.target);
      CHECK((after != before) == (rotates || name != "rotate"));
      for (size_t i = 0; i < runners.size(); ++i) {
        const double moved = relative_error(logits_of(options.target, runners[i], ids), plain[i]);
        CAPTURE(runners[i].backend);
        CHECK(moved < 1e-4 + 2 * cache_noise[i]);
      }
      CHECK(relative_error(float_logits(options.target, ids, *products), exact) < 1e-5);
      const Model changed = Model::open(options.target, true);
      CHECK(changed.hyperparameters().tied_head == hyperparameters.tied_head);
      CHECK(changed.hyperparameters().rotated_table ==
            (recipe.rotate && rotates && hyperparameters.tied_head));
      CHECK(changed.header().quantization.calibration_hash.empty() != recipe.needs_text());
      CHECK(changed.file().verify().empty());
    }
  }
}

TEST_CASE("a run killed at any point goes on to the same bytes, with any number of threads") {
  const GoldenModel model = random_models()[0];  // three layers
  const auto products = make_dense_products(2);
  const Folder folder;
  QuantizeOptions options = options_of(model, folder.file("whole.tess"), Scheme::w4a8_g128, *products);
  options.recipe = all_steps();
  quantize_model(options);
  const std::string whole = bytes_of(options.target);
  REQUIRE(!whole.empty());
  CHECK(folder.entries() == std::vector<std::string>{"whole.tess"});

  options.target = folder.file("again.tess");
  double taken_over = 0;
  for (const double share : {0.1, 0.45, 0.6, 0.8, 0.97}) {
    CAPTURE(share);
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {  // own threads: those of the parent are not in the child
      const auto own = make_dense_products(share < 0.7 ? 1 : 2);
      options.products = own.get();
      options.progress = [&](uint64_t done, uint64_t total) {
        if (static_cast<double>(done) > share * static_cast<double>(total)) raise(SIGKILL);
      };
      try {
        quantize_model(options);
      } catch (...) {
      }
      std::_Exit(1);
    }
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
    CHECK(!fs::exists(options.target));
  }
  bool first = true;
  options.progress = [&](uint64_t done, uint64_t total) {
    if (first) taken_over = static_cast<double>(done) / static_cast<double>(total);
    first = false;
  };
  quantize_model(options);
  CHECK(taken_over > 0.6);
  CHECK(bytes_of(options.target) == whole);
  CHECK(!fs::exists(options.target + ".calibration"));

  // What another run left behind is of no use to this one and goes.
  options.target = folder.file("other.tess");
  fs::create_directory(options.target + ".calibration");
  std::ofstream(options.target + ".calibration/layer-0.part") << "not a part";
  first = true;
  quantize_model(options);
  CHECK(taken_over == 0);
  CHECK(bytes_of(options.target) == whole);
  CHECK(!fs::exists(options.target + ".calibration"));
}

TEST_CASE("a damaged part is made anew, and other options do not take parts over") {
  const GoldenModel model = random_models()[0];
  const auto products = make_dense_products(2);
  const Folder folder;
  QuantizeOptions options = options_of(model, folder.file("whole.tess"), Scheme::w4a8, *products);
  options.recipe = all_steps();
  quantize_model(options);
  const std::string whole = bytes_of(options.target);

  options.target = folder.file("again.tess");
  struct Stop {};
  const auto interrupted = [&] {
    options.progress = [](uint64_t done, uint64_t total) {
      if (10 * done > 7 * total) throw Stop();
    };
    CHECK_THROWS_AS(quantize_model(options), Stop);
    CHECK(fs::exists(options.target + ".calibration/layer-0.part"));
  };
  double taken_over = 0;
  const auto finished = [&] {
    bool first = true;
    options.progress = [&](uint64_t done, uint64_t total) {
      if (first) taken_over = static_cast<double>(done) / static_cast<double>(total);
      first = false;
    };
    quantize_model(options);
    return bytes_of(options.target);
  };
  interrupted();
  {
    std::fstream part(options.target + ".calibration/layer-0.part",
                      std::ios::in | std::ios::out | std::ios::binary);
    part.seekp(100);
    part.put('!');
  }
  CHECK(finished() == whole);
  CHECK(taken_over == 0);

  fs::remove(options.target);
  interrupted();
  options.recipe->clip = false;
  CHECK(finished() != whole);
  CHECK(taken_over == 0);
}
