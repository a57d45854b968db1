// The graph's own rules: a sound graph passes, every kind of unsoundness is named, and the dot text shows it
// all.
#include "graph/graph.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "graph/op_weights.h"

using namespace tessera;

namespace {

// Tensor ids of the sample graph, in the order they are added.
enum : TensorId {
  kX,
  kNormed,
  kQkv,
  kRotated,
  kAttended,
  kQuantized,
  kO,
  kPicked,
  kSum,
  kGateUp,
  kGated,
  kLogits
};
enum : WeightId { kTable, kGain, kWq, kWk, kWv, kBias, kWo, kWgate, kHead };
enum : size_t {
  kEmbedOp,
  kNormOp,
  kQkvOp,
  kRopeOp,
  kAttentionOp,
  kQuantizeOp,
  kOOp,
  kPickOp,
  kGateUpOp,
  kGateOp,
  kHeadOp
};

// One of everything: 2 query heads and 1 kv head of 8 over 24 hidden columns, 40 words.
Graph sample() {
  Graph graph;
  const auto t = RowExtent::tokens;
  const auto o = RowExtent::outputs;
  const auto f = ElementType::f32;
  const auto q = ElementType::q8;
  graph.tensors = {{"x", t, 24, f},       {"normed", t, 24, f},   {"qkv", t, 32, f},
                   {"rotated", t, 32, f}, {"attended", t, 16, f}, {"quantized", t, 16, q},
                   {"o", t, 24, f},       {"picked", o, 24, q},   {"sum", o, 24, f},
                   {"gate_up", o, 20, f}, {"gated", o, 10, q},    {"logits", o, 40, f}};
  graph.weights = {
      {"table", Scheme::f16, 40, 24}, {"gain", Scheme::f32, 1, 24},    {"wq", Scheme::bf16, 16, 24},
      {"wk", Scheme::f16, 8, 24},     {"wv", Scheme::f32, 8, 24},      {"bias", Scheme::f32, 1, 8},
      {"wo", Scheme::w4a8, 24, 16},   {"wgate", Scheme::w8a8, 20, 24}, {"head", Scheme::w4a8_g128, 40, 10}};
  graph.ops = {{"embed", Embed{kTable}, {}, {kX}},
               {"norm", Norm{kGain, 1e-5f, false}, {kX}, {kNormed}},
               {"qkv", Linear{{{kWq, {}}, {kWk, kBias}, {kWv, kBias}}}, {kNormed}, {kQkv}},
               {"rope", Rope{3, 8, {1.0, 0.1, 0.01, 0.001}}, {kQkv}, {kRotated}},
               {"attention", Attention{0, 2, 1, 8, 0.35f}, {kRotated}, {kAttended}},
               {"quantize", Quantize{}, {kAttended}, {kQuantized}},
               {"o", Linear{{{kWo, {}}}}, {kQuantized}, {kO}},
               {"pick", Norm{kGain, 1e-5f, true}, {kX, kO}, {kPicked, kSum}},
               {"gate_up", Linear{{{kWgate, {}}}}, {kPicked}, {kGateUp}},
               {"gate", Gate{}, {kGateUp}, {kGated}},
               {"head", Linear{{{kHead, {}}}}, {kGated}, {kLogits}}};
  graph.logits = kLogits;
  return graph;
}

template <class Kind>
Kind& kind(Graph& graph, size_t op) {
  return std::get<Kind>(graph.ops[op].kind);
}

}  // namespace

TEST_CASE("a sound graph has no fault") {
  CHECK(check_graph(sample()) == "");
  // The smallest graph there can be.
  Graph graph;
  graph.tensors = {{"x", RowExtent::tokens, 3, ElementType::f32},
                   {"y", RowExtent::outputs, 3, ElementType::f32}};
  graph.weights = {{"table", Scheme::f32, 5, 3}, {"gain", Scheme::f32, 1, 3}};
  graph.ops = {{"embed", Embed{0}, {}, {0}}, {"norm", Norm{1, 0.0f, true}, {0}, {1}}};
  graph.logits = 1;
  CHECK(check_graph(graph) == "");
}

