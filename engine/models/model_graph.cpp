#include "engine/models/model_graph.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/models/decoder_graph.h"
#include "engine/models/description.h"
#include "engine/models/families.h"

namespace tessera {

namespace {

constexpr const char* kNoFile = "hyperparameters";  // in errors

std::vector<ExpectedTensor> tensors_of(const DecoderDescription& description, const Hyperparameters& h,
                                       const Family& family) {
  std::vector<ExpectedTensor> tensors;
  const auto add = [&](const RoleRow& row, uint64_t layer) {
    if (!description.has(row.role)) return;
    const auto source = std::find_if(family.names.begin(), family.names.end(),
                                     [&](const SourceName& each) { return each.role == row.role; });
    ExpectedTensor tensor;
    tensor.role = row.role;
    tensor.layer = layer;
    tensor.name = tensor_name(row.role, layer);
    tensor.source.name = fmt::format(fmt::runtime(source->name), layer);
    tensor.shape = row.shape(h);
    if (row.kind == RoleKind::norm) tensor.source.addend = family.gain_offset;
    // The head is linear: its divisor goes into the gains before it, exactly where it is a power of two.
    if (row.role == Role::output_norm) tensor.source.multiplier = static_cast<float>(1.0 / h.logits_divisor);
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

DecoderTensor stored_as(const ExpectedTensor& tensor, Scheme scheme) {
  const bool vector = tensor.shape.size() == 1;
  return {tensor.role,
          static_cast<size_t>(tensor.layer),
          tensor.name,
          vector ? Scheme::f32 : scheme,
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
  if (vector ? stored.scheme != Scheme::f32 : !scheme_facts(stored.scheme).stores_matrices()) {
    throw FileError(fmt::format("{}: tensor \"{}\": expected {}, found scheme {}", file.path(), expected.name,
                                vector ? "scheme f32" : "a matrix scheme", scheme_name(stored.scheme)));
  }
  return stored.scheme;
}

Graph graph_of(const Hyperparameters& h, const std::string& source,
               const std::function<Scheme(const ExpectedTensor&)>& scheme_of) {
  const DecoderDescription description = describe_decoder(h, source);
  std::vector<DecoderTensor> tensors;
  for (const ExpectedTensor& tensor : tensors_of(description, h, find_family(h.family, source)))
    tensors.push_back(stored_as(tensor, scheme_of(tensor)));
  return decoder_graph(description, tensors, source);
}

}  // namespace

std::vector<ExpectedTensor> expected_tensors(const Hyperparameters& h) {
  return tensors_of(describe_decoder(h, kNoFile), h, find_family(h.family, kNoFile));
}

Graph build_graph(const TessFile& file) {
  return graph_of(file.header().hyperparameters, file.path(),
                  [&](const ExpectedTensor& tensor) { return checked_scheme(file, tensor); });
}

Graph build_graph(const Hyperparameters& h, const std::function<Scheme(const ExpectedTensor&)>& scheme_of) {
  return graph_of(h, kNoFile, scheme_of);
}

}  // namespace tessera
