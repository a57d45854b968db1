// The speed of a model's matrix products: every kind of linear op is found and timed on its own. What the
// times are is not looked at.
#include "engine/measure/product_speed.h"

#include <doctest/doctest.h>

#include <iostream>
#include <memory>
#include <random>
#include <stdexcept>

#include "backends/cpu/cpu_backend.h"
#include "backends/reference/reference_backend.h"
#include "backends/split/split_backend.h"
#include "tests/unit/op_cases.h"
#include "tests/unit/op_rig.h"

using namespace tessera;

TEST_CASE("each kind of product of a model is timed, on any backend and in any scheme") {
  const uint64_t seed = std::random_device{}();
  std::cout << "product speed: seed " << seed << "\n";
  rig::Random random(seed);
  for (const Scheme scheme : {Scheme::f32, Scheme::w4a8_g128, *parse_scheme("lut3-g32")}) {
    const rig::OpCase model = rig::layers_case(random, scheme, 16);
    CpuBackendOptions options;
    options.threads = 1;
    for (const bool on_cpu : {false, true}) {
      const std::unique_ptr<Backend> backend =
          on_cpu ? rig::unwrap(make_cpu_backend(options), "cpu") : make_reference_backend();
      std::vector<WeightHandle> weights;
      for (const rig::PackedTensor& weight : model.weights)
        weights.push_back(rig::unwrap(backend->adopt(weight.view()), "adopt"));
      const size_t count = weights.size();
      const auto kv = rig::unwrap(backend->create_kv(model.kv, 1), "create_kv");
      const auto speeds = measure_products(
          *backend, model.graph, weights, *kv,
          [](const Weight& weight) { return weight.rows * weight.columns; }, 3);
      CHECK(weights.size() == count);
      REQUIRE(speeds.size() == 5);
      const size_t shapes[5][3] = {{192, 72, 2}, {72, 96, 2}, {344, 72, 2}, {72, 172, 2}, {53, 72, 1}};
      for (size_t i = 0; i < 5; ++i) {
        CHECK(speeds[i].shape.rows == shapes[i][0]);
        CHECK(speeds[i].shape.columns == shapes[i][1]);
        CHECK(speeds[i].shape.tokens == 3);
        CHECK(speeds[i].copies == shapes[i][2]);
        CHECK(speeds[i].weight_bytes == shapes[i][0] * shapes[i][1]);
        CHECK(speeds[i].scheme == scheme_name(scheme));
        CHECK(speeds[i].seconds >= 0);
        CHECK_FALSE(speeds[i].library_f16);
      }
      CHECK(measure_attention(*backend, model.graph, weights, *kv, 40) >= 0);
      CHECK_THROWS_AS(measure_attention(*backend, model.graph, weights, *kv, 64), std::runtime_error);
      CHECK(weights.size() == count);
    }
  }
}

TEST_CASE("the products of layers that are split are those of both parts") {
  const uint64_t seed = std::random_device{}();
  std::cout << "products of parts: seed " << seed << "\n";
  rig::Random random(seed);
  const rig::OpCase model = rig::layers_case(random, Scheme::w8a8, 8);
  CpuBackendOptions options;
  options.threads = 1;
  const std::unique_ptr<Backend> split =
      make_split_backend(rig::unwrap(make_cpu_backend(options), "cpu"), make_reference_backend(), 1);
  std::vector<WeightHandle> weights;
  for (const rig::PackedTensor& weight : model.weights)
    weights.push_back(rig::unwrap(split->adopt(weight.view()), "adopt"));
  const auto kv = rig::unwrap(split->create_kv(model.kv, 1), "create_kv");
  const auto program = rig::unwrap(
      split->compile(model.graph, plan_memory(model.graph, model.limits), weights, *kv), "compile");
  const std::vector<ProgramPart> parts = parts_of(*split, *program, *kv);
  REQUIRE(parts.size() == 2);
  CHECK(parts[0].backend.describe().find("cpu") == 0);
  CHECK(parts[1].backend.describe().find("reference") == 0);
  const size_t shapes[5][2] = {{192, 72}, {72, 96}, {344, 72}, {72, 172}, {53, 72}};
  for (size_t place = 0; place < 2; ++place) {
    const size_t count = parts[place].weights.size();
    const auto speeds = measure_products(
        parts[place].backend, parts[place].graph, parts[place].weights, parts[place].kv,
        [](const Weight& weight) { return weight.rows * weight.columns; }, 3);
    CHECK(parts[place].weights.size() == count);
    REQUIRE(speeds.size() == 4 + place);  // the head belongs to the second part
    for (size_t i = 0; i < speeds.size(); ++i) {
      CHECK(speeds[i].shape.rows == shapes[i][0]);
      CHECK(speeds[i].shape.columns == shapes[i][1]);
      CHECK(speeds[i].copies == 1);
      CHECK(speeds[i].seconds >= 0);
    }
  }
  // The parts belong together: those of another backend are none.
  CHECK(parts_of(parts[0].backend, *program, *kv).empty());
  CHECK(parts_of(*split, *program, parts[0].kv).empty());
}