TEST_CASE("every unsoundness is named with its op") {
  struct Fault {
    const char* op;    // must be in the line
    const char* says;  // and this
    std::function<void(Graph&)> change;
  };
  constexpr size_t kHuge = std::numeric_limits<size_t>::max();
  const std::vector<Fault> faults = {
      {"\"x\"", "no columns", [](Graph& g) { g.tensors[kX].columns = 0; }},
      {"\"x\"", "columns", [](Graph& g) { g.tensors[kX].columns = kHuge; }},
      {"\"wq\"", "[0, 24]", [](Graph& g) { g.weights[kWq].rows = 0; }},
      {"\"embed\"", "does not exist", [](Graph& g) { g.ops[kEmbedOp].outputs[0] = 99; }},
      {"\"embed\"", "weight id 99", [](Graph& g) { kind<Embed>(g, kEmbedOp).table = 99; }},
      {"\"embed\"", "no matrix", [](Graph& g) { g.weights[kTable].scheme = Scheme::u8; }},
      {"\"embed\"", "\"x\" should be", [](Graph& g) { g.weights[kTable].columns = 23; }},
      {"\"embed\"", "inputs", [](Graph& g) { g.ops[kEmbedOp].outputs.clear(); }},
      {"\"norm\"", "before any op writes", [](Graph& g) { g.ops[kNormOp].inputs[0] = kO; }},
      {"\"norm\"", "written twice", [](Graph& g) { g.ops[kNormOp].outputs[0] = kX; }},
      {"\"norm\"", "does not exist", [](Graph& g) { g.ops[kNormOp].inputs[0] = 99; }},
      {"\"norm\"", "epsilon",
       [](Graph& g) { kind<Norm>(g, kNormOp).epsilon = std::numeric_limits<float>::quiet_NaN(); }},
      {"\"norm\"", "\"wk\" should be f32", [](Graph& g) { kind<Norm>(g, kNormOp).gain = kWk; }},
      {"\"norm\"", "\"bias\" should have 24", [](Graph& g) { kind<Norm>(g, kNormOp).gain = kBias; }},
      {"\"norm\"", "[outputs, 24]", [](Graph& g) { kind<Norm>(g, kNormOp).select_rows = true; }},
      {"\"pick\"", "[tokens, 24]", [](Graph& g) { kind<Norm>(g, kPickOp).select_rows = false; }},
      {"\"pick\"", "1 inputs and 1 outputs", [](Graph& g) { g.ops[kPickOp].inputs.pop_back(); }},
      {"\"pick\"", "2 inputs and 2 outputs", [](Graph& g) { g.ops[kPickOp].outputs.pop_back(); }},
      {"\"pick\"", "\"sum\" should be f32", [](Graph& g) { g.tensors[kSum].type = ElementType::q8; }},
      {"\"qkv\"", "no weight", [](Graph& g) { kind<Linear>(g, kQkvOp).parts.clear(); }},
      {"\"qkv\"", "\"wk\" has 23 columns", [](Graph& g) { g.weights[kWk].columns = 23; }},
      {"\"qkv\"", "takes q8", [](Graph& g) { g.weights[kWv].scheme = Scheme::w8a8; }},
      {"\"o\"", "takes f32", [](Graph& g) { g.weights[kWo].scheme = Scheme::bf16; }},
      {"\"qkv\"", "\"bias\" should have 16",
       [](Graph& g) { kind<Linear>(g, kQkvOp).parts[0].bias = WeightId{kBias}; }},
      {"\"qkv\"", "weight id 77", [](Graph& g) { kind<Linear>(g, kQkvOp).parts[1].bias = WeightId{77}; }},
      {"\"qkv\"", "\"qkv\" should be [tokens, 31]", [](Graph& g) { g.weights[kWq].rows = 15; }},
      {"\"qkv\"", "too many output columns", [](Graph& g) { g.weights[kWq].rows = kHuge; }},
      {"\"rope\"", "do not fit", [](Graph& g) { kind<Rope>(g, kRopeOp).heads = 5; }},
      {"\"rope\"", "do not fit", [](Graph& g) { kind<Rope>(g, kRopeOp).heads = kHuge / 4; }},
      {"\"rope\"", "frequencies", [](Graph& g) { kind<Rope>(g, kRopeOp).inverse_frequency.push_back(1); }},
      {"\"rope\"", "not finite",
       [](Graph& g) {
         kind<Rope>(g, kRopeOp).inverse_frequency[1] = std::numeric_limits<double>::infinity();
       }},
      {"\"attention\"", "multiple of 8", [](Graph& g) { kind<Attention>(g, kAttentionOp).head_dim = 4; }},
      {"\"attention\"", "multiple of 8", [](Graph& g) { kind<Attention>(g, kAttentionOp).head_dim = 0; }},
      {"\"attention\"", "share", [](Graph& g) { kind<Attention>(g, kAttentionOp).kv_heads = 0; }},
      {"\"attention\"", "share",
       [](Graph& g) {
         kind<Attention>(g, kAttentionOp).query_heads = 3;
         kind<Attention>(g, kAttentionOp).kv_heads = 2;
       }},
      {"\"attention\"", "should be", [](Graph& g) { kind<Attention>(g, kAttentionOp).head_dim = 16; }},
      {"\"attention\"", "too many",
       [](Graph& g) { kind<Attention>(g, kAttentionOp).query_heads = kHuge / 2; }},
      {"\"attention\"", "scale",
       [](Graph& g) { kind<Attention>(g, kAttentionOp).scale = std::numeric_limits<float>::infinity(); }},
      {"\"quantize\"", "\"quantized\" should be q8",
       [](Graph& g) { g.tensors[kQuantized].type = ElementType::f32; }},
      {"\"quantize\"", "should be [tokens, 16]", [](Graph& g) { g.tensors[kQuantized].columns = 15; }},
      {"\"gate\"", "should be [outputs, 22]", [](Graph& g) { g.tensors[kGated].columns = 11; }},
      {"\"gate\"", "should be [outputs, 10]", [](Graph& g) { g.tensors[kGated].rows = RowExtent::tokens; }},
      {"\"head\"", "should be [outputs, 40]", [](Graph& g) { g.tensors[kLogits].columns = 41; }},
      {"logits", "should be [outputs", [](Graph& g) { g.logits = kO; }},
      {"logits", "should be f32", [](Graph& g) { g.logits = kPicked; }},
      {"logits", "does not exist", [](Graph& g) { g.logits = 99; }},
      {"\"logits\"", "no op writes", [](Graph& g) { g.ops.pop_back(); }},
      {"\"spare\"", "no op writes",
       [](Graph& g) {
         g.tensors.push_back({"spare", RowExtent::tokens, 1, ElementType::f32});
       }},
      {"\"again\"", "layer 0 already",
       [](Graph& g) {
         g.tensors.push_back({"again", RowExtent::tokens, 16, ElementType::f32});
         g.ops.push_back({"again", Attention{0, 2, 1, 8, 0.35f}, {kRotated}, {kLogits + 1}});
       }},
  };
  for (const Fault& fault : faults) {
    Graph graph = sample();
    fault.change(graph);
    const std::string line = check_graph(graph);
    CAPTURE(line);
    CAPTURE(fault.says);
    CHECK(line.find(fault.op) != std::string::npos);
    CHECK(line.find(fault.says) != std::string::npos);
    CHECK(line.find('\n') == std::string::npos);
  }
}

