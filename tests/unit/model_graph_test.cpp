// Model families: the tensors they expect, the graphs they make, RoPE scaling, and whole models against a
// forward pass written out here.
#include "engine/models/model_graph.h"

#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <iostream>
#include <limits>
#include <map>
#include <numeric>
#include <set>

#include "backends/reference/reference_backend.h"
#include "engine/models/rope_frequencies.h"
#include "gguf-like-format/tess/tess_writer.h"
#include "tests/unit/crafted_files.h"
#include "tests/unit/op_rig.h"

using namespace tessera;

namespace {

Hyperparameters small_llama() {
  Hyperparameters h;
  h.family = "llama";
  h.vocabulary = 50;
  h.hidden = 40;
  h.layers = 2;
  h.query_heads = 4;
  h.kv_heads = 2;
  h.head_dim = 16;  // 64 query columns over a hidden size of 40
  h.ffn = 72;
  h.context = 128;
  return h;
}

Hyperparameters small_qwen2() {
  Hyperparameters h = small_llama();
  h.family = "qwen2";
  h.qkv_bias = true;
  h.tied_head = true;
  return h;
}

// A stored model with random weights whose meaning is known.
struct SmallModel {
  std::map<std::string, rig::PackedTensor> tensors;
  std::unique_ptr<TessFile> file;
};

using SchemeOf = std::function<Scheme(const ExpectedTensor&)>;

std::unique_ptr<TessFile> store(const Hyperparameters& h,
                                const std::map<std::string, rig::PackedTensor>& tensors) {
  const crafted::Folder folder;
  ModelHeader header;
  header.name = "small";
  header.hyperparameters = h;
  header.quantization.scheme = "f32";
  header.quantization.head_scheme = "f32";
  header.tokenizer.kind = "byte-bpe";
  std::vector<PlannedTensor> planned;
  for (const auto& [name, tensor] : tensors) planned.push_back({name, tensor.scheme, tensor.shape});
  TessWriter writer(folder / "small.tess", header, planned);
  for (const auto& [name, tensor] : tensors) writer.write(tensor.bytes);
  writer.finish();
  return TessFile::open(folder / "small.tess", false);
}

SmallModel make_model(rig::Random& random, const Hyperparameters& h, const SchemeOf& scheme_of) {
  SmallModel model;
  for (const ExpectedTensor& expected : expected_tensors(h)) {
    rig::PackedTensor tensor;
    if (expected.shape.size() == 1) {
      tensor = rig::random_vector(random, expected.name, expected.shape[0]);
    } else if (scheme_of(expected) == Scheme::f32) {
      // Scaled so that magnitudes stay near 1 from layer to layer.
      std::vector<float> entries(expected.shape[0] * expected.shape[1]);
      for (float& entry : entries)
        entry = rig::normal(random) / std::sqrt(static_cast<float>(expected.shape[1]));
      tensor = rig::packed_matrix(expected.name, Scheme::f32, expected.shape[0], expected.shape[1], entries);
    } else {
      tensor = rig::random_matrix(random, expected.name, scheme_of(expected), expected.shape[0],
                                  expected.shape[1]);
    }
    model.tensors.emplace(expected.name, std::move(tensor));
  }
  model.file = store(h, model.tensors);
  return model;
}

SchemeOf all(Scheme scheme) {
  return [scheme](const ExpectedTensor&) { return scheme; };
}

std::string refused(const std::function<void()>& action) {
  try {
    action();
  } catch (const FileError& error) {
    return error.what();
  }
  return {};
}

// One letter or two per op: what happens in which order.
std::string outline(const Graph& graph) {
  std::string text;
  for (const Op& op : graph.ops) {
    if (const auto* norm = std::get_if<Norm>(&op.kind)) {
      text += op.inputs.size() == 2 ? "add+norm" : "norm";
      if (norm->select_rows) text += " selected";
    } else if (const auto* linear = std::get_if<Linear>(&op.kind)) {
      text += "linear";
      for (const LinearPart& part : linear->parts)
        text +=
            " " + graph.weights[part.weight].name + (part.bias ? "+" + graph.weights[*part.bias].name : "");
    } else {
      text += op_name(op.kind);
    }
    if (graph.tensors[op.outputs[0]].type == ElementType::q8) text += " q8";
    text += "; ";
  }
  return text;
}

// Logits after the last token by the textbook: no cache, no fusion, whole matrices, float64 throughout.
class Forward {
 public:
  Forward(const SmallModel& model, const Hyperparameters& h) : model_(model), h_(h) {}

