#include "engine/models/decoder.h"

#include <fmt/format.h>

#include <cmath>
#include <unordered_map>
#include <utility>

#include "engine/models/rope_frequencies.h"

namespace tessera {

namespace {

// Limits far beyond real models; they keep every product below 2^60.
constexpr uint64_t kMostLayers = 1024;
constexpr uint64_t kMostColumns = uint64_t{1} << 28;
constexpr uint64_t kMostVocabulary = uint64_t{1} << 28;
constexpr uint64_t kMostContext = uint64_t{1} << 32;

std::string layer_name(uint64_t layer, std::string_view part) {
  return fmt::format("layers.{}.{}", layer, part);
}

// Adds ops one after another; every function returns the tensor it made.
class GraphBuilder {
 public:
  GraphBuilder(const TessFile& file, const std::vector<ExpectedTensor>& expected) : file_(file) {
    for (const ExpectedTensor& tensor : expected) add_weight(tensor);
  }

  WeightId weight(const std::string& name) const { return weights_.at(name); }
  std::optional<WeightId> optional_weight(const std::string& name) const {
    const auto found = weights_.find(name);
    return found == weights_.end() ? std::nullopt : std::optional<WeightId>(found->second);
  }
  // What a projection with this matrix reads.
  ElementType input_type(const std::string& matrix) const {
    return linear_input(graph_.weights[weight(matrix)].scheme);
  }

  TensorId embed(const std::string& table) {
    const TensorId out =
        tensor("embedding", RowExtent::tokens, graph_.weights[weight(table)].columns, ElementType::f32);
    graph_.ops.push_back({"embed", Embed{weight(table)}, {}, {out}});
    return out;
  }

  // The norm of the residual stream; added, when there is one, is summed into the stream first.
  TensorId norm(const std::string& gain, TensorId& residual, std::optional<TensorId> added, float epsilon,
                ElementType type, bool select_rows) {
    const RowExtent rows = select_rows ? RowExtent::outputs : graph_.tensors[residual].rows;
    const size_t columns = graph_.tensors[residual].columns;
    const TensorId out = tensor(gain, rows, columns, type);
    Op op{gain, Norm{weight(gain), epsilon, select_rows}, {residual}, {out}};
    if (added) {
      op.inputs.push_back(*added);
      residual = tensor(gain + ".sum", rows, columns, ElementType::f32);
      op.outputs.push_back(residual);
    }
    graph_.ops.push_back(std::move(op));
    return out;
  }

  // One matrix product whose results lie side by side. parts are tensor names; a bias is found by its name.
  TensorId linear(const std::string& name, TensorId input, const std::vector<std::string>& parts) {
    Linear kind;
    size_t columns = 0;
    for (const std::string& part : parts) {
      if (input_type(part) != input_type(parts.front())) {
        throw FileError(fmt::format(
            "{}: tensor \"{}\": expected a scheme with the same activations as \"{}\" ({}), found {}",
            file_.path(), part, parts.front(), scheme_name(graph_.weights[weight(parts.front())].scheme),
            scheme_name(graph_.weights[weight(part)].scheme)));
      }
      kind.parts.push_back({weight(part), optional_weight(part + "_bias")});
      columns += graph_.weights[weight(part)].rows;
    }
    const TensorId out = tensor(name, graph_.tensors[input].rows, columns, ElementType::f32);
    graph_.ops.push_back({name, std::move(kind), {input}, {out}});
    return out;
  }

  TensorId rope(const std::string& name, TensorId input, size_t heads, size_t head_dim,
                const std::vector<double>& inverse_frequency) {
    const TensorId out = tensor(name, RowExtent::tokens, graph_.tensors[input].columns, ElementType::f32);
    graph_.ops.push_back({name, Rope{heads, head_dim, inverse_frequency}, {input}, {out}});
    return out;
  }

  TensorId attention(const std::string& name, TensorId input, const Attention& kind) {
    const TensorId out = tensor(name, RowExtent::tokens, kind.query_heads * kind.head_dim, ElementType::f32);
    graph_.ops.push_back({name, kind, {input}, {out}});
    return out;
  }

  TensorId gate(const std::string& name, TensorId input, ElementType type) {
    const TensorId out = tensor(name, graph_.tensors[input].rows, graph_.tensors[input].columns / 2, type);
    graph_.ops.push_back({name, Gate{}, {input}, {out}});
    return out;
  }