TEST_CASE("a matrix wider than the whole-number sums of its scheme is refused") {
  const auto fault = [](Scheme scheme, size_t columns) {
    Graph graph;
    graph.tensors = {{"x", RowExtent::tokens, columns, ElementType::f32},
                     {"picked", RowExtent::outputs, columns, linear_input(scheme)},
                     {"y", RowExtent::outputs, 3, ElementType::f32}};
    graph.weights = {{"gain", Scheme::f32, 1, columns}, {"down", scheme, 3, columns}};
    graph.ops = {{"x", Input{}, {}, {0}},
                 {"pick", Norm{0, 1e-5f, true}, {0}, {1}},
                 {"down", Linear{{{1, {}}}}, {1}, {2}}};
    graph.logits = 2;
    return check_graph(graph);
  };
  for (const Scheme scheme : matrix_schemes()) {
    CAPTURE(scheme_name(scheme));
    const size_t most = most_summed_columns(scheme);
    CHECK(fault(scheme, has_row_scales(scheme) ? most : size_t{1} << 24) == "");
    if (has_row_scales(scheme)) CHECK(fault(scheme, most + 1).find("at most") != std::string::npos);
  }
  CHECK(
      fault(Scheme::w8a8, 132105) ==
      "op \"down\" (linear): weight \"down\" (w8a8) has 132105 columns, its 32-bit sums hold at most 132104");
}