  std::vector<double> logits(const std::vector<uint32_t>& tokens) {
    std::vector<Row> stream;
    for (const uint32_t token : tokens) stream.push_back(row(get("token_embedding"), token));
    for (size_t layer = 0; layer < h_.layers; ++layer) {
      const std::string prefix = "layers." + std::to_string(layer) + ".";
      std::vector<Row> q;
      std::vector<Row> k;
      std::vector<Row> v;
      for (size_t p = 0; p < stream.size(); ++p) {
        const Row x = norm(stream[p], prefix + "attention_norm");
        q.push_back(turned(project(x, prefix + "q"), p));
        k.push_back(turned(project(x, prefix + "k"), p));
        v.push_back(project(x, prefix + "v"));
      }
      for (size_t p = 0; p < stream.size(); ++p) {
        add(stream[p], project(attend(q[p], k, v, p), prefix + "o"));
        const Row x = norm(stream[p], prefix + "ffn_norm");
        Row gate = project(x, prefix + "gate");
        const Row up = project(x, prefix + "up");
        for (size_t i = 0; i < gate.size(); ++i) gate[i] *= up[i] / (1 + std::exp(-gate[i]));
        add(stream[p], project(gate, prefix + "down"));
      }
    }
    return project(norm(stream.back(), "output_norm"), h_.tied_head ? "token_embedding" : "output_head");
  }

 private:
  using Row = std::vector<double>;

  const rig::PackedTensor& get(const std::string& name) const { return model_.tensors.at(name); }
  static Row row(const rig::PackedTensor& matrix, size_t index) {
    const auto begin = matrix.values.begin() + static_cast<std::ptrdiff_t>(index * matrix.columns());
    return Row(begin, begin + static_cast<std::ptrdiff_t>(matrix.columns()));
  }
  static void add(Row& to, const Row& other) {
    for (size_t i = 0; i < to.size(); ++i) to[i] += other[i];
  }
  Row project(const Row& x, const std::string& name) const {
    const rig::PackedTensor& matrix = get(name);
    const auto bias = model_.tensors.find(name + "_bias");
    Row y;
    for (size_t n = 0; n < matrix.rows(); ++n) {
      double sum = bias == model_.tensors.end() ? 0.0 : bias->second.values[n];
      for (size_t i = 0; i < x.size(); ++i) sum += matrix.values[n * x.size() + i] * x[i];
      y.push_back(sum);
    }
    return y;
  }
  Row norm(Row x, const std::string& name) const {
    double mean = 0;
    for (const double value : x) mean += value * value / static_cast<double>(x.size());
    for (size_t i = 0; i < x.size(); ++i) x[i] *= get(name).values[i] / std::sqrt(mean + h_.norm_epsilon);
    return x;
  }
  Row turned(Row x, size_t position) const {
    const size_t half = h_.head_dim / 2;
    for (size_t head = 0; head < x.size() / h_.head_dim; ++head) {
      for (size_t i = 0; i < half; ++i) {
        const double exponent = static_cast<double>(i) / static_cast<double>(half);
        double angle = static_cast<double>(position) / std::pow(h_.rope_theta, exponent);
        if (h_.rope_scaling.kind == RopeScalingKind::linear) angle /= h_.rope_scaling.factor;
        double& a = x[head * h_.head_dim + i];
        double& b = x[head * h_.head_dim + i + half];
        const double first = a * std::cos(angle) - b * std::sin(angle);
        b = b * std::cos(angle) + a * std::sin(angle);
        a = first;
      }
    }
    return x;
  }
  Row attend(const Row& q, const std::vector<Row>& k, const std::vector<Row>& v, size_t last) const {
    const size_t d = h_.head_dim;
    Row out(q.size(), 0.0);
    for (size_t head = 0; head < h_.query_heads; ++head) {
      const size_t kv = head * h_.kv_heads / h_.query_heads;
      Row scores;
      for (size_t p = 0; p <= last; ++p) {
        double dot = 0;
        for (size_t i = 0; i < d; ++i) dot += q[head * d + i] * k[p][kv * d + i];
        scores.push_back(dot / std::sqrt(static_cast<double>(d)));
      }
      const double largest = *std::max_element(scores.begin(), scores.end());
      double total = 0;
      for (double& score : scores) total += score = std::exp(score - largest);
      for (size_t p = 0; p <= last; ++p) {
        for (size_t i = 0; i < d; ++i) out[head * d + i] += scores[p] / total * v[p][kv * d + i];
      }
    }
    return out;
  }

