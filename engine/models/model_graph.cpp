#include "engine/models/model_graph.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "engine/models/decoder_graph.h"
#include "engine/models/description.h"
#include "engine/models/families.h"

namespace tessera {

namespace {

constexpr const char* kNoFile = "hyperparameters";  // in errors

// Where heads are longer than the model's own: zeros behind every head of what attention reads and of what
// reads it. Norms of heads divide by a mean over the padding too, which their gains make good.
void pad_heads(Role role, const Hyperparameters& h, TensorSource& source) {
  switch (role) {
    case Role::q_norm:
    case Role::k_norm:
      source.multiplier = static_cast<float>(
          std::sqrt(static_cast<double>(h.model_head_dim()) / static_cast<double>(h.head_dim)));
      break;
    case Role::o:
      source.in_columns = true;
      break;
    case Role::q:
    case Role::k:
    case Role::v:
    case Role::q_bias:
    case Role::k_bias:
    case Role::v_bias:
      break;
    default:
      return;
  }
  source.stored_head = h.model_head_dim();
  source.padded_head = h.head_dim;
}

// Which rows of the checkpoint's tensor a role has: roles of the same name lie one after the other.
void set_rows(const SourceName& name, std::span<const SourceName> names, const Hyperparameters& h,
              TensorSource& source) {
  uint64_t first = 0;
  uint64_t all = 0;
  size_t parts = 0;
  bool before = true;
  for (const SourceName& each : names) {
    if (each.name != name.name) continue;
    TensorSource part;
    if (h.head_padding != 0) pad_heads(each.role, h, part);
    const uint64_t count = role_row(each.role).shape(h).front();
    const uint64_t rows = part.in_columns ? count : part.stored_count(count);
    before = before && each.role != name.role;
    if (before) first += rows;
    all += rows;
    ++parts;
  }
  if (parts == 1 && !name.transposed) return;  // it has them all
  source.first_row = first;
  source.all_rows = all;
}

std::vector<ExpectedTensor> tensors_of(const DecoderDescription& description, const Hyperparameters& h,
                                       const Family& family) {
  std::vector<ExpectedTensor> tensors;
  const auto add = [&](const RoleRow& row, uint64_t layer) {
    if (!description.has(row.role)) return;
    const Role stored = row.role == Role::output_gain ? Role::output_norm : row.role;
    std::span<const SourceName> names = family.own_names;
    if (find_name(names, stored) == nullptr) names = family.names;
    const SourceName& name = *find_name(names, stored);
    ExpectedTensor tensor;
    tensor.role = row.role;
    tensor.layer = layer;
    tensor.name = tensor_name(row.role, layer);
    tensor.source.name = fmt::format(fmt::runtime(name.name), layer);
    tensor.source.transposed = name.transposed;
    tensor.shape = row.shape(h);
    if (row.kind == RoleKind::norm) tensor.source.addend = family.gain_offset;
    if (h.head_padding != 0) pad_heads(row.role, h, tensor.source);
    set_rows(name, names, h, tensor.source);
    if (row.role == Role::position_embedding && family.first_position != 0) {
      tensor.source.first_row = family.first_position;
      tensor.source.all_rows = family.first_position + h.context;
    }
    // The head is linear: its divisor goes into the gains before it, exactly where it is a power of two.
    tensor.source.unit_rows = row.role == Role::output_head && h.vocabulary == family.unit_head_vocabulary;
    if (stored == Role::output_norm || row.role == Role::output_norm_bias)
      tensor.source.multiplier = static_cast<float>(1.0 / h.logits_divisor);
    tensors.push_back(std::move(tensor));
  };
  // Tensors of layers lie together, between those that come before and after them in the table.
  const std::span<const RoleRow> rows = role_rows();
  const auto in_layer = [](const RoleRow& row) { return row.in_layer; };
  const auto first = std::find_if(rows.begin(), rows.end(), in_layer);
  const auto end = std::find_if_not(first, rows.end(), in_layer);
  for (auto row = rows.begin(); row != first; ++row) add(*row, 0);
  for (uint64_t layer = 0; layer < h.layers; ++layer)
    for (auto row = first; row != end; ++row) add(*row, layer);
  for (auto row = end; row != rows.end(); ++row) add(*row, 0);
  return tensors;
}

ExpectedTensor order_of_role(const RoleRow& row, const Hyperparameters& h, uint64_t layer) {
  return {row.role, layer, tensor_name(row.role, layer), {}, row.shape(h)};
}

DecoderTensor stored_as(const ExpectedTensor& tensor, Scheme scheme) {
  const bool vector = tensor.shape.size() == 1;
  return {tensor.role,
          static_cast<size_t>(tensor.layer),
          tensor.name,
          vector ? role_row(tensor.role).vector_scheme() : scheme,
          vector ? 1 : static_cast<size_t>(tensor.shape[0]),
          static_cast<size_t>(tensor.shape.back())};
}

// The scheme of a file's tensor. Throws FileError when it is missing, or its shape or scheme is not the
// model's.
Scheme checked_scheme(const TessFile& file, const ExpectedTensor& expected) {
  const StoredTensor& stored = file.require(expected.name);
  if (stored.shape != expected.shape) {
    throw FileError(fmt::format("{}: tensor \"{}\": expected shape [{}], found [{}]", file.path(),
                                expected.name, fmt::join(expected.shape, ", "),
                                fmt::join(stored.shape, ", ")));
  }
  const bool vector = expected.shape.size() == 1;
  const Scheme of_vectors = role_row(expected.role).vector_scheme();
  if (vector ? stored.scheme != of_vectors : !scheme_facts(stored.scheme).stores_matrices()) {
    throw FileError(fmt::format(
        "{}: tensor \"{}\": expected {}, found scheme {}", file.path(), expected.name,
        vector ? fmt::format("scheme {}", scheme_name(of_vectors)) : std::string("a matrix scheme"),
        scheme_name(stored.scheme)));
  }
  return stored.scheme;
}

// orders: those of columns that the matrices are stored in.
Graph graph_of(const Hyperparameters& h, const std::string& source,
               const std::function<Scheme(const ExpectedTensor&)>& scheme_of,
               const std::vector<ExpectedTensor>& orders) {
  const DecoderDescription description = describe_decoder(h, source);
  std::vector<DecoderTensor> tensors;
  for (const ExpectedTensor& tensor : tensors_of(description, h, find_family(h.family, source)))
    tensors.push_back(stored_as(tensor, scheme_of(tensor)));
  for (const ExpectedTensor& order : orders) tensors.push_back(stored_as(order, scheme_of(order)));
  return decoder_graph(description, tensors, source);
}

// The orders of columns that a file holds.
std::vector<ExpectedTensor> stored_orders(const TessFile& file) {
  const Hyperparameters& h = file.header().hyperparameters;
  std::vector<ExpectedTensor> orders;
  for (const RoleRow& row : role_rows()) {
    if (row.kind != RoleKind::order) continue;
    for (uint64_t layer = 0; layer < h.layers; ++layer) {
      ExpectedTensor order = order_of_role(row, h, layer);
      if (file.find(order.name) != nullptr) orders.push_back(std::move(order));
    }
  }
  return orders;
}

}  // namespace

std::vector<ExpectedTensor> expected_tensors(const Hyperparameters& h) {
  return tensors_of(describe_decoder(h, kNoFile), h, find_family(h.family, kNoFile));
}

std::optional<ExpectedTensor> column_order(const Hyperparameters& h, Role matrix, uint64_t layer) {
  const std::optional<Role> order = order_role(matrix);
  return order ? std::optional(order_of_role(role_row(*order), h, layer)) : std::nullopt;
}

Graph build_graph(const TessFile& file) { return build_graph(file, file.header().hyperparameters); }

Graph build_graph(const TessFile& file, const Hyperparameters& h) {
  return graph_of(
      h, file.path(), [&](const ExpectedTensor& tensor) { return checked_scheme(file, tensor); },
      stored_orders(file));
}

Graph build_graph(const Hyperparameters& h, const std::function<Scheme(const ExpectedTensor&)>& scheme_of) {
  return graph_of(h, kNoFile, scheme_of, {});
}

}  // namespace tessera