TEST_CASE("a gather takes floats and an order of as many columns") {
  const auto fault = [](ElementType in, ElementType out, const Weight& order, size_t columns) {
    Graph graph;
    graph.tensors = {{"x", RowExtent::tokens, 24, ElementType::f32},
                     {"in", RowExtent::tokens, 24, in},
                     {"out", RowExtent::tokens, columns, out},
                     {"y", RowExtent::outputs, 24, ElementType::f32}};
    graph.weights = {order, {"gain", Scheme::f32, 1, 24}};
    graph.ops = {
        {"x", Input{}, {}, {0}},
        in == ElementType::f32 ? Op{"in", Norm{1, 1e-5f, false}, {0}, {1}} : Op{"in", Quantize{}, {0}, {1}},
        {"turn", Gather{0}, {1}, {2}},
        {"pick", Norm{1, 1e-5f, true}, {0}, {3}}};
    graph.logits = 3;
    return check_graph(graph);
  };
  const Weight order = {"order", Scheme::u32, 1, 24};
  for (const ElementType type : {ElementType::f32, ElementType::q8, ElementType::bf16})
    CHECK(fault(ElementType::f32, type, order, 24) == "");
  const std::string op = "op \"turn\" (gather): ";
  CHECK(fault(ElementType::q8, ElementType::q8, order, 24) == op + "\"in\" should be f32 and is q8");
  CHECK(fault(ElementType::f32, ElementType::q8, order, 23) ==
        op + "\"out\" should be [tokens, 24] and is [tokens, 23]");
  CHECK(fault(ElementType::f32, ElementType::q8, {"order", Scheme::f32, 1, 24}, 24) ==
        op + "vector \"order\" should be u32 and is f32");
  CHECK(fault(ElementType::f32, ElementType::q8, {"order", Scheme::u32, 1, 25}, 24) ==
        op + "vector \"order\" should have 24 entries and is [1, 25]");
}

TEST_CASE("an empty graph is not sound") { CHECK(check_graph(Graph{}) != ""); }

TEST_CASE("every op has a name") {
  std::string names;
  for (const Op& op : sample().ops) names += std::string(op_name(op.kind)) + " ";
  CHECK(names == "embed norm linear rope attention quantize linear norm linear gate linear ");
}

TEST_CASE("the weights of an op are visited in its order, and can be changed") {
  Graph graph = sample();
  const auto weights_of = [](const Op& op) {
    std::vector<std::pair<WeightId, WeightRole>> found;
    for_each_weight(op, [&](WeightId id, WeightRole role) { found.emplace_back(id, role); });
    return found;
  };
  using Found = std::vector<std::pair<WeightId, WeightRole>>;
  CHECK(weights_of(graph.ops[kEmbedOp]) == Found{{kTable, WeightRole::table}});
  CHECK(weights_of(graph.ops[kNormOp]) == Found{{kGain, WeightRole::vector}});
  CHECK(weights_of(graph.ops[kQkvOp]) == Found{{kWq, WeightRole::matrix},
                                               {kWk, WeightRole::matrix},
                                               {kBias, WeightRole::vector},
                                               {kWv, WeightRole::matrix},
                                               {kBias, WeightRole::vector}});
  for (const size_t op : {kRopeOp, kAttentionOp, kQuantizeOp, kGateOp})
    CHECK(weights_of(graph.ops[op]).empty());
  for_each_weight(graph.ops[kQkvOp], [](WeightId& id, WeightRole) { id += 100; });
  CHECK(weights_of(graph.ops[kQkvOp]).back().first == kBias + 100);
  size_t linear_ops = 0;
  for_each_op<Linear>(graph, [&](const Op& op, const Linear& linear) {
    CHECK(&std::get<Linear>(op.kind) == &linear);
    ++linear_ops;
  });
  CHECK(linear_ops == 4);
}

TEST_CASE("the dot text has a node per op, an edge per read, shapes and weights") {
  Graph graph = sample();
  graph.ops[kNormOp].name = "a \"quoted\\ name";
  const std::string dot = graph_to_dot(graph);
  const auto count = [&](const std::string& what) {
    size_t found = 0;
    for (size_t at = dot.find(what); at != std::string::npos; at = dot.find(what, at + 1)) ++found;
    return found;
  };
  CHECK(dot.rfind("digraph", 0) == 0);
  CHECK(count(" -> ") == 13);  // 11 reads by ops, the tokens and the logits
  for (size_t op = 0; op < graph.ops.size(); ++op)
    CHECK(count("  op" + std::to_string(op) + " [label=") == 1);
  CHECK(count("  op0 -> op7 [label=\"x\\nf32 [tokens, 24]\"]") == 1);
  CHECK(count("quantized\\nq8 [tokens, 16]") == 1);
  CHECK(count("head w4a8-g128 [40, 10]") == 1);
  CHECK(count("bias f32 [1, 8]") == 2);
  CHECK(count("3 heads of 8, 8 rotated") == 1);
  CHECK(count("2 query and 1 kv heads of 8") == 1);
  CHECK(count("a \\\"quoted\\\\ name") == 1);
  CHECK(count("op10 -> logits") == 1);
}