  const SmallModel& model_;
  const Hyperparameters& h_;
};

// The built graph on the reference backend, one sequence in one run.
std::vector<float> run_graph(const SmallModel& model, const Hyperparameters& h,
                             const std::vector<uint32_t>& tokens) {
  rig::OpCase test;
  test.name = h.family;
  test.graph = build_graph(*model.file);
  for (const Weight& weight : test.graph.weights) test.weights.push_back(model.tensors.at(weight.name));
  test.kv = {h.layers, h.kv_heads, h.head_dim, 16, 0};
  test.pages = 1;
  test.limits = {tokens.size(), 1};
  test.runs = {{tokens, {{tokens.size(), 0, {0}}}, {static_cast<uint32_t>(tokens.size() - 1)}}};
  const std::unique_ptr<Backend> backend = make_reference_backend();
  return rig::run_case(*backend, test);
}

}  // namespace

TEST_CASE("RoPE frequencies, plain and scaled, match constants computed with 40 digits") {
  const RopeScaling none;
  std::vector<double> found = rope_inverse_frequencies(64, 500000, none);
  REQUIRE(found.size() == 32);
  CHECK(found[0] == 1.0);
  CHECK(found[1] == doctest::Approx(0.66360123769608848).epsilon(1e-14));
  CHECK(found[31] == doctest::Approx(3.0138581521391712e-06).epsilon(1e-14));

  const RopeScaling linear = {RopeScalingKind::linear, 4.0, 1, 4, 0};
  found = rope_inverse_frequencies(16, 10000, linear);
  const std::vector<double> quarter = {0.25,   0.079056941504209485,   0.025,   0.0079056941504209478,
                                       0.0025, 0.00079056941504209485, 0.00025, 7.9056941504209485e-05};
  REQUIRE(found.size() == quarter.size());
  for (size_t i = 0; i < quarter.size(); ++i) CHECK(found[i] == doctest::Approx(quarter[i]).epsilon(1e-14));

  // Llama 3.2 1B: heads of 64, factor 32, 8192 positions; pairs 0 to 14 stay, 15 to 17 blend, the rest slow
  // down.
  const RopeScaling llama32 = {RopeScalingKind::llama3, 32.0, 1.0, 4.0, 8192};
  found = rope_inverse_frequencies(64, 500000, llama32);
  const std::map<size_t, double> expected32 = {{0, 1},
                                               {1, 0.66360123769608848},
                                               {7, 0.05666962144529105},
                                               {14, 0.0032114459947525909},
                                               {15, 0.0012905479282092638},
                                               {16, 0.00042955679655936821},
                                               {17, 9.7082878026276729e-05},
                                               {18, 1.9461638184831125e-05},
                                               {19, 1.2914767187047391e-05},
                                               {24, 1.6619674677953088e-06},
                                               {31, 9.41830672543491e-08}};
  for (const auto& [i, value] : expected32) CHECK(found[i] == doctest::Approx(value).epsilon(1e-13));

  // Llama 3.1 8B: heads of 128, factor 8.
  const RopeScaling llama31 = {RopeScalingKind::llama3, 8.0, 1.0, 4.0, 8192};
  found = rope_inverse_frequencies(128, 500000, llama31);
  const std::map<size_t, double> expected31 = {{20, 0.016560440080994446},   {28, 0.0032114459947525909},
                                               {29, 0.0021665707635033587},  {30, 0.0013718935677611381},
                                               {33, 0.00031269375038406512}, {35, 9.5562123539646833e-05},
                                               {40, 3.4281021959525912e-05}, {63, 3.0689259889145111e-07}};
  for (const auto& [i, value] : expected31) CHECK(found[i] == doctest::Approx(value).epsilon(1e-13));

  // YaRN as the card of Qwen2.5 7B has it: heads of 128, pairs 23 to 40 blend.
  RopeScaling yarn = {RopeScalingKind::yarn, 4.0};
  yarn.original_context = 32768;
  found = rope_inverse_frequencies(128, 1e6, yarn);
  const std::map<size_t, double> expected_yarn = {{0, 1},
                                                  {1, 0.80584218776148182},
                                                  {22, 0.0086596432336006535},
                                                  {23, 0.0069783058485986634},
                                                  {24, 0.0053753214907901015},
                                                  {30, 0.0010643609812470018},
                                                  {39, 6.4903943208370288e-5},
                                                  {40, 4.445698525097307e-5},
                                                  {41, 3.5825314255924069e-5},
                                                  {63, 3.1023444018792989e-7}};
  for (const auto& [i, value] : expected_yarn) CHECK(found[i] == doctest::Approx(value).epsilon(1e-13));
  // Bounds between pairs.
  yarn = {RopeScalingKind::yarn, 16.0};
  yarn.original_context = 4096;
  yarn.beta_fast = 16;
  yarn.beta_slow = 2;
  yarn.whole_pairs = false;
  found = rope_inverse_frequencies(64, 10000, yarn);
  const std::map<size_t, double> expected_between = {{8, 0.1},
                                                     {12, 0.031622776601683793},
                                                     {13, 0.023345957124390605},
                                                     {20, 0.00024081103430080767},
                                                     {21, 0.00014821085660385345},
                                                     {22, 0.00011114246312743268},
                                                     {31, 8.3345089510207752e-6}};
  for (const auto& [i, value] : expected_between) CHECK(found[i] == doctest::Approx(value).epsilon(1e-13));
}

