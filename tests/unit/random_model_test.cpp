// Random models: whole and valid files in every scheme, at odd sizes too, that run to finite logits.
#include "engine/measure/random_model.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "engine/model.h"
#include "engine/models/model_graph.h"
#include "engine/session.h"

using namespace tessera;

namespace {

Hyperparameters odd_shape(const std::string& family) {
  Hyperparameters h;
  h.family = family;
  h.vocabulary = 301;
  h.hidden = 72;
  h.layers = 2;
  h.query_heads = 3;
  h.kv_heads = 1;
  h.head_dim = 24;
  h.ffn = 172;
  h.context = 64;
  h.tied_head = family != "llama";
  h.qkv_bias = family != "llama";
  h.output_bias = family == "gpt2";
  return h;
}

}  // namespace

TEST_CASE("random models are valid files in every scheme and run") {
  for (const char* family : {"llama", "qwen2", "gpt2"}) {
    for (const Scheme scheme :
         {Scheme::f32, Scheme::f16, Scheme::bf16, Scheme::w8a8, Scheme::w4a8, Scheme::w4a8_g128}) {
      CAPTURE(family);
      CAPTURE(std::string(scheme_name(scheme)));
      const RandomModel random("odd", odd_shape(family), scheme, 2, 11);
      const auto file = TessFile::from_memory(random.bytes(), "random");
      CHECK(file->verify().empty());
      CHECK(file->header().quantization.scheme == scheme_name(scheme));

      const Model model = Model::from_memory(random.bytes());
      CHECK(model.tokenizer().vocabulary() == 301);
      CHECK(model.tokenizer().decode(model.tokenizer().encode("any t\xC3\xA9xt\n", false), false) ==
            "any t\xC3\xA9xt\n");
      SessionOptions options;
      options.backend = "reference";
      Session session(model, options);
      const std::vector<uint32_t> tokens = {5, 300, 17, 0, 255};
      const SequenceInput input{session.create_sequence(), tokens, LogitRows::all};
      const std::span<float> logits = session.run({&input, 1});
      REQUIRE(logits.size() == tokens.size() * 301);
      CHECK(std::all_of(logits.begin(), logits.end(), [](float value) { return std::isfinite(value); }));
      const auto [least, most] = std::minmax_element(logits.begin(), logits.end());
      CHECK(*most - *least > 0.5f);  // weights of a sensible size: neither dead nor exploding
      CHECK(*most - *least < 50.0f);
    }
  }
}

TEST_CASE("a seed makes the same bytes on any number of threads, another seed others") {
  const auto bytes = [](size_t threads, uint64_t seed) {
    const RandomModel random("odd", odd_shape("llama"), Scheme::w4a8_g128, threads, seed);
    return std::vector<std::byte>(random.bytes().begin(), random.bytes().end());
  };
  const std::vector<std::byte> first = bytes(1, 1);
  CHECK(bytes(3, 1) == first);
  CHECK(bytes(1, 2) != first);
}

TEST_CASE("known shapes have the published numbers of weights") {
  const std::map<std::string, uint64_t> published = {{"smollm2-135m", 134515008},
                                                     {"smollm2-360m", 361821120},
                                                     {"qwen2.5-0.5b", 494032768},
                                                     {"tinyllama-1.1b", 1100048384},
                                                     {"llama-3.2-1b", 1235814400},
                                                     {"qwen2.5-1.5b", 1543714304},
                                                     {"smollm2-1.7b", 1711376384},
                                                     {"qwen2.5-3b", 3085938688},
                                                     {"llama-3.2-3b", 3212749824},
                                                     {"llama-2-7b", 6738415616},
                                                     {"qwen2.5-7b", 7615616512},
                                                     {"llama-3-8b", 8030261248},
                                                     {"llama-3.1-8b", 8030261248},
                                                     {"llama-2-13b", 13015864320},
                                                     {"qwen2.5-14b", 14770033664},
                                                     {"llama-3.1-70b", 70553706496},
                                                     {"gpt2", 124439808},
                                                     {"gpt2-xl", 1557611200},
                                                     {"baichuan2-7b", 7505973248},
                                                     {"baichuan2-13b", 13896668160},
                                                     {"qwen-7b", 7721324544},
                                                     {"qwen-14b", 14167290880},
                                                     // Less two rows of positions that no token has.
                                                     {"opt-125m", 125239296 - 2 * 768},
                                                     {"opt-1.3b", 1315758080 - 2 * 2048},
                                                     {"opt-6.7b", 6658473984 - 2 * 4096}};
  CHECK(random_model_shapes().size() == published.size());
  uint64_t before = 0;
  for (const std::string& name : random_model_shapes()) {
    CAPTURE(name);
    uint64_t weights = 0;
    for (const ExpectedTensor& tensor : expected_tensors(random_model_shape(name))) {
      uint64_t size = 1;
      for (const uint64_t dimension : tensor.shape) size *= dimension;
      weights += size;
    }
    REQUIRE(published.count(name) == 1);
    CHECK(weights == published.at(name));
    CHECK(weights >= before);
    before = weights;
  }
  CHECK_THROWS_AS(random_model_shape("llama-9"), std::invalid_argument);
}
