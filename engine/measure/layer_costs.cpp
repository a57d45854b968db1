#include "engine/measure/layer_costs.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string_view>

#include "engine/codec/matrix_codec.h"

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
  const Hyperparameters& a = quantized.hyperparameters();
  const Hyperparameters& b = reference.hyperparameters();
  const bool same = a.family == b.family && a.vocabulary == b.vocabulary && a.hidden == b.hidden &&
                    a.layers == b.layers && a.query_heads == b.query_heads && a.kv_heads == b.kv_heads &&
                    a.head_dim == b.head_dim && a.ffn == b.ffn && a.qkv_bias == b.qkv_bias &&
                    a.output_bias == b.output_bias;
  if (!same) {
    throw std::runtime_error(fmt::format("--layers: {} and {} are not of one model: their shapes differ",
                                         quantized.file().path(), reference.file().path()));
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

bool starts_with_any(std::string_view name, const std::vector<std::string>& prefixes) {
  return std::any_of(prefixes.begin(), prefixes.end(), [&](const std::string& prefix) {
    return name.substr(0, prefix.size()) == prefix &&
           (prefix.back() == '.' || name.size() == prefix.size() || name[prefix.size()] == '_');
  });
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

struct MatrixGroup {
  const char* name;
  std::vector<std::string> tensors;  // and what is named like them with _ and more behind: biases
};

}  // namespace

std::vector<MixedPart> mix_parts(const Model& quantized, const Model& reference, bool by_matrix) {
  check_same_model(quantized, reference);
  const std::vector<MatrixGroup> groups = {{"qkv", {"attention_norm", "q", "k", "v"}},
                                           {"o", {"o"}},
                                           {"gate_up", {"ffn_norm", "gate", "up"}},
                                           {"down", {"down"}}};
  std::vector<MixedPart> parts;
  const auto add = [&](const std::string& name, const std::vector<std::string>& prefixes) {
    const auto in_part = [prefixes](std::string_view tensor) { return starts_with_any(tensor, prefixes); };
    parts.push_back(describe(name, Model::mixed(reference, quantized, in_part), quantized, in_part));
  };
  for (uint64_t layer = 0; layer < reference.hyperparameters().layers; ++layer) {
    const std::string prefix = fmt::format("layers.{}", layer);
    if (!by_matrix) {
      add(prefix, {prefix + "."});
      continue;
    }
    check_same_columns(quantized, reference, prefix + ".o");
    check_same_columns(quantized, reference, prefix + ".down");
    for (const MatrixGroup& group : groups) {
      std::vector<std::string> names;
      for (const std::string& tensor : group.tensors) names.push_back(fmt::format("{}.{}", prefix, tensor));
      add(fmt::format("{}.{}", prefix, group.name), names);
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