TEST_CASE("the tensors a family expects") {
  Hyperparameters h = small_llama();
  h.output_bias = true;
  h.layers = 3;
  std::map<std::string, ExpectedTensor> found;
  for (const ExpectedTensor& tensor : expected_tensors(h)) CHECK(found.emplace(tensor.name, tensor).second);
  CHECK(found.size() == 3 + 3 * 10);
  const auto check = [&](const std::string& name, const std::string& source, const std::string& kind,
                         const std::vector<uint64_t>& shape) {
    CAPTURE(name);
    REQUIRE(found.contains(name));
    CHECK(found[name].source.name == source);
    CHECK(role_label(found[name].role) == kind);
    CHECK(found[name].shape == shape);
  };
  check("token_embedding", "model.embed_tokens.weight", "embedding", {50, 40});
  check("output_norm", "model.norm.weight", "norm", {40});
  check("output_head", "lm_head.weight", "head", {50, 40});
  check("layers.2.attention_norm", "model.layers.2.input_layernorm.weight", "norm", {40});
  check("layers.2.q", "model.layers.2.self_attn.q_proj.weight", "q", {64, 40});
  check("layers.0.k", "model.layers.0.self_attn.k_proj.weight", "k", {32, 40});
  check("layers.0.v", "model.layers.0.self_attn.v_proj.weight", "v", {32, 40});
  check("layers.1.o", "model.layers.1.self_attn.o_proj.weight", "o", {40, 64});
  check("layers.1.o_bias", "model.layers.1.self_attn.o_proj.bias", "bias", {40});
  check("layers.1.ffn_norm", "model.layers.1.post_attention_layernorm.weight", "norm", {40});
  check("layers.1.gate", "model.layers.1.mlp.gate_proj.weight", "gate", {72, 40});
  check("layers.1.up", "model.layers.1.mlp.up_proj.weight", "up", {72, 40});
  check("layers.1.down", "model.layers.1.mlp.down_proj.weight", "down", {40, 72});

  std::set<std::string> names;
  for (const ExpectedTensor& tensor : expected_tensors(small_qwen2())) names.insert(tensor.name);
  CHECK(names.contains("layers.1.q_bias"));
  CHECK(names.contains("layers.1.k_bias"));
  CHECK(names.contains("layers.0.v_bias"));
  CHECK(!names.contains("layers.0.o_bias"));
  CHECK(!names.contains("output_head"));
  CHECK(names.size() == 2 + 2 * 12);
}

