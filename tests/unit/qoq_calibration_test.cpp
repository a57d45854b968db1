// What the searches for q and k choose, and how a calibration text is cut.
#include <doctest/doctest.h>

#include <numeric>
#include <stdexcept>
#include <vector>

#include "backends/cpu/dense_products.h"
#include "engine/quantize/calibration/calibration_windows.h"
#include "engine/quantize/qoq/attention_clips.h"
#include "engine/quantize/qoq/rounded_matrix.h"
#include "qoq_layers.h"

using namespace tessera;
using namespace tessera::quantize;

TEST_CASE("the clips of q and k are the best of one ratio for all rows and those offered") {
  std::mt19937 generator = qoq_test::seeded();
  const auto products = make_cpu_dense_products(2);
  qoq_test::Layer layer = qoq_test::random_layer(generator, qoq_test::kSizes[0]);
  const AttentionBlock& block = layer.attention();
  FloatMatrix& k_weights = layer[Role::k];
  const FloatMatrix& q_weights = layer[Role::q];
  for (size_t row = 0; row < k_weights.rows; ++row) k_weights.row(row)[row % 7] *= 6;  // worth clipping
  AttentionSample sample;
  sample.windows = {40, 24};
  sample.input = qoq_test::random_matrix(generator, 64, layer.sizes.hidden, 1.0f);
  const AttentionScore score(*products, DenseProduct::Precision::f32, layer.weights, sample);
  const auto key_error = [&](std::span<const float> clips) {
    const FloatMatrix k = rounded_to_rows(*products, Scheme::w4a8_g128, k_weights, clips);
    return score.error(score.attended(score.inputs_with(block.k, k)));
  };
  const auto query_error = [&](std::span<const float> clips) {
    const FloatMatrix q = rounded_to_rows(*products, Scheme::w4a8_g128, q_weights, clips);
    return score.error(score.attended(score.inputs_with(block.q, q)));
  };
  CHECK(score.error(score.attended(score.inputs())) < 1e-6 * key_error({}));
  const std::vector<float> bad_k(k_weights.rows, 0.2f);
  const std::vector<float> bad_q(q_weights.rows, 0.2f);
  const std::vector<float> k =
      best_attention_clips(*products, Scheme::w4a8_g128, layer.weights, block.k, score, bad_k);
  const std::vector<float> q =
      best_attention_clips(*products, Scheme::w4a8_g128, layer.weights, block.q, score, bad_q);
  CHECK(k == std::vector<float>(k.size(), k.front()));
  CHECK(k.front() > 0.2f);
  CHECK(key_error(k) <= key_error({}));
  for (const float ratio : {1.0f, 0.9f, 0.75f, 0.5f, 0.2f}) {
    CHECK(key_error(k) <= key_error(std::vector<float>(k.size(), ratio)) * (1 + 1e-9));
    CHECK(query_error(q) <= query_error(std::vector<float>(q.size(), ratio)) * (1 + 1e-9));
  }
  // Ratios by row that are better than any single one are taken as they are.
  std::vector<float> offered = k;
  for (float& ratio : offered) {
    const float former = ratio;
    double best = key_error(offered);
    for (const float tried : {former * 0.9f, former * 0.95f, std::min(1.0f, former * 1.05f)}) {
      const float before = ratio;
      ratio = tried;
      const double found = key_error(offered);
      if (found < best)
        best = found;
      else
        ratio = before;
    }
  }
  REQUIRE(key_error(offered) < key_error(k));
  CHECK(best_attention_clips(*products, Scheme::w4a8_g128, layer.weights, block.k, score, offered) ==
        offered);
}

TEST_CASE("a calibration text becomes windows spread over it, each with its begin token") {
  const Tokenizer tokenizer = Tokenizer::from_folder(TESSERA_SOURCE_DIR "/models/tessera-tiny");
  const uint32_t bos = tokenizer.bos().value();
  CalibrationText text;
  for (int i = 0; i < 400; ++i) text.text += "Line " + std::to_string(i) + " asks for a table.\n";
  const std::vector<uint32_t> ids = tokenizer.encode(text.text, false);
  text.window = 65;
  text.windows = 10;
  const CalibrationWindows cut = cut_calibration_text(text, tokenizer, 1024);
  REQUIRE(cut.windows.size() == 10);
  const size_t whole = ids.size() / 64;
  REQUIRE(whole > 20);
  for (size_t i = 0; i < 10; ++i) {
    const std::vector<uint32_t>& window = cut.windows[i];
    REQUIRE(window.size() == 65);
    CHECK(window.front() == bos);
    const size_t begin = i * whole / 10 * 64;
    CHECK(std::equal(window.begin() + 1, window.end(), ids.begin() + static_cast<std::ptrdiff_t>(begin)));
  }
  CHECK(cut.tokens() == 650);

  text.windows = 1000;  // more than there are
  CHECK(cut_calibration_text(text, tokenizer, 1024).windows.size() == whole);
  text.window = 0;  // the context where it is shorter than 1024
  CHECK(cut_calibration_text(text, tokenizer, 100).lengths().front() == 100);

  text.lines = true;
  text.windows = 4;
  const CalibrationWindows lines = cut_calibration_text(text, tokenizer, 1024);
  REQUIRE(lines.windows.size() == 4);
  CHECK(tokenizer.decode(std::span(lines.windows[1]).subspan(1), false) == "Line 100 asks for a table.");

  text = {};
  text.text = "short";
  const CalibrationWindows only = cut_calibration_text(text, tokenizer, 1024);
  REQUIRE(only.windows.size() == 1);
  CHECK(only.windows[0].front() == bos);
  text.text = "<|bos|>Hi\n<|bos|>Ho\n";
  text.lines = text.parse_special = true;
  const CalibrationWindows spelled = cut_calibration_text(text, tokenizer, 1024);
  REQUIRE(spelled.windows.size() == 2);
  CHECK(spelled.windows[0][0] == bos);
  CHECK(spelled.windows[0][1] != bos);  // not put twice

  text.text = "\n\n";
  CHECK_THROWS_WITH_AS(cut_calibration_text(text, tokenizer, 1024),
                       "calibration text: expected at least one token, found none", std::runtime_error);
  text.window = 2000;
  CHECK_THROWS_AS(cut_calibration_text(text, tokenizer, 1024), std::runtime_error);
}
