// Other scalings of positions than a model was stored with.
#include "engine/models/stretched_context.h"

#include <doctest/doctest.h>

#include <cmath>
#include <stdexcept>
#include <string>
#include <utility>

namespace {

using tessera::Hyperparameters;
using tessera::RopeRequest;
using tessera::RopeScalingKind;

Hyperparameters plain(uint64_t context) {
  Hyperparameters h;
  h.context = context;
  return h;
}

std::string fault(const RopeRequest& request) {
  try {
    tessera::stretched(plain(2048), request);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "none";
}

}  // namespace

TEST_CASE("a factor follows from the context and a context from the factor") {
  RopeRequest request;
  request.scaling = RopeScalingKind::linear;
  request.context = 8192;
  Hyperparameters h = tessera::stretched(plain(2048), request);
  CHECK(h.context == 8192);
  CHECK(h.rope_scaling.kind == RopeScalingKind::linear);
  CHECK(h.rope_scaling.factor == 4);

  request = RopeRequest();
  request.factor = 3;
  h = tessera::stretched(plain(2048), request);
  CHECK(h.context == 6144);
  CHECK(h.rope_scaling.kind == RopeScalingKind::linear);
  CHECK(h.rope_scaling.factor == 3);

  request = RopeRequest();
  request.scaling = RopeScalingKind::yarn;
  request.context = 5000;
  request.original_context = 1000;
  h = tessera::stretched(plain(2048), request);
  CHECK(h.context == 5000);
  CHECK(h.rope_scaling.factor == 5);
  CHECK(h.rope_scaling.original_context == 1000);
  CHECK(h.rope_scaling.attention_factor == doctest::Approx(0.1 * std::log(5.0) + 1).epsilon(1e-12));
}

TEST_CASE("without scaling positions go on as they are") {
  RopeRequest request;
  request.scaling = RopeScalingKind::none;
  request.context = 4096;
  const Hyperparameters h = tessera::stretched(plain(2048), request);
  CHECK(h.context == 4096);
  CHECK(h.rope_scaling.kind == RopeScalingKind::none);
  request = RopeRequest();
  request.theta = 500000;
  CHECK(tessera::stretched(plain(2048), request).rope_theta == 500000);
  CHECK(tessera::stretched(plain(2048), request).context == 2048);
}

TEST_CASE("a scaling of the model's own is replaced, and what it began from is kept") {
  Hyperparameters own = plain(8192);
  own.rope_scaling.kind = RopeScalingKind::linear;
  own.rope_scaling.factor = 4;
  RopeRequest request;
  request.scaling = RopeScalingKind::yarn;
  request.context = 16384;
  Hyperparameters h = tessera::stretched(own, request);
  CHECK(h.rope_scaling.original_context == 2048);
  CHECK(h.rope_scaling.factor == 8);
  own.rope_scaling.kind = RopeScalingKind::llama3;
  own.rope_scaling.original_context = 1024;
  h = tessera::stretched(own, request);
  CHECK(h.rope_scaling.original_context == 1024);
  CHECK(h.rope_scaling.factor == 16);
  request = RopeRequest();
  request.theta = 20000;
  h = tessera::stretched(own, request);
  CHECK(h.rope_scaling.kind == RopeScalingKind::llama3);
  CHECK(h.context == 8192);
}

TEST_CASE("requests that make no sense") {
  RopeRequest request;
  request.original_context = 100;
  CHECK(fault(request) == "--yarn-orig-ctx: needs --rope-scaling yarn");
  request = RopeRequest();
  request.scaling = RopeScalingKind::none;
  request.factor = 2;
  CHECK(fault(request) == "--rope-scale: has no meaning with --rope-scaling none");
}

// alpha is 1 at the trained context, 3 at twice, 7 at four times, and changes at whole powers of two only.
TEST_CASE("a longer context alone changes theta where the model says so") {
  RopeRequest request;
  Hyperparameters own = plain(2048);
  own.head_dim = 128;
  own.dynamic_ntk = true;
  own.log_scale_from = 2048;
  request.context = 2048;
  CHECK_FALSE(request.stretches(own));
  for (const auto& [context, alpha] : {std::pair{2049, 3.0}, {4096, 3.0}, {4097, 7.0}, {8192, 7.0}}) {
    request.context = context;
    CHECK(request.stretches(own));
    CHECK_FALSE(request.stretches(plain(2048)));
    const Hyperparameters h = tessera::stretched(own, request);
    CHECK(h.context == static_cast<uint64_t>(context));
    CHECK(h.rope_theta == doctest::Approx(10000 * std::pow(alpha, 128.0 / 126)));
    CHECK(h.log_scale_from == 2048);
  }
}
