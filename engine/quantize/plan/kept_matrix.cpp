#include "engine/quantize/plan/kept_matrix.h"

#include <algorithm>
#include <cassert>
#include <string_view>

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

void keep_matrix(PlannedWeight& weight, ActivationType activations, size_t threads) {
  const std::optional<PackedFormat> format = weight.checkpoint->packed_format(*weight.source);
  if (!format && weight.source->code_bits == 0) {
    weight.scheme = *weight.source->precision;
    return;
  }
  const auto rows = static_cast<size_t>(weight.expected.shape[0]);
  const auto columns = static_cast<size_t>(weight.expected.shape[1]);
  if (format && weight.expected.source.multiplier == 1.0f)
    weight.kept = keep::kept_codes(*format, level_facts_of(weight, threads), rows, columns, activations);
  weight.scheme =
      weight.kept ? weight.kept->scheme
                  : nearest_scheme(format ? format->bits : weight.source->code_bits, columns, activations);
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
  return std::any_of(tensors.begin(), tensors.end(), [&](const SourceTensor& tensor) {
    return tensor.code_bits != 0 || checkpoint.packed_format(tensor).has_value();
  });
}

void keep_matrices(std::vector<PlannedWeight>& plan, ActivationType activations, bool rounded_head,
                   size_t threads) {
  for (PlannedWeight& weight : plan) {
    if (weight.expected.shape.size() != 2) continue;
    if (rounded_head && makes_logits_or_embeds(weight.expected.role))
      weight.scheme = Scheme::w8a8;
    else
      keep_matrix(weight, activations, threads);
    check_columns(weight);
  }
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
    std::vector<float> values(columns);
    std::vector<double> decoded(columns);
    ErrorSums sums;
    for (size_t row = first_row; row < first_row + count; ++row) {
      read_finite(options.source, weight, uint64_t{row} * columns, values);
      decode_row(kept.scheme, rows, columns, out, row, decoded);
      for (double& value : decoded) value = static_cast<double>(static_cast<float>(value));
      sums.add_row(values, decoded);
    }
    return sums;
  });
}

}  // namespace tessera
