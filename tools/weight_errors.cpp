// What the table schemes cost the weights of a checkpoint: the relative error of all its matrices together
// under every way of choosing tables and scales without inputs. Prints the Markdown table of
// docs/quantization.md. Usage: weight_errors FOLDER|FILE.safetensors
#include <fmt/format.h>

#include <array>
#include <cmath>
#include <cstdio>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "engine/codec/matrix_codec.h"
#include "engine/dense_products.h"
#include "engine/quantize/lut/kmeans_table.h"
#include "engine/quantize/lut/scale_search.h"
#include "engine/quantize/lut/table_matrix.h"
#include "engine/quantize/plan/rounding_error.h"
#include "gguf-like-format/safetensors/safetensors.h"

using namespace tessera;

namespace {

constexpr std::array<size_t, 4> kGroups{32, 64, 128, 256};

std::vector<quantize::FloatMatrix> matrices_of(const Checkpoint& checkpoint) {
  std::vector<quantize::FloatMatrix> matrices;
  for (const CheckpointTensor& tensor : checkpoint.tensors()) {
    if (tensor.shape.size() != 2) continue;
    quantize::FloatMatrix& matrix =
        matrices.emplace_back(static_cast<size_t>(tensor.shape[0]), static_cast<size_t>(tensor.shape[1]));
    read_floats(tensor, 0, matrix.values);
  }
  return matrices;
}

// As `tessera quantize` stores it. Trained scales see inputs that do not depend on each other.
ErrorSums stored_error(DenseProducts& products, const TableFormat& format,
                       const quantize::TableChoices& choices, const quantize::FloatMatrix& matrix) {
  const Scheme scheme = table_scheme(format);
  std::vector<std::byte> bytes(
      stored_bytes(scheme, std::array<uint64_t, 2>{matrix.rows, matrix.columns}).value());
  quantize::InputStatistics inputs;
  if (choices.train_scales) {
    inputs = quantize::InputStatistics(matrix.columns, 1, 0, true);
    inputs.tokens = 1;
    inputs.squares.assign(matrix.columns, 1.0f);
    for (size_t i = 0; i < matrix.columns; ++i) inputs.moments.row(i)[i] = 1.0f;
  }
  quantize::encode_with_table(products, scheme, matrix, choices, choices.train_scales ? &inputs : nullptr,
                              bytes);
  return rounding_error(scheme, matrix.rows, matrix.columns, bytes, 0, matrix.values);
}

constexpr size_t kRowStep = 8;

// A table for every row, which no scheme can store: shows what one table per matrix costs. Every kRowStep-th
// row is measured.
ErrorSums row_tables_error(DenseProducts& products, const TableFormat& format,
                           const quantize::FloatMatrix& matrix) {
  ErrorSums sums;
  quantize::FloatMatrix row(1, matrix.columns);
  TableLevels levels;
  std::vector<double> decoded(matrix.columns);
  for (size_t i = 0; i < matrix.rows; i += kRowStep) {
    row.values.assign(matrix.row(i).begin(), matrix.row(i).end());
    const ValueTable table = quantize::kmeans_table(products, format, row, {}, true);
    quantize::search_levels(format, &table, row.values, {}, levels);
    for (size_t column = 0; column < matrix.columns; ++column) {
      const TableLevels::Group& group = levels.group_of(column);
      decoded[column] = static_cast<double>(levels.meaning(levels.code(row.values[column], group), group));
    }
    sums.add_row(row.values, decoded);
  }
  return sums;
}

template <typename Error>
void print_line(const std::string& name, const std::vector<quantize::FloatMatrix>& matrices,
                TableFormat format, Error error) {
  std::string line = fmt::format("| {} |", name);
  for (const size_t group : kGroups) {
    format.group = group;
    ErrorSums sums;
    for (const quantize::FloatMatrix& matrix : matrices) sums.add(error(format, matrix));
    line += fmt::format(" {:.2f} |", 100 * std::sqrt(sums.error / sums.power));
  }
  fmt::print("{}\n", line);
  std::fflush(stdout);
}

void print_table(DenseProducts& products, const std::vector<quantize::FloatMatrix>& matrices) {
  using Choices = quantize::TableChoices;
  constexpr Choices kRounding{.scale_search = false};
  constexpr Choices kSearch{};
  constexpr Choices kLearned{.train_scales = true};
  constexpr Choices kClusters{.table = quantize::TableKind::kmeans};
  const auto stored = [&](const std::string& name, const TableFormat& format,
                          const quantize::TableChoices& choices) {
    print_line(name, matrices, format, [&](const TableFormat& each, const quantize::FloatMatrix& matrix) {
      return stored_error(products, each, choices, matrix);
    });
  };
  fmt::print("| relative error of the weights, % | g32 | g64 | g128 | g256 |\n|---|---|---|---|---|\n");
  TableFormat uniform;
  uniform.zero_points = true;
  stored("`int4` rounding", uniform, kRounding);
  stored("`int4` with search", uniform, kSearch);
  for (const unsigned bits : {4u, 3u, 2u}) {
    TableFormat format;
    format.bits = bits;
    const std::string name = fmt::format("`lut{}`", bits);
    stored(name + " NormalFloat, rounding", format, kRounding);
    stored(name + " NormalFloat with search", format, kSearch);
    stored(name + " learned NormalFloat", format, kLearned);
    stored(name + " k-means", format, kClusters);
    print_line(name + " k-means by row (every eighth; no file holds this)", matrices, format,
               [&](const TableFormat& each, const quantize::FloatMatrix& matrix) {
                 return row_tables_error(products, each, matrix);
               });
  }
}

}  // namespace

int main(int argument_count, char** arguments) {
  if (argument_count != 2) {
    std::fputs("usage: weight_errors FOLDER|FILE.safetensors\n", stderr);
    return 2;
  }
  try {
    const std::unique_ptr<DenseProducts> products = make_dense_products(0);
    print_table(*products, matrices_of(Checkpoint::open(arguments[1])));
  } catch (const std::exception& error) {
    std::fputs(fmt::format("weight_errors: {}\n", error.what()).c_str(), stderr);
    return 1;
  }
  return 0;
}
