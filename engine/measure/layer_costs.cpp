#include "engine/measure/layer_costs.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <stdexcept>
#include <string_view>

#include "engine/codec/matrix_codec.h"
#include "gguf-like-format/hyperparameter_checks.h"
#include "graph/op_weights.h"

namespace tessera {

namespace {

constexpr size_t kSampledRows = 256;
// Decoded weights of one matrix in two files: quantizing alone leaves the cosine above 0.9 at 2 bits and
// above 0.98 at 4, another basis or order of the columns brings it near 0.
constexpr double kLeastCosine = 0.8;
// Quantizing alone moves the scale of a column, measured over 256 rows, by about 1 % at 4 bits.
constexpr double kMostScaleSpread = 0.05;

struct Likeness {
  double cosine = 1;
  double scale_spread = 0;  // standard deviation over columns of how much longer the column is
};

// Compares rows spread evenly over a matrix that both files have.
Likeness compare_matrices(const StoredTensor& a, const StoredTensor& b) {
  const size_t rows = a.rows();
  const size_t columns = a.columns();
  const size_t sampled = std::min(rows, kSampledRows);
  std::vector<double> row_a(columns), row_b(columns), products(columns), squares(columns);
  double squares_b = 0;
  for (size_t i = 0; i < sampled; ++i) {
    const size_t row = i * rows / sampled;
    decode_row(a.scheme, rows, columns, a.bytes, row, row_a);
    decode_row(b.scheme, rows, columns, b.bytes, row, row_b);
    for (size_t column = 0; column < columns; ++column) {
      products[column] += row_a[column] * row_b[column];
      squares[column] += row_a[column] * row_a[column];
      squares_b += row_b[column] * row_b[column];
    }
  }
  double product = 0, squares_a = 0, ratios = 0, ratio_squares = 0;
  size_t used = 0;
  for (size_t column = 0; column < columns; ++column) {
    product += products[column];
    squares_a += squares[column];
    if (squares[column] <= 0) continue;
    const double ratio = products[column] / squares[column];
    ratios += ratio;
    ratio_squares += ratio * ratio;
    ++used;
  }
  Likeness likeness;
  if (squares_a > 0 && squares_b > 0) likeness.cosine = product / std::sqrt(squares_a * squares_b);
  if (used > 0) {
    const double mean = ratios / static_cast<double>(used);
    likeness.scale_spread = std::sqrt(std::max(0.0, ratio_squares / static_cast<double>(used) - mean * mean));
  }
  return likeness;
}

void check_same_model(const Model& quantized, const Model& reference) {
  // A recipe may have given a tied model a head of its own; everything else stays.
  const auto a = hyperparameter_texts(quantized.hyperparameters());
  const auto b = hyperparameter_texts(reference.hyperparameters());
  const auto [here, there] = std::mismatch(a.begin(), a.end(), b.begin(), b.end(), [](auto& x, auto& y) {
    return x == y || (x.first == y.first && (x.first == "tied_head" || x.first == "rotated_table"));
  });
  if (here != a.end() || there != b.end()) {
    const auto text = [](const auto& field, const auto& end) {
      return field == end ? std::string("nothing") : fmt::format("{} {}", field->first, field->second);
    };
    throw std::runtime_error(fmt::format(
        "--layers: {} and {} are not of one model: their shapes differ: {} and {}", quantized.file().path(),
        reference.file().path(), text(here, a.end()), text(there, b.end())));
  }
  const double cosine = compare_matrices(reference.file().require("token_embedding"),
                                         quantized.file().require("token_embedding"))
                            .cosine;
  if (!(cosine >= kLeastCosine)) {
    throw std::runtime_error(fmt::format(
        "--layers: the embeddings of {} and {} point elsewhere (cosine {:.2f}): another model, or a rotated "
        "residual stream; for a rotated one, make the reference with --scheme bf16 and the same recipe",
        quantized.file().path(), reference.file().path(), cosine));
  }
}

void check_same_columns(const Model& quantized, const Model& reference, const std::string& name) {
  const Likeness likeness = compare_matrices(reference.file().require(name), quantized.file().require(name));
  if (likeness.cosine >= kLeastCosine && likeness.scale_spread <= kMostScaleSpread) return;
  throw std::runtime_error(fmt::format(
      "--matrices: {} was rotated, reordered or smoothed against the matrix before it in {} "
      "(cosine {:.2f}, column scales ± {:.2f}), so they cannot be mixed; leave out --matrices, or "
      "make the reference with --scheme bf16 and the same recipe",
      name, quantized.file().path(), likeness.cosine, likeness.scale_spread));
}

// Fills in what the part's tensors are in the quantized file.
MixedPart describe(std::string name, Model model, const Model& quantized,
                   const std::function<bool(std::string_view)>& in_part) {
  std::vector<std::string> schemes;
  double weights = 0;
  uint64_t bytes = 0;
  for (const Weight& weight : quantized.graph().weights) {
    if (!in_part(weight.name)) continue;
    const std::string scheme(scheme_name(weight.scheme));
    const bool known = std::find(schemes.begin(), schemes.end(), scheme) != schemes.end();
    if (weight.rows > 1 && !known) schemes.push_back(scheme);
    weights += static_cast<double>(weight.rows) * static_cast<double>(weight.columns);
    bytes += quantized.file().require(weight.name).bytes.size();
  }
  return {std::move(name), fmt::format("{}", fmt::join(schemes, " + ")), bytes,
          static_cast<double>(bytes) * 8 / weights, std::move(model)};
}

// A matrix product within a layer with all that belongs to it: matrices that read one input, their biases,
// the norm that makes the input, and norms of the result.
struct ProductGroup {
  std::string name;  // of the op, "layers.3.gate_up"
  std::vector<std::string> tensors;
  bool reads_norm = false;  // or what another product has led to
  std::string first_matrix;
};

std::vector<ProductGroup> product_groups(const Graph& graph) {
  std::map<TensorId, size_t> group_reading;  // the product that reads a tensor
  std::map<TensorId, size_t> group_making;   // the product that makes it
  std::vector<ProductGroup> groups;
  const auto name_of = [&](WeightId id) { return graph.weights[id].name; };
  for_each_op<Linear>(graph, [&](const Op& op, const Linear& linear) {
    if (!op.name.starts_with("layers.")) return;
    ProductGroup& group = groups.emplace_back();
    group.name = op.name;
    group.first_matrix = name_of(linear.parts.front().weight);
    for_each_weight(op, [&](WeightId id, WeightRole) { group.tensors.push_back(name_of(id)); });
    group_reading[op.inputs[0]] = groups.size() - 1;
    group_making[op.outputs[0]] = groups.size() - 1;
  });
  for_each_op<Gather>(graph,
                      [&](const Op& op, const Gather&) {  // between what makes the input and the product
                        const auto reader = group_reading.find(op.outputs[0]);
                        if (reader != group_reading.end()) group_reading[op.inputs[0]] = reader->second;
                      });
  for_each_op<Norm>(graph, [&](const Op& op, const Norm& norm) {
    const auto reader = group_reading.find(op.outputs[0]);
    if (reader == group_reading.end()) return;
    groups[reader->second].tensors.push_back(name_of(norm.gain));
    groups[reader->second].reads_norm = true;
  });
  for_each_op<HeadNorm>(graph, [&](const Op& op, const HeadNorm& norm) {
    const auto writer = group_making.find(op.inputs[0]);
    if (writer == group_making.end()) return;
    for (const WeightId gain : {norm.query_gain, norm.key_gain})
      groups[writer->second].tensors.push_back(name_of(gain));
  });
  return groups;
}

}  // namespace

std::vector<MixedPart> mix_parts(const Model& quantized, const Model& reference, bool by_matrix) {
  check_same_model(quantized, reference);
  std::vector<MixedPart> parts;
  const auto add = [&](const std::string& name, const std::function<bool(std::string_view)>& in_part) {
    parts.push_back(describe(name, Model::mixed(reference, quantized, in_part), quantized, in_part));
  };
  if (by_matrix) {
    const std::vector<ProductGroup> groups = product_groups(reference.graph());
    for (const ProductGroup& group : groups) {
      // Columns behind a norm can only have changed with the residual stream, which has been compared.
      if (!group.reads_norm) check_same_columns(quantized, reference, group.first_matrix);
    }
    for (const ProductGroup& group : groups) {
      add(group.name, [names = group.tensors](std::string_view tensor) {
        return std::find(names.begin(), names.end(), tensor) != names.end();
      });
    }
  } else {
    for (uint64_t layer = 0; layer < reference.hyperparameters().layers; ++layer) {
      const std::string name = fmt::format("layers.{}", layer);
      add(name, [prefix = name + "."](std::string_view tensor) { return tensor.starts_with(prefix); });
    }
  }
  // A recipe may have given a tied model a head of its own, so here the quantized file is the base.
  const auto in_layers = [](std::string_view tensor) { return tensor.substr(0, 7) == "layers."; };
  const auto outside = [&](std::string_view tensor) { return !in_layers(tensor); };
  parts.push_back(
      describe("embedding and head", Model::mixed(quantized, reference, in_layers), quantized, outside));
  return parts;
}

}  // namespace tessera