TEST_CASE("only the head of Baichuan 2, told by its vocabulary, has rows of length 1") {
  Hyperparameters h = small_llama();
  h.family = "baichuan";
  h.tied_head = false;
  h.qkv_bias = h.output_bias = false;
  for (const uint64_t vocabulary : {64000, 125696}) {
    h.vocabulary = vocabulary;
    for (const ExpectedTensor& tensor : expected_tensors(h))
      CHECK(tensor.source.unit_rows == (tensor.role == Role::output_head && vocabulary == 125696));
  }
}

TEST_CASE("hyperparameters that cannot be are refused by field") {
  const std::vector<std::pair<const char*, std::function<void(Hyperparameters&)>>> faults = {
      {", found \"gpt9\"", [](Hyperparameters& h) { h.family = "gpt9"; }},
      {"model.vocabulary", [](Hyperparameters& h) { h.vocabulary = 0; }},
      {"model.hidden", [](Hyperparameters& h) { h.hidden = 0; }},
      {"model.hidden", [](Hyperparameters& h) { h.hidden = uint64_t{1} << 60; }},
      {"model.layers: expected an integer from 1 to 4096, found 0", [](Hyperparameters& h) { h.layers = 0; }},
      {"model.layers", [](Hyperparameters& h) { h.layers = uint64_t{1} << 60; }},
      {"model.query_heads", [](Hyperparameters& h) { h.query_heads = 0; }},
      {"model.query_heads", [](Hyperparameters& h) { h.query_heads = (uint64_t{1} << 60) + 1; }},
      {"model.kv_heads", [](Hyperparameters& h) { h.kv_heads = 0; }},
      {"model.kv_heads", [](Hyperparameters& h) { h.kv_heads = 3; }},
      {"model.kv_heads", [](Hyperparameters& h) { h.kv_heads = 8; }},
      {"model.head_dim", [](Hyperparameters& h) { h.head_dim = 0; }},
      {"model.head_dim", [](Hyperparameters& h) { h.head_dim = 12; }},
      {"model.head_dim", [](Hyperparameters& h) { h.head_dim = uint64_t{1} << 62; }},
      {"model.ffn", [](Hyperparameters& h) { h.ffn = 0; }},
      {"model.context", [](Hyperparameters& h) { h.context = 0; }},
      {"model.norm_epsilon", [](Hyperparameters& h) { h.norm_epsilon = -1; }},
      {"model.norm_epsilon", [](Hyperparameters& h) { h.norm_epsilon = std::nan(""); }},
      {"model.rope_theta", [](Hyperparameters& h) { h.rope_theta = 0; }},
      {"model.rope_theta",
       [](Hyperparameters& h) { h.rope_theta = std::numeric_limits<double>::infinity(); }},
      {"model.rope_scaling.factor",
       [](Hyperparameters& h) {
         h.rope_scaling = {RopeScalingKind::linear, 0.0, 1, 4, 0};
       }},
      {"model.rope_scaling.high_freq_factor",
       [](Hyperparameters& h) {
         h.rope_scaling = {RopeScalingKind::llama3, 8.0, 4, 4, 8192};
       }},
      {"model.rope_scaling.low_freq_factor",
       [](Hyperparameters& h) {
         h.rope_scaling = {RopeScalingKind::llama3, 8.0, 0, 4, 8192};
       }},
      {"model.rope_scaling.original_context",
       [](Hyperparameters& h) {
         h.rope_scaling = {RopeScalingKind::llama3, 8.0, 1, 4, 0};
       }},
      {"model.qkv_bias",
       [](Hyperparameters& h) {
         h.family = "qwen2";
         h.qkv_bias = false;
       }},
      {"model.output_bias",
       [](Hyperparameters& h) {
         h.family = "qwen2";
         h.qkv_bias = true;
         h.output_bias = true;
       }},
  };
  for (const auto& fault : faults) {
    const char* says = fault.first;
    Hyperparameters h = small_llama();
    fault.second(h);
    const std::string line = refused([&] { (void)expected_tensors(h); });
    CAPTURE(line);
    CAPTURE(says);
    CHECK(line.find(says) != std::string::npos);
  }
}

