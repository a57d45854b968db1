#include "engine/models/decoder_graph.h"

#include <fmt/format.h>

#include <initializer_list>
#include <map>
#include <optional>
#include <utility>

#include "gguf-like-format/file_error.h"

namespace tessera {

namespace {

// The bias that is added to the products of a role's matrix, or to what a norm gives.
std::optional<Role> bias_of(Role role) {
  switch (role) {
    case Role::q:
      return Role::q_bias;
    case Role::k:
      return Role::k_bias;
    case Role::v:
      return Role::v_bias;
    case Role::o:
      return Role::o_bias;
    case Role::up:
      return Role::up_bias;
    case Role::down:
      return Role::down_bias;
    case Role::attention_norm:
      return Role::attention_norm_bias;
    case Role::ffn_norm:
      return Role::ffn_norm_bias;
    case Role::output_norm:
      return Role::output_norm_bias;
    default:
      return std::nullopt;
  }
}

// Adds ops one after another; every function returns the tensor it made.
class GraphBuilder {
 public:
  GraphBuilder(const DecoderDescription& description, const std::vector<DecoderTensor>& tensors,
               const std::string& source)
      : d_(description), source_(source) {
    for (const DecoderTensor& tensor : tensors) {
      weights_.emplace(std::pair{tensor.role, tensor.layer}, static_cast<WeightId>(graph_.weights.size()));
      graph_.weights.push_back({tensor.name, tensor.scheme, tensor.rows, tensor.columns});
    }
  }

  void set_layer(size_t layer) { layer_ = layer; }  // that roles in layers are meant of from now on
  std::string layer_name(std::string_view part) const { return fmt::format("layers.{}.{}", layer_, part); }

  // What a projection with this role's matrix reads.
  ElementType input_type(Role role) const { return linear_input(weight(role).scheme); }
  // What an op makes for it: floats where the columns are still to be put in order or rotated. Rounding comes
  // after that, because sums of a rounded row's groups belong to the order of its columns.
  ElementType made_type(Role reader) const {
    const bool rotated = d_.rotated_table && reader == Role::token_embedding;
    return order(reader) || rotated ? ElementType::f32 : input_type(reader);
  }

  TensorId embed() {
    const TensorId out =
        tensor("embedding", RowExtent::tokens, weight(Role::token_embedding).columns, ElementType::f32);
    graph_.ops.push_back({"embed", Embed{id(Role::token_embedding), d_.embedding_multiplier}, {}, {out}});
    return out;
  }

  TensorId add_position(TensorId x) {
    const TensorId out = tensor("positioned", RowExtent::tokens, graph_.tensors[x].columns, ElementType::f32);
    graph_.ops.push_back({"add_position", AddPosition{id(Role::position_embedding)}, {x}, {out}});
    return out;
  }

  // The norm of the residual stream, to be prepared for reader's matrix; added, when there is one, is
  // summed into the stream first.
  TensorId norm(Role gain, TensorId& residual, std::optional<TensorId> added, Role reader, bool select_rows) {
    const std::string name = weight(gain).name;
    const RowExtent rows = select_rows ? RowExtent::outputs : graph_.tensors[residual].rows;
    const size_t columns = graph_.tensors[residual].columns;
    const TensorId out = tensor(name, rows, columns, made_type(reader));
    Op op{name,
          Norm{id(gain), d_.norm_epsilon, select_rows, added ? d_.residual_multiplier : 1.0f, bias(gain)},
          {residual},
          {out}};
    if (added) {
      op.inputs.push_back(*added);
      residual = tensor(name + ".sum", rows, columns, ElementType::f32);
      op.outputs.push_back(residual);
    }
    graph_.ops.push_back(std::move(op));
    return out;
  }

  // One matrix product whose results lie side by side, each with its bias where the model has one.
  TensorId linear(const std::string& name, TensorId input, std::initializer_list<Role> parts) {
    Linear kind;
    size_t columns = 0;
    const Role first = *parts.begin();
    for (const Role part : parts) {
      if (input_type(part) != input_type(first)) {
        throw FileError(fmt::format(
            "{}: tensor \"{}\": expected a scheme with the same activations as \"{}\" ({}), found {}",
            source_, weight(part).name, weight(first).name, scheme_name(weight(first).scheme),
            scheme_name(weight(part).scheme)));
      }
      kind.parts.push_back({id(part), bias(part)});
      columns += weight(part).rows;
    }
    const TensorId out = tensor(name, graph_.tensors[input].rows, columns, ElementType::f32);
    graph_.ops.push_back({name, std::move(kind), {input}, {out}});
    return out;
  }