TEST_CASE("an input op takes the place of the embedding, and comes first") {
  Graph graph = sample();
  CHECK(input_columns(graph) == 0);
  graph.ops[kEmbedOp] = {"input", Input{}, {}, {kX}};
  CHECK(check_graph(graph) == "");
  CHECK(input_columns(graph) == 24);
  CHECK(graph_to_dot(graph).find("input -> op0") != std::string::npos);
  graph.tensors.push_back({"more", RowExtent::tokens, 24, ElementType::f32});
  graph.ops.push_back({"second", Input{}, {}, {kLogits + 1}});
  CHECK(check_graph(graph) == "op \"second\" (input): only the first op can be an input");
  graph.ops.pop_back();
  graph.tensors.back().type = ElementType::q8;
  graph.ops[kEmbedOp].outputs = {kLogits + 1};
  CHECK(check_graph(graph).find("should be f32 and is q8") != std::string::npos);
}

TEST_CASE("norms of heads are checked and work in place") {
  Graph graph;
  graph.tensors = {{"x", RowExtent::tokens, 72, ElementType::f32},
                   {"y", RowExtent::tokens, 72, ElementType::f32},
                   {"logits", RowExtent::outputs, 72, ElementType::f32}};
  graph.weights = {{"table", Scheme::f32, 10, 72},
                   {"query", Scheme::f32, 1, 24},
                   {"key", Scheme::f32, 1, 24},
                   {"gain", Scheme::f32, 1, 72}};
  graph.ops = {{"embed", Embed{0}, {}, {0}},
               {"heads", HeadNorm{1, 2, 2, 1, 24, 1e-6f}, {0}, {1}},
               {"pick", Norm{3, 1e-5f, true}, {1}, {2}}};
  graph.logits = 2;
  CHECK(check_graph(graph) == "");
  CHECK(can_work_in_place(graph.ops[1].kind));
  CHECK(std::string(op_name(graph.ops[1].kind)) == "head_norm");
  const auto fault = [&](const std::function<void(Graph&)>& spoil) {
    Graph broken = graph;
    spoil(broken);
    return check_graph(broken);
  };
  const auto spoiled = [&](const std::function<void(HeadNorm&)>& spoil) {
    return fault([&](Graph& g) { spoil(std::get<HeadNorm>(g.ops[1].kind)); });
  };
  CHECK(spoiled([](HeadNorm& norm) { norm.kv_heads = 2; }).find("do not fit 72 columns") !=
        std::string::npos);
  CHECK(spoiled([](HeadNorm& norm) { norm.query_heads = SIZE_MAX; }).find("do not fit") != std::string::npos);
  CHECK(spoiled([](HeadNorm& norm) { norm.head_dim = 0; }).find("do not fit") != std::string::npos);
  CHECK(spoiled([](HeadNorm& norm) { norm.head_dim = 16; }).find("\"query\" should have 16") !=
        std::string::npos);
  CHECK(spoiled([](HeadNorm& norm) { norm.key_gain = 9; }).find("9 does not exist") != std::string::npos);
  CHECK(spoiled([](HeadNorm& norm) { norm.key_gain = 3; }).find("\"gain\"") != std::string::npos);
  CHECK(spoiled([](HeadNorm& norm) { norm.epsilon = -1; }).find("epsilon") != std::string::npos);
  CHECK(fault([](Graph& g) { g.ops[1].outputs.clear(); }).find("1 outputs, found") != std::string::npos);
  CHECK(fault([](Graph& g) { std::get<Embed>(g.ops[0].kind).multiplier = INFINITY; }).find("multiplier") !=
        std::string::npos);
  CHECK(fault([](Graph& g) { std::get<Norm>(g.ops[2].kind).added_multiplier = NAN; }).find("multiplier") !=
        std::string::npos);
}