TEST_CASE("graphs fuse norms with residual sums, merge projections and quantize where int8 is read") {
  rig::Random random(7);
  Hyperparameters h = small_llama();
  const SmallModel floats = make_model(random, h, all(Scheme::bf16));
  const Graph graph = build_graph(*floats.file);
  CHECK(check_graph(graph) == "");
  CHECK(outline(graph) ==
        "embed; norm; linear layers.0.q layers.0.k layers.0.v; rope; attention; linear layers.0.o; add+norm; "
        "linear layers.0.gate layers.0.up; gate; linear layers.0.down; "
        "add+norm; linear layers.1.q layers.1.k layers.1.v; rope; attention; linear layers.1.o; add+norm; "
        "linear layers.1.gate layers.1.up; gate; linear layers.1.down; "
        "add+norm selected; linear output_head; ");
  CHECK(graph.tensors[graph.logits].columns == 50);

  h = small_qwen2();
  h.layers = 1;
  const SmallModel codes = make_model(random, h, all(Scheme::w4a8_g128));
  CHECK(outline(build_graph(*codes.file)) ==
        "embed; norm q8; linear layers.0.q+layers.0.q_bias layers.0.k+layers.0.k_bias "
        "layers.0.v+layers.0.v_bias; "
        "rope; attention; quantize q8; linear layers.0.o; add+norm q8; linear layers.0.gate layers.0.up; "
        "gate q8; "
        "linear layers.0.down; add+norm selected q8; linear token_embedding; ");

  // Each matrix decides for its own input.
  h = small_llama();
  h.layers = 1;
  h.output_bias = true;
  const SmallModel mixed = make_model(random, h, [](const ExpectedTensor& tensor) {
    if (tensor.role == Role::o) return Scheme::w4a8;
    if (tensor.role == Role::output_head) return Scheme::w8a8;
    return tensor.role == Role::k ? Scheme::f16 : Scheme::bf16;
  });
  CHECK(outline(build_graph(*mixed.file)) ==
        "embed; norm; linear layers.0.q layers.0.k layers.0.v; rope; attention; quantize q8; "
        "linear layers.0.o+layers.0.o_bias; add+norm; linear layers.0.gate layers.0.up; gate; "
        "linear layers.0.down; add+norm selected q8; linear output_head; ");
}

TEST_CASE("what a matrix reads is put in the order of its columns before it is rounded") {
  rig::Random random(9);
  Hyperparameters h = small_llama();
  h.layers = 2;
  SmallModel model = make_model(random, h, [](const ExpectedTensor& tensor) {
    return tensor.role == Role::o ? Scheme::bf16 : Scheme::w4a8;
  });
  const auto add = [&](Role role, uint64_t layer) {
    const ExpectedTensor order = column_order(h, role, layer).value();
    std::vector<uint32_t> columns(order.shape[0]);
    std::iota(columns.rbegin(), columns.rend(), 0u);
    model.tensors.emplace(order.name, rig::packed_order(order.name, columns));
  };
  for (const Role role : {Role::k, Role::o, Role::gate, Role::down}) add(role, 0);
  add(Role::up, 1);
  const Graph graph = build_graph(*store(h, model.tensors));
  CHECK(outline(graph) ==
        "embed; norm; gather q8; linear layers.0.q layers.0.k layers.0.v; rope; attention; gather; "
        "linear layers.0.o; add+norm; gather q8; linear layers.0.gate layers.0.up; gate; gather q8; "
        "linear layers.0.down; "
        "add+norm q8; linear layers.1.q layers.1.k layers.1.v; rope; attention; linear layers.1.o; add+norm; "
        "gather q8; linear layers.1.gate layers.1.up; gate q8; linear layers.1.down; "
        "add+norm selected q8; linear output_head; ");
  for_each_op<Gather>(graph, [&](const Op& op, const Gather& gather) {
    CHECK(graph.weights[gather.order].scheme == Scheme::u32);
    CHECK(graph.weights[gather.order].columns == graph.tensors[op.outputs[0]].columns);
  });
  for (const Role role : {Role::token_embedding, Role::output_head, Role::q_norm, Role::o_bias})
    CHECK(!column_order(h, role, 0));
}

