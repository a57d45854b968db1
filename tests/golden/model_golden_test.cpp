// Whole models against golden data made with Hugging Face transformers and float64 forward passes:
// tokenization, logits and greedy text, on every backend and instruction set of this machine.
#include <doctest/doctest.h>

#include "tests/golden/golden_model.h"

namespace tessera::golden {
namespace {

// Differences are shares of the largest logit of a row.
// Against golden logits with an f16 cache nothing is left but float32 rounding and the few keys and values
// that it pushes across a rounding edge of f16; against exact ones also what rounding them all costs.
constexpr double kKv16Share = 1e-3;
constexpr double kExactShare = 5e-3;

struct Deviation {
  double from_kv16 = 0;
  double from_exact = 0;
};

// All rows of the golden sequence in one run.
Deviation logits_deviation(const Model& model, const Runner& runner, const Case& c) {
  Session session(model, options_for(runner));
  const Rows rows = run_rows(session, session.create_sequence(), c.sequence);
  Deviation worst;
  for (const ExpectedRow& expected : c.rows) {
    const std::vector<float>& row = rows.at(expected.row);
    REQUIRE(expected.kv16.size() == expected.logits.size());
    const double magnitude = largest_magnitude(expected.logits);
    worst.from_exact = std::max(worst.from_exact, largest_difference(row, expected.logits) / magnitude);
    worst.from_kv16 = std::max(worst.from_kv16, largest_difference(row, expected.kv16) / magnitude);
  }
  return worst;
}

// Prompt in one run, then token by token, each the best of the last logits.
Ids greedy_sequence(const Model& model, const Runner& runner, const Ids& prompt, size_t length) {
  Session session(model, options_for(runner));
  const SequenceId sequence = session.create_sequence();
  Ids ids = prompt;
  Rows rows = run_rows(session, sequence, prompt, LogitRows::last);
  while (true) {
    ids.push_back(best_token(rows.back()));
    if (ids.size() == length) return ids;
    rows = run_rows(session, sequence, {&ids.back(), 1}, LogitRows::last);
  }
}

Ids encode_prompt(const Model& model, const Case& c) {
  const Tokenizer& tokenizer = model.tokenizer();
  Ids ids = tokenizer.encode(c.prompt, true);
  // A prompt that spells its special tokens already says where the text begins.
  if (tokenizer.adds_bos() && (ids.empty() || ids.front() != tokenizer.bos()))
    ids.insert(ids.begin(), *tokenizer.bos());
  return ids;
}

std::string text_of(const Model& model, const Ids& ids, bool show_special) {
  StreamDecoder decoder(model.tokenizer(), show_special);
  std::string text;
  for (const uint32_t id : ids) text += decoder.push(id);
  return text + decoder.finish();
}

void check_exact_scheme(const GoldenModel& golden, const std::string& scheme) {
  const QuantizedModel file(golden, scheme, true);
  const Model& model = file.model();
  for (const auto& tokenizer_case : golden.tokenizer_cases) {
    INFO("text: ", tokenizer_case.first);
    CHECK(model.tokenizer().encode(tokenizer_case.first, true) == tokenizer_case.second);
  }
  for (const Case& c : golden.cases) {
    CAPTURE(c.prompt);
    REQUIRE_FALSE(c.rows.empty());
    CHECK(encode_prompt(model, c) == c.prompt_ids);
    const Ids reply(c.sequence.begin() + static_cast<std::ptrdiff_t>(c.prompt_ids.size()), c.sequence.end());
    if (!c.reply_text.empty()) {
      const bool whole = c.reply_text.starts_with(c.prompt);
      CHECK(text_of(model, whole ? c.sequence : reply, !whole) == c.reply_text);
    }
    for (const Runner& runner : all_runners()) {
      CAPTURE(runner.name());
      const Deviation deviation = logits_deviation(model, runner, c);
      CHECK(deviation.from_kv16 <= kKv16Share);
      CHECK(deviation.from_exact <= kExactShare);
      CHECK(greedy_sequence(model, runner, c.prompt_ids, c.sequence.size()) == c.sequence);
      std::cout << golden.name << ' ' << scheme << ", " << runner.name() << ": logits within "
                << deviation.from_kv16 << " of those with a 16-bit cache, " << deviation.from_exact
                << " of the exact ones\n";
    }
  }
}

}  // namespace

TEST_CASE("random models in f32 give the logits and greedy text of transformers") {
  for (const GoldenModel& golden : random_models()) {
    CAPTURE(golden.name);
    check_exact_scheme(golden, "f32");
  }
}

TEST_CASE("random models in the scheme of their checkpoint give the logits and greedy text of transformers") {
  for (const GoldenModel& golden : random_models()) {
    CAPTURE(golden.name);
    if (golden.stored_scheme != "f32") check_exact_scheme(golden, golden.stored_scheme);
  }
}

TEST_CASE("trained models give golden logits, tokens and text") {
  for (const GoldenModel& golden : trained_models()) {
    CAPTURE(golden.name);
    check_exact_scheme(golden, "f32");
    if (golden.stored_scheme != "f32") check_exact_scheme(golden, golden.stored_scheme);
  }
}

// A 16-bit scheme that cannot hold the weights exactly: f16 keeps 11 bits of a float's 24, bf16 only 8.
TEST_CASE("rounding weights to the other 16-bit formats stays within their precision") {
  std::vector<GoldenModel> models = random_models();
  for (GoldenModel& trained : trained_models()) models.push_back(std::move(trained));
  for (const GoldenModel& golden : models) {
    for (const std::string scheme : {"f16", "bf16"}) {
      const double share = scheme == "f16" ? 2e-2 : 1e-1;
      if (scheme == golden.stored_scheme) continue;
      const QuantizedModel file(golden, scheme, true);
      for (const Runner& runner : all_runners()) {
        CAPTURE(golden.name);
        CAPTURE(scheme);
        CAPTURE(runner.name());
        const Deviation deviation = logits_deviation(file.model(), runner, golden.cases.front());
        CHECK(deviation.from_exact <= share);
        std::cout << golden.name << ' ' << scheme << ", " << runner.name() << ": logits within "
                  << deviation.from_exact << " of the exact ones\n";
      }
    }
  }
}

// Rounding edges make rounded activations differ between backends now and then, and only a little in a
// trained model: the same text wherever the reference is clear about it.
TEST_CASE("trained models in schemes of codes give the same text on the cpu as on the reference backend") {
  constexpr double kClear = 0.25;
  for (const GoldenModel& golden : trained_models()) {
    for (const std::string scheme : {"w4a8-g128", "w4a8", "w8a8", "lut4-g64", "lut4-g128-a8", "lut3-g32",
                                     "lut3-g64-a8", "lut2-g32-a8", "int4-g256", "int4-g64-a8"}) {
      const QuantizedModel file(golden, scheme, false);
      const Case& c = golden.cases.front();
      const auto run = [&](const Runner& runner, const Ids& ids) {
        Session session(file.model(), options_for(runner));
        return run_rows(session, session.create_sequence(), ids);
      };
      const Ids sequence =
          greedy_sequence(file.model(), {"reference", "auto"}, c.prompt_ids, c.sequence.size());
      const Rows expected = run({"reference", "auto"}, sequence);
      for (const Runner& runner : cpu_runners()) {
        CAPTURE(golden.name);
        CAPTURE(scheme);
        CAPTURE(runner.name());
        const Rows rows = run(runner, sequence);
        REQUIRE(rows.size() == expected.size());
        size_t clear = 0;
        for (size_t i = c.prompt_ids.size() - 1; i + 1 < rows.size(); ++i) {
          if (top_gap(expected[i]) < kClear) continue;
          ++clear;
          CHECK(best_token(rows[i]) == sequence[i + 1]);
        }
        CHECK(2 * clear > sequence.size() - c.prompt_ids.size());
        CHECK(relative_error(rows, expected) < 5e-2);
        std::cout << golden.name << ' ' << scheme << ", " << runner.name()
                  << ": relative difference from the reference " << relative_error(rows, expected) << ", "
                  << clear << " clear choices\n";
      }
    }
  }
}

}  // namespace tessera::golden