  // The input itself where its reader takes f32.
  TensorId quantized_for(const std::string& matrix, TensorId input) {
    const ElementType type = input_type(matrix);
    if (type == ElementType::f32) return input;
    const std::string name = matrix + ".input";
    const TensorId out = tensor(name, graph_.tensors[input].rows, graph_.tensors[input].columns, type);
    graph_.ops.push_back({name, Quantize{}, {input}, {out}});
    return out;
  }

  Graph finish(TensorId logits) {
    graph_.logits = logits;
    if (const std::string fault = check_graph(graph_); !fault.empty())
      throw FileError(fmt::format("{}: {}", file_.path(), fault));
    return std::move(graph_);
  }

 private:
  TensorId tensor(std::string name, RowExtent rows, size_t columns, ElementType type) {
    graph_.tensors.push_back({std::move(name), rows, columns, type});
    return static_cast<TensorId>(graph_.tensors.size() - 1);
  }

  void add_weight(const ExpectedTensor& expected) {
    const StoredTensor& stored = file_.require(expected.name);
    if (stored.shape != expected.shape) {
      throw FileError(fmt::format("{}: tensor \"{}\": expected shape [{}], found [{}]", file_.path(),
                                  expected.name, fmt::join(expected.shape, ", "),
                                  fmt::join(stored.shape, ", ")));
    }
    const bool vector = expected.shape.size() == 1;
    if (vector ? stored.scheme != Scheme::f32 : stored.scheme == Scheme::u8 || stored.scheme == Scheme::u32) {
      throw FileError(fmt::format("{}: tensor \"{}\": expected {}, found scheme {}", file_.path(),
                                  expected.name, vector ? "scheme f32" : "a matrix scheme",
                                  scheme_name(stored.scheme)));
    }
    weights_.emplace(expected.name, static_cast<WeightId>(graph_.weights.size()));
    graph_.weights.push_back({stored.name, stored.scheme, stored.rows(), stored.columns()});
  }