  // x = norm(x + added), in floats.
  TensorId norm_behind(Role gain, TensorId x, TensorId added, bool select_rows) {
    const std::string name = weight(gain).name;
    const RowExtent rows = select_rows ? RowExtent::outputs : RowExtent::tokens;
    const size_t columns = graph_.tensors[x].columns;
    const TensorId out = tensor(name, rows, columns, ElementType::f32);
    const TensorId sum = tensor(name + ".sum", rows, columns, ElementType::f32);
    graph_.ops.push_back(
        {name, Norm{id(gain), d_.norm_epsilon, select_rows, 1.0f, bias(gain)}, {x, added}, {out, sum}});
    return out;
  }

  TensorId head_norm(const std::string& name, TensorId input) {
    const TensorId out = tensor(name, RowExtent::tokens, graph_.tensors[input].columns, ElementType::f32);
    graph_.ops.push_back({name,
                          HeadNorm{id(Role::q_norm), id(Role::k_norm), d_.query_heads, d_.kv_heads,
                                   d_.head_dim, d_.head_norm_epsilon},
                          {input},
                          {out}});
    return out;
  }

  TensorId rope(const std::string& name, TensorId input) {
    const TensorId out = tensor(name, RowExtent::tokens, graph_.tensors[input].columns, ElementType::f32);
    graph_.ops.push_back(
        {name, Rope{d_.query_heads + d_.kv_heads, d_.head_dim, shape().inverse_frequency}, {input}, {out}});
    return out;
  }

  TensorId attention(const std::string& name, TensorId input) {
    const TensorId out = tensor(name, RowExtent::tokens, d_.query_heads * d_.head_dim, ElementType::f32);
    graph_.ops.push_back({name,
                          Attention{layer_, d_.query_heads, d_.kv_heads, d_.head_dim, shape().scale,
                                    shape().window, d_.attention_soft_cap, d_.alibi, d_.log_scale_from},
                          {input},
                          {out}});
    return out;
  }

  TensorId gate(const std::string& name, TensorId input, Role reader) {
    const size_t columns = graph_.tensors[input].columns / (d_.gated ? 2 : 1);
    const TensorId out = tensor(name, graph_.tensors[input].rows, columns, made_type(reader));
    graph_.ops.push_back({name, Gate{d_.gate, d_.gated}, {input}, {out}});
    return out;
  }

  // What a part of a layer gives, normalized where the model has norms there.
  TensorId part_output(Role gain, TensorId x) {
    if (!d_.output_norms) return x;
    const std::string name = weight(gain).name;
    const TensorId out = tensor(name, RowExtent::tokens, graph_.tensors[x].columns, ElementType::f32);
    graph_.ops.push_back({name, Norm{id(gain), d_.norm_epsilon, false}, {x}, {out}});
    return out;
  }

  TensorId rotated_gain(TensorId x) {
    const std::string name = weight(Role::output_gain).name;
    const TensorId out = tensor(name, graph_.tensors[x].rows, graph_.tensors[x].columns, ElementType::f32);
    graph_.ops.push_back({name, RotatedGain{id(Role::output_gain)}, {x}, {out}});
    return out;
  }

  TensorId capped(const std::string& name, TensorId input, float cap) {
    const TensorId out =
        tensor(name, graph_.tensors[input].rows, graph_.tensors[input].columns, ElementType::f32);
    graph_.ops.push_back({name, SoftCap{cap}, {input}, {out}});
    return out;
  }

  // The input in the order and the type that reader's matrix takes: itself where it is so already.
  TensorId prepared_for(Role reader, TensorId input) {
    const ElementType type = input_type(reader);
    const std::optional<WeightId> columns = order(reader);
    if (!columns && type == graph_.tensors[input].type) return input;
    const std::string name = weight(reader).name + ".input";
    const TensorId out = tensor(name, graph_.tensors[input].rows, graph_.tensors[input].columns, type);
    const OpKind kind = columns ? OpKind(Gather{*columns}) : OpKind(Quantize{});
    graph_.ops.push_back({name, kind, {input}, {out}});
    return out;
  }

  Graph finish(TensorId logits) {
    graph_.logits = logits;
    if (const std::string fault = check_graph(graph_); !fault.empty())
      throw FileError(fmt::format("{}: {}", source_, fault));
    return std::move(graph_);
  }

