#include "engine/quantize/plan/kept_matrix.h"

#include <algorithm>
#include <cassert>
#include <string_view>
#include <unordered_map>
#include <variant>

#include "engine/codec/matrix_codec.h"
#include "engine/quantize/keep/kept_codes.h"
#include "engine/quantize/plan/checkpoint_values.h"
#include "engine/quantize/plan/row_blocks.h"

namespace tessera {

namespace {

constexpr uint64_t kRowsOfLevels = 256;  // looked at together

keep::LevelFacts level_facts_of(const PlannedWeight& weight, size_t threads) {
  const uint64_t first_row = weight.expected.source.first_row;
  const uint64_t rows = weight.expected.shape[0];  // in another order than the checkpoint's, perhaps
  const auto blocks = static_cast<size_t>((rows + kRowsOfLevels - 1) / kRowsOfLevels);
  std::vector<keep::LevelFacts> parts(blocks);
  run_row_blocks(blocks, threads, [&](size_t block, size_t) {
    const uint64_t first = block * kRowsOfLevels;
    parts[block] = keep::level_facts(weight.checkpoint->read_levels(*weight.source, first_row + first,
                                                                    std::min(kRowsOfLevels, rows - first)));
  });
  keep::LevelFacts facts;
  for (const keep::LevelFacts& part : parts) facts.add(part);
  return facts;
}

// What codes become that no scheme holds. 8 bits lose next to nothing of 5 or more, fp8 included: in groups
// of 32 the steps between large values are finer than its three bits of fraction.
Scheme nearest_scheme(unsigned bits, uint64_t columns, ActivationType activations) {
  const bool int8 = activations == ActivationType::int8;
  std::string_view name = int8 ? "int8-g32-a8" : "int8-g32";
  if (bits <= 4) {
    name = int8 ? "int4-g32-a8" : "int4-g32";
    // Fewer bytes, but its blocks of 256 columns pad what is shorter.
    if (columns % tile::kNestedBlock == 0) name = int8 ? "int4k-g32-a8" : "int4k-g32";
  }
  const std::optional<Scheme> scheme = parse_scheme(name);
  assert(scheme);
  return *scheme;
}

constexpr unsigned kFloatBits = 16;

// Gives a matrix its scheme.
void keep_matrix(PlannedWeight& weight, const keep::Allowed& allowed, size_t threads) {
  const std::optional<PackedFormat> format = weight.checkpoint->packed_format(*weight.source);
  const auto rows = static_cast<size_t>(weight.expected.shape[0]);
  const auto columns = static_cast<size_t>(weight.expected.shape[1]);
  weight.kept.reset();
  if (format && weight.expected.source.multiplier == 1.0f && !weight.expected.source.unit_rows &&
      weight.expected.source.padded_head == 0)
    weight.kept = keep::kept_codes(*format, level_facts_of(weight, threads), rows, columns, allowed);
  const unsigned bits = format ? format->bits : weight.source->code_bits;
  weight.scheme = weight.kept ? weight.kept->scheme
                              : nearest_scheme(bits != 0 ? bits : kFloatBits, columns, allowed.activations);
}

std::span<const uint32_t> order_of(const PlannedWeight& weight) {
  return weight.kept ? std::span<const uint32_t>(weight.kept->format.order) : std::span<const uint32_t>();
}

// Matrices that read one input side by side take it in one type: where they differ, in that of the codes. And
// they take it in one order of columns: where they differ, in none.
void agree_on_input(std::span<PlannedWeight* const> parts, ActivationType activations, size_t threads) {
  const auto alike = [&](auto same) {
    return std::all_of(parts.begin(), parts.end(),
                       [&](const PlannedWeight* part) { return same(*part, *parts.front()); });
  };
  if (!alike([](const PlannedWeight& a, const PlannedWeight& b) {
        return activation_type(a.scheme) == activation_type(b.scheme);
      }))
    for (PlannedWeight* part : parts)
      if (activation_type(part->scheme) != activations)
        keep_matrix(*part, {.activations = activations, .row_scales = false}, threads);
  if (!alike([](const PlannedWeight& a, const PlannedWeight& b) {
        return std::ranges::equal(order_of(a), order_of(b));
      }))
    for (PlannedWeight* part : parts)
      keep_matrix(*part, {.activations = activations, .row_scales = false, .order = false}, threads);
}

// Those of a plan that each product of the model's graph has.
std::vector<std::vector<PlannedWeight*>> sharing_inputs(std::vector<PlannedWeight>& plan,
                                                        const Hyperparameters& hyperparameters) {
  std::unordered_map<std::string_view, PlannedWeight*> by_name;
  for (PlannedWeight& weight : plan) by_name.emplace(weight.expected.name, &weight);
  std::vector<std::vector<PlannedWeight*>> products;
  const Graph graph = build_graph(hyperparameters, [](const ExpectedTensor&) { return Scheme::f32; });
  for (const Op& op : graph.ops) {
    const auto* linear = std::get_if<Linear>(&op.kind);
    if (linear == nullptr) continue;
    std::vector<PlannedWeight*> parts;
    for (const LinearPart& part : linear->parts)
      if (const auto found = by_name.find(graph.weights[part.weight].name); found != by_name.end())
        parts.push_back(found->second);
    if (!parts.empty()) products.push_back(std::move(parts));
  }
  return products;
}

// Some rows of a matrix as the checkpoint has them: all from the first to the last of those that are asked
// for, because rows of a head in another order lie close together.
struct ReadRows {
  PackedRows packed;
  std::vector<size_t> from;  // which of these each row asked for is
};

ReadRows read_rows(const PlannedWeight& weight, uint64_t first_row, size_t count) {
  ReadRows read;
  std::vector<uint64_t> stored(count);
  for (size_t i = 0; i < count; ++i) stored[i] = weight.expected.source.stored_row(first_row + i);
  const auto [lowest, highest] = std::minmax_element(stored.begin(), stored.end());
  read.packed = weight.checkpoint->read_packed(*weight.source, *lowest, *highest - *lowest + 1);
  for (const uint64_t row : stored) read.from.push_back(static_cast<size_t>(row - *lowest));
  return read;
}

}  // namespace

bool has_quantized_tensors(const CheckpointSource& checkpoint) {
  const std::span<const SourceTensor> tensors = checkpoint.tensors();
  return std::any_of(tensors.begin(), tensors.end(),
                     [](const SourceTensor& tensor) { return tensor.code_bits != 0; });
}

std::vector<ColumnOrder> keep_matrices(std::vector<PlannedWeight>& plan,
                                       const Hyperparameters& hyperparameters, ActivationType activations,
                                       bool rounded_head, size_t threads) {
  keep::Allowed allowed{.activations = activations};
  for (PlannedWeight& weight : plan) {
    if (weight.expected.shape.size() != 2) continue;
    allowed.order = order_role(weight.expected.role).has_value();
    if (rounded_head && makes_logits_or_embeds(weight.expected.role))
      weight.scheme = Scheme::w8a8;
    else if (weight.source->code_bits == 0)
      weight.scheme = *weight.source->precision;
    else
      keep_matrix(weight, allowed, threads);
  }
  std::vector<ColumnOrder> orders;
  for (const std::vector<PlannedWeight*>& parts : sharing_inputs(plan, hyperparameters)) {
    agree_on_input(parts, activations, threads);
    const PlannedWeight& first = *parts.front();
    const std::span<const uint32_t> order = order_of(first);
    if (order.empty()) continue;
    const std::optional<ExpectedTensor> tensor =
        column_order(hyperparameters, first.expected.role, first.expected.layer);
    assert(tensor);
    orders.push_back({tensor->name, {order.begin(), order.end()}});
  }
  for (const PlannedWeight& weight : plan) check_columns(weight);
  return orders;
}

ErrorSums encode_kept(const ModelFileOptions& options, const PlannedWeight& weight, std::span<std::byte> out,
                      Progress& progress) {
  const keep::KeptCodes& kept = weight.kept.value();
  const auto rows = static_cast<size_t>(weight.expected.shape[0]);
  const auto columns = static_cast<size_t>(weight.expected.shape[1]);
  if (scheme_facts(kept.scheme).table)
    write_table(kept.scheme, rows, columns,
                std::span(kept.table).first(size_t{1} << scheme_facts(kept.scheme).bits), out);
  return over_row_blocks(options, weight, progress, [&](size_t first_row, size_t count) {
    const ReadRows read = read_rows(weight, first_row, count);
    keep::store_kept_rows(kept, rows, columns, read.packed, read.from, first_row, out);
    const std::span<const uint32_t> order = order_of(weight);
    std::vector<float> values(columns);
    std::vector<float> in_order(order.size());
    std::vector<double> decoded(columns);
    ErrorSums sums;
    for (size_t row = first_row; row < first_row + count; ++row) {
      read_finite(options.source, weight, uint64_t{row} * columns, values);
      decode_row(kept.scheme, rows, columns, out, row, decoded);
      for (double& value : decoded) value = static_cast<double>(static_cast<float>(value));
      for (size_t i = 0; i < order.size(); ++i) in_order[i] = values[order[i]];
      sums.add_row(order.empty() ? values : in_order, decoded);
    }
    return sums;
  });
}

}  // namespace tessera