  const TessFile& file_;
  Graph graph_;
  std::unordered_map<std::string, WeightId> weights_;
};

void check_range(const std::string& source, const char* field, uint64_t found, uint64_t most) {
  if (found >= 1 && found <= most) return;
  throw FileError(fmt::format("{}: model.{}: expected 1 to {}, found {}", source, field, most, found));
}

void check_positive(const std::string& source, const char* field, double found) {
  if (std::isfinite(found) && found > 0) return;
  throw FileError(fmt::format("{}: model.{}: expected a positive number, found {}", source, field, found));
}

}  // namespace

void check_decoder(const Hyperparameters& h, const std::string& source) {
  check_range(source, "vocabulary", h.vocabulary, kMostVocabulary);
  check_range(source, "hidden", h.hidden, kMostColumns);
  check_range(source, "query_heads", h.query_heads, kMostColumns);
  check_range(source, "kv_heads", h.kv_heads, h.query_heads);
  check_range(source, "head_dim", h.head_dim, kMostColumns / h.query_heads);
  check_range(source, "ffn", h.ffn, kMostColumns);
  check_range(source, "context", h.context, kMostContext);
  if (h.layers > kMostLayers)
    throw FileError(
        fmt::format("{}: model.layers: expected at most {}, found {}", source, kMostLayers, h.layers));
  if (h.query_heads % h.kv_heads != 0)
    throw FileError(fmt::format("{}: model.kv_heads: expected a divisor of query_heads ({}), found {}",
                                source, h.query_heads, h.kv_heads));
  if (h.head_dim % 8 != 0)
    throw FileError(
        fmt::format("{}: model.head_dim: expected a multiple of 8, found {}", source, h.head_dim));
  if (!std::isfinite(h.norm_epsilon) || h.norm_epsilon < 0 || h.norm_epsilon > 1)
    throw FileError(fmt::format("{}: model.norm_epsilon: expected 0 to 1, found {}", source, h.norm_epsilon));
  check_positive(source, "rope_theta", h.rope_theta);
  const RopeScaling& scaling = h.rope_scaling;
  if (scaling.kind != RopeScalingKind::none) check_positive(source, "rope_scaling.factor", scaling.factor);
  if (scaling.kind == RopeScalingKind::llama3) {
    check_positive(source, "rope_scaling.low_freq_factor", scaling.low_freq_factor);
    check_positive(source, "rope_scaling.high_freq_factor", scaling.high_freq_factor);
    check_range(source, "rope_scaling.original_context", scaling.original_context, kMostContext);
    if (scaling.high_freq_factor <= scaling.low_freq_factor)
      throw FileError(fmt::format(
          "{}: model.rope_scaling.high_freq_factor: expected more than low_freq_factor ({}), found {}",
          source, scaling.low_freq_factor, scaling.high_freq_factor));
  }
}

std::vector<ExpectedTensor> decoder_tensors(const Hyperparameters& h, const DecoderBiases& biases) {
  const uint64_t query = h.query_heads * h.head_dim;
  const uint64_t key = h.kv_heads * h.head_dim;
  std::vector<ExpectedTensor> tensors;
  tensors.push_back({"token_embedding", "model.embed_tokens.weight", "embedding", {h.vocabulary, h.hidden}});
  for (uint64_t layer = 0; layer < h.layers; ++layer) {
    const auto add = [&](const std::string& name, const std::string& source, const char* kind,
                         std::vector<uint64_t> shape) {
      tensors.push_back({layer_name(layer, name), fmt::format("model.layers.{}.{}", layer, source), kind,
                         std::move(shape)});
    };
    add("attention_norm", "input_layernorm.weight", "norm", {h.hidden});
    add("q", "self_attn.q_proj.weight", "q", {query, h.hidden});
    add("k", "self_attn.k_proj.weight", "k", {key, h.hidden});
    add("v", "self_attn.v_proj.weight", "v", {key, h.hidden});
    if (biases.query_key_value) {
      add("q_bias", "self_attn.q_proj.bias", "bias", {query});
      add("k_bias", "self_attn.k_proj.bias", "bias", {key});
      add("v_bias", "self_attn.v_proj.bias", "bias", {key});
    }
    add("o", "self_attn.o_proj.weight", "o", {h.hidden, query});
    if (biases.attention_output) add("o_bias", "self_attn.o_proj.bias", "bias", {h.hidden});
    add("ffn_norm", "post_attention_layernorm.weight", "norm", {h.hidden});
    add("gate", "mlp.gate_proj.weight", "gate", {h.ffn, h.hidden});
    add("up", "mlp.up_proj.weight", "up", {h.ffn, h.hidden});
    add("down", "mlp.down_proj.weight", "down", {h.hidden, h.ffn});
  }
  tensors.push_back({"output_norm", "model.norm.weight", "norm", {h.hidden}});
  if (!h.tied_head) tensors.push_back({"output_head", "lm_head.weight", "head", {h.vocabulary, h.hidden}});
  return tensors;
}

Graph decoder_graph(const TessFile& file, const DecoderBiases& biases) {
  const Hyperparameters& h = file.header().hyperparameters;
  GraphBuilder builder(file, decoder_tensors(h, biases));
  const float epsilon = static_cast<float>(h.norm_epsilon);
  const size_t query_heads = static_cast<size_t>(h.query_heads);
  const size_t kv_heads = static_cast<size_t>(h.kv_heads);
  const size_t head_dim = static_cast<size_t>(h.head_dim);
  const float scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_dim)));
  const std::vector<double> frequencies = rope_inverse_frequencies(head_dim, h.rope_theta, h.rope_scaling);

  TensorId residual = builder.embed("token_embedding");
  std::optional<TensorId> added;  // what the previous half-layer contributes to the residual stream
  for (uint64_t layer = 0; layer < h.layers; ++layer) {
    const auto name = [&](std::string_view part) { return layer_name(layer, part); };
    TensorId x =
        builder.norm(name("attention_norm"), residual, added, epsilon, builder.input_type(name("q")), false);
    x = builder.linear(name("qkv"), x, {name("q"), name("k"), name("v")});
    x = builder.rope(name("rope"), x, query_heads + kv_heads, head_dim, frequencies);
    x = builder.attention(name("attention"), x,
                          {static_cast<size_t>(layer), query_heads, kv_heads, head_dim, scale});
    added = builder.linear(name("o"), builder.quantized_for(name("o"), x), {name("o")});
    x = builder.norm(name("ffn_norm"), residual, added, epsilon, builder.input_type(name("gate")), false);
    x = builder.linear(name("gate_up"), x, {name("gate"), name("up")});
    x = builder.gate(name("gated"), x, builder.input_type(name("down")));
    added = builder.linear(name("down"), x, {name("down")});
  }
  const std::string head = h.tied_head ? "token_embedding" : "output_head";
  const TensorId x = builder.norm("output_norm", residual, added, epsilon, builder.input_type(head), true);
  return builder.finish(builder.linear("logits", x, {head}));
}

}  // namespace tessera