 private:
  TensorId tensor(std::string name, RowExtent rows, size_t columns, ElementType type) {
    graph_.tensors.push_back({std::move(name), rows, columns, type});
    return static_cast<TensorId>(graph_.tensors.size() - 1);
  }

  // Of the current layer.
  const LayerAttention& shape() const { return d_.slides[layer_] ? d_.sliding_attention : d_.full_attention; }
  WeightId id(Role role) const { return weights_.at({role, role_row(role).in_layer ? layer_ : 0}); }
  std::optional<WeightId> bias(Role of) const {
    const std::optional<Role> role = bias_of(of);
    return role && d_.has(*role) ? std::optional(id(*role)) : std::nullopt;
  }
  const Weight& weight(Role role) const { return graph_.weights[id(role)]; }
  // Of the columns of a role's matrix, where it has one in this layer.
  std::optional<WeightId> order(Role matrix) const {
    const std::optional<Role> role = order_role(matrix);
    const auto found = role ? weights_.find({*role, layer_}) : weights_.end();
    return found == weights_.end() ? std::nullopt : std::optional(found->second);
  }

  const DecoderDescription& d_;
  const std::string& source_;
  Graph graph_;
  size_t layer_ = 0;
  std::map<std::pair<Role, size_t>, WeightId> weights_;
};

}  // namespace

Graph decoder_graph(const DecoderDescription& d, const std::vector<DecoderTensor>& tensors,
                    const std::string& source) {
  GraphBuilder builder(d, tensors, source);
  const auto name = [&](std::string_view part) { return builder.layer_name(part); };
  const Role first = d.gated ? Role::gate : Role::up;  // that reads what the feed-forward part does
  // What the parts of a layer add to the residual stream; x is prepared for them.
  const auto attention = [&](TensorId x) {
    x = builder.linear(name("qkv"), builder.prepared_for(Role::q, x), {Role::q, Role::k, Role::v});
    if (d.query_key_norms) x = builder.head_norm(name("head_norm"), x);
    if (!d.learned_positions && d.alibi == 0) x = builder.rope(name("rope"), x);
    x = builder.attention(name("attention"), x);
    x = builder.linear(name("o"), builder.prepared_for(Role::o, x), {Role::o});
    return builder.part_output(Role::attention_output_norm, x);
  };
  const auto feed_forward = [&](TensorId x) {
    x = builder.prepared_for(first, x);
    x = d.gated ? builder.linear(name("gate_up"), x, {Role::gate, Role::up})
                : builder.linear(name("up"), x, {Role::up});
    x = builder.gate(name("gated"), x, Role::down);
    x = builder.linear(name("down"), builder.prepared_for(Role::down, x), {Role::down});
    return builder.part_output(Role::ffn_output_norm, x);
  };
  TensorId residual = builder.embed();
  if (d.projects_embeddings)
    residual =
        builder.linear("embedding_projection", builder.prepared_for(Role::embedding_projection, residual),
                       {Role::embedding_projection});
  if (d.learned_positions) residual = builder.add_position(residual);
  std::optional<TensorId> added;  // what the previous half-layer contributes to the residual stream
  for (size_t layer = 0; layer < d.layers; ++layer) {
    builder.set_layer(layer);
    if (d.norms_follow) {
      residual = builder.norm_behind(Role::attention_norm, residual, attention(residual), false);
      residual = builder.norm_behind(Role::ffn_norm, residual, feed_forward(residual), layer + 1 == d.layers);
      continue;
    }
    added = attention(builder.norm(Role::attention_norm, residual, added, Role::q, false));
    added = feed_forward(builder.norm(Role::ffn_norm, residual, added, first, false));
  }
  const Role head = d.tied_head ? Role::token_embedding : Role::output_head;
  const Role reader = d.projects_embeddings ? Role::head_projection : head;
  TensorId x = d.norms_follow ? builder.prepared_for(reader, residual)
                              : builder.norm(Role::output_norm, residual, added, reader, true);
  if (d.projects_embeddings)
    x = builder.prepared_for(head, builder.linear("head_projection", x, {Role::head_projection}));
  if (d.rotated_table) x = builder.prepared_for(head, builder.rotated_gain(x));
  if (d.logits_soft_cap == 0) return builder.finish(builder.linear("logits", x, {head}));
  const TensorId uncapped = builder.linear("uncapped_logits", x, {head});
  return builder.finish(builder.capped("logits", uncapped, d.logits_soft_cap));
}

}  // namespace tessera
