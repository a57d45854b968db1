#include "backends/check_program.h"

#include <fmt/format.h>

#include <array>
#include <limits>
#include <optional>

#include "gguf-like-format/column_order.h"
#include "graph/op_weights.h"

namespace tessera {

namespace {

std::string weights_fault(BackendId backend, const Graph& graph, std::span<const WeightHandle> weights) {
  if (weights.size() != graph.weights.size())
    return fmt::format("expected {} weights, found {}", graph.weights.size(), weights.size());
  for (size_t id = 0; id < weights.size(); ++id) {
    const Weight& described = graph.weights[id];
    const AdoptedWeight* found = weights[id].get();
    if (found == nullptr || found->backend() != backend)
      return fmt::format("weight \"{}\" was not adopted by this backend", described.name);
    if (found->scheme() != described.scheme || found->rows() != described.rows ||
        found->columns() != described.columns)
      return fmt::format("weight \"{}\": expected {} [{}, {}], found {} [{}, {}]", described.name,
                         scheme_name(described.scheme), described.rows, described.columns,
                         scheme_name(found->scheme()), found->rows(), found->columns());
  }
  return {};
}

// A matrix that is used as a vector, or the other way round, would be read by the wrong layout.
std::string rank_fault(const Graph& graph, std::span<const WeightHandle> weights) {
  std::string fault;
  for (const Op& op : graph.ops) {
    for_each_weight(op, [&](WeightId id, WeightRole role) {
      const size_t rank = role == WeightRole::vector || role == WeightRole::order ? 1 : 2;
      const size_t found = weights[id]->shape().size();
      if (fault.empty() && found != rank)
        fault = fmt::format("weight \"{}\": expected rank {}, found {}", graph.weights[id].name, rank, found);
    });
  }
  return fault;
}

std::string plan_fault(const Graph& graph, const MemoryPlan& plan) {
  if (plan.offset.size() != graph.tensors.size() || plan.stride.size() != graph.tensors.size())
    return "the memory plan belongs to another graph";
  for (size_t id = 0; id < graph.tensors.size(); ++id) {
    const Tensor& tensor = graph.tensors[id];
    const size_t rows = tensor.rows == RowExtent::outputs ? plan.limits.max_outputs : plan.limits.max_tokens;
    const size_t stride = plan.stride[id];
    if (stride < row_stride(tensor) || stride % 64 != 0 || plan.offset[id] % 64 != 0 ||
        plan.offset[id] > plan.arena_bytes || rows > (plan.arena_bytes - plan.offset[id]) / stride)
      return fmt::format("the memory plan has no room for tensor \"{}\"", tensor.name);
  }
  return {};
}

std::string attention_fault(const Graph& graph, const KvGeometry& kv) {
  std::string fault;
  for_each_op<Attention>(graph, [&](const Op& op, const Attention& attention) {
    if (!fault.empty() || (attention.layer < kv.layers && attention.kv_heads == kv.kv_heads &&
                           attention.head_dim == kv.head_dim))
      return;
    fault = fmt::format(
        "op \"{}\": layer {} with {} kv heads of {} does not fit a kv cache of {} layers, {} heads of {}",
        op.name, attention.layer, attention.kv_heads, attention.head_dim, kv.layers, kv.kv_heads,
        kv.head_dim);
  });
  for_each_op<Attention>(graph, [&](const Op& op, const Attention& attention) {
    if (fault.empty() && attention.window == 0 && kv.layer_slides(attention.layer))
      fault = fmt::format("op \"{}\": layer {} sees every token, and its kv pages are those of a window",
                          op.name, attention.layer);
  });
  return fault;
}

}  // namespace

std::string program_fault(BackendId backend, const Graph& graph, const MemoryPlan& plan,
                          std::span<const WeightHandle> weights, const KvStorage& kv) {
  std::string fault = check_graph(graph);
  if (fault.empty()) fault = weights_fault(backend, graph, weights);
  if (fault.empty()) fault = rank_fault(graph, weights);
  if (fault.empty() && kv.backend() != backend) fault = "the kv cache belongs to another backend";
  if (fault.empty()) fault = plan_fault(graph, plan);
  if (fault.empty()) fault = attention_fault(graph, kv.geometry());
  return fault;
}

std::string tensor_fault(const StoredTensor& tensor) {
  // The only data that ops read is an order of columns.
  const bool order = tensor.scheme == Scheme::u32 && tensor.shape.size() == 1;
  if (!order && !scheme_facts(tensor.scheme).stores_matrices())
    return fmt::format("tensor \"{}\": expected weights, found scheme {}", tensor.name,
                       scheme_name(tensor.scheme));
  const std::optional<uint64_t> bytes = stored_bytes(tensor.scheme, tensor.shape);
  if (!bytes || *bytes != tensor.bytes.size())
    return fmt::format("tensor \"{}\": expected {} bytes, found {}", tensor.name, bytes.value_or(0),
                       tensor.bytes.size());
  if (!order) return {};
  const std::string fault = column_order_fault(tensor.bytes);
  return fault.empty() ? fault : fmt::format("tensor \"{}\": {}", tensor.name, fault);
}

std::string kv_fault(const KvGeometry& geometry) {
  if (geometry.bits != 4 && geometry.bits != 8 && geometry.bits != 16)
    return fmt::format("kv cache: expected 4, 8 or 16 bits, found {}", geometry.bits);
  if (geometry.head_dim == 0 || geometry.head_dim % 8 != 0)
    return fmt::format("kv cache: expected a head size that is a multiple of 8, found {}", geometry.head_dim);
  if (geometry.kv_heads == 0) return "kv cache: expected at least 1 kv head, found 0";
  // Keys and values of a page in float64, the most that any backend keeps, with room for what lies beside
  // them.
  size_t bytes = 2 * kKvPageTokens * 2 * sizeof(double);
  for (const size_t factor : std::array{geometry.layers, geometry.kv_heads, geometry.head_dim}) {
    if (factor != 0 && bytes > std::numeric_limits<size_t>::max() / factor)
      return fmt::format("kv cache: {} layers of {} heads of {} exceed the address space", geometry.layers,
                         geometry.kv_heads, geometry.head_dim);
    bytes *= factor;
  }
  return {};
}

std::string kv_size_fault(size_t page_bytes, size_t pages) {
  if (page_bytes == 0 || pages <= std::numeric_limits<size_t>::max() / page_bytes) return {};
  return fmt::format("kv cache: {} pages of {} bytes exceed the address space", pages, page_bytes);
}

}  // namespace tessera