TEST_CASE("rope covers query and key heads and works in place") {
  rig::Random random(8);
  const SmallModel model = make_model(random, small_llama(), all(Scheme::w8a8));
  const Graph graph = build_graph(*model.file);
  const MemoryPlan plan = plan_memory(graph, {16, 2});
  size_t ropes = 0;
  for (const Op& op : graph.ops) {
    const auto* rope = std::get_if<Rope>(&op.kind);
    if (rope == nullptr) continue;
    ++ropes;
    CHECK(rope->heads == 6);
    CHECK(rope->head_dim == 16);
    CHECK(rope->inverse_frequency.size() == 8);
    CHECK(plan.offset[op.inputs[0]] == plan.offset[op.outputs[0]]);
  }
  CHECK(ropes == 2);
}

TEST_CASE("whole models on the reference backend equal the textbook forward pass") {
  const uint64_t seed = std::random_device{}();
  std::cout << "seed " << seed << "\n";
  rig::Random random(seed);
  Hyperparameters biased = small_llama();
  biased.qkv_bias = true;
  biased.output_bias = true;
  biased.rope_scaling = {RopeScalingKind::linear, 3.0, 1, 4, 0};
  Hyperparameters one = small_llama();
  one.layers = 1;
  one.kv_heads = 4;
  for (const Hyperparameters& h : {small_llama(), small_qwen2(), biased, one}) {
    const SmallModel model = make_model(random, h, all(Scheme::f32));
    std::vector<uint32_t> tokens;
    for (size_t i = 0; i < 9; ++i)
      tokens.push_back(static_cast<uint32_t>(rig::pick(random, 0, h.vocabulary - 1)));
    const std::vector<double> expected = Forward(model, h).logits(tokens);
    const std::vector<float> found = run_graph(model, h, tokens);
    REQUIRE(found.size() == expected.size());
    double largest = 0;
    double worst = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
      largest = std::max(largest, std::abs(expected[i]));
      worst = std::max(worst, std::abs(expected[i] - double{found[i]}));
    }
    CAPTURE(h.family);
    // Keys and values in f16 are the only rounding above float32.
    CHECK(worst < 4e-3 * largest);
    CHECK(worst > 0);
  }
}

TEST_CASE("files whose tensors do not fit their family are refused by name") {
  rig::Random random(9);
  Hyperparameters h = small_llama();
  h.layers = 1;
  SmallModel model = make_model(random, h, all(Scheme::w4a8));
  const auto rebuilt = [&](const std::function<void(std::map<std::string, rig::PackedTensor>&)>& change) {
    std::map<std::string, rig::PackedTensor> tensors = model.tensors;
    change(tensors);
    return refused([&] { (void)build_graph(*store(h, tensors)); });
  };
  CHECK(rebuilt([](auto&) {}) == "");
  for (const auto& [name, tensor] : model.tensors) {
    const std::string line = rebuilt([&, missing = name](auto& tensors) { tensors.erase(missing); });
    CAPTURE(line);
    CHECK(line.find(name) != std::string::npos);
    CHECK(line.find("missing") != std::string::npos);
  }
  // Merged projections share one input, so one matrix cannot take other activations than its neighbours.
  std::string line = rebuilt([&](auto& tensors) {
    tensors.at("layers.0.up") = rig::random_matrix(random, "layers.0.up", Scheme::f16, 72, 40);
  });
  CHECK(line.find("\"layers.0.up\"") != std::string::npos);
  CHECK(line.find("same activations") != std::string::npos);
  line = rebuilt([&](auto& tensors) {
    tensors.at("layers.0.gate") = rig::random_matrix(random, "layers.0.gate", Scheme::w4a8, 72, 41);
  });
  CHECK(line.find("layers.0.gate") != std::string::npos);
  line = rebuilt(
      [&](auto& tensors) { tensors.at("output_norm") = rig::random_vector(random, "output_norm", 41); });
  CHECK(line.find("output_norm") != std::string::npos);
  // Tensors nobody asked for do no harm.
  CHECK(rebuilt([&](auto& tensors) { tensors.emplace("spare", rig::random_vector(random, "spare", 3)); }) ==
        "");

  Hyperparameters unknown = h;
  unknown.family = "gpt9";
  line = refused([&] { (void)build_graph(*store(unknown, model.tensors)); });
  CHECK(line.find("small.tess: model.family") != std::string::npos);
}
