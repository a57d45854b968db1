// Two real models as GGUF files against independent implementations: token ids of varied texts, logits and
// greedy text. Skipped where the files are not: $TESSERA_REAL_MODELS names their folder.
#include <doctest/doctest.h>

#include <cstdlib>

#include "engine/checkpoint/checkpoint_source.h"
#include "tests/golden/golden_model.h"

namespace tessera::golden {
namespace {

// Of the largest logit of a row: float32 arithmetic and a 16-bit cache against float64.
constexpr double kShare = 1e-3;
// A choice is clear where the best two logits are further apart than both may be wrong.
constexpr double kClear = 2 * kShare;

struct RealModel {
  std::string name;
  std::filesystem::path file;
  nlohmann::json golden;
};

std::vector<RealModel> real_models() {
  const nlohmann::json all =
      nlohmann::json::parse(std::ifstream(TESSERA_SOURCE_DIR "/tests/golden/real_models.json"));
  const char* folder = std::getenv("TESSERA_REAL_MODELS");
  std::vector<RealModel> models;
  for (const auto& [name, golden] : all.items()) {
    const std::filesystem::path file = std::filesystem::path(folder == nullptr ? "" : folder) / name;
    if (folder == nullptr || !std::filesystem::exists(file)) {
      std::cout << "skipped: no " << name << " in $TESSERA_REAL_MODELS\n";
      MESSAGE("skipped: no ", name, " in $TESSERA_REAL_MODELS");
      continue;
    }
    models.push_back({name, file, golden});
  }
  return models;
}

}  // namespace

TEST_CASE("real GGUF files tokenize as Hugging Face's tokenizers do") {
  for (const RealModel& real : real_models()) {
    const auto source = open_checkpoint(real.file.string());
    CHECK(real.golden["texts"].size() == 300);
    for (const auto& text : real.golden["texts"]) {
      CAPTURE(real.name);
      CAPTURE(text[0].get<std::string>());
      CHECK(source->tokenizer().encode(text[0].get<std::string>(), true) == text[1].get<Ids>());
    }
  }
}

TEST_CASE("real GGUF files give the logits and greedy text of a float64 forward pass") {
  for (const RealModel& real : real_models()) {
    GoldenModel golden;
    golden.name = real.name;
    golden.folder = real.file;
    const QuantizedModel quantized(golden, "f32", true);
    const Model& model = quantized.model();
    for (const auto& entry : real.golden["cases"]) {
      const Ids prompt = entry["ids"].get<Ids>();
      const Ids reply = entry["greedy"].get<Ids>();
      const std::vector<double> gaps = numbers(entry["gaps"]);
      const double largest = entry["largest"];
      for (const Runner& runner : cpu_runners()) {
        CAPTURE(real.name);
        CAPTURE(entry["prompt"].get<std::string>());
        CAPTURE(runner.name());
        Session session(model, options_for(runner));
        const SequenceId sequence = session.create_sequence();
        std::vector<float> row = run_rows(session, sequence, prompt, LogitRows::last).back();
        double worst = 0;
        for (const auto& logit : entry["logits"])
          worst = std::max(
              worst, std::abs(static_cast<double>(row.at(logit[0].get<size_t>())) - logit[1].get<double>()));
        CHECK(worst <= kShare * largest);
        size_t same = 0;
        for (; same < reply.size() && best_token(row) == reply[same]; ++same)
          row = run_rows(session, sequence, {&reply[same], 1}, LogitRows::last).back();
        std::cout << real.name << ", " << runner.name() << ": logits within " << worst / largest << ", "
                  << same << " of " << reply.size() << " greedy tokens\n";
        // Behind a choice that is not clear another text may follow.
        if (same < reply.size()) CHECK(gaps[same] < kClear * largest);
      }
    }
  }
}

}  // namespace tessera::golden
