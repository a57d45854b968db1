#include "gguf-like-format/scheme.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <limits>
#include <string>
#include <vector>

#include "gguf-like-format/tile_layout.h"

namespace tessera {

namespace {

constexpr size_t kPanelRows = tile::kPanelRows;
constexpr ActivationType kF32 = ActivationType::f32;
constexpr ActivationType kBf16 = ActivationType::bf16;
constexpr ActivationType kInt8 = ActivationType::int8;

constexpr bool has_table(CodeKind kind) {
  return kind == CodeKind::lut2 || kind == CodeKind::lut3 || kind == CodeKind::lut4;
}

constexpr unsigned code_bits(CodeKind kind) {
  return kind == CodeKind::lut2 ? 2 : kind == CodeKind::lut3 ? 3 : kind == CodeKind::int8 ? 8 : 4;
}

// A row of a kind with f16 scales per group.
constexpr SchemeFacts group_codes(std::string_view name, CodeKind kind, size_t group,
                                  ActivationType activations) {
  const unsigned bits = code_bits(kind);
  const GroupOffset offset = kind == CodeKind::int4    ? GroupOffset::zero_point
                             : kind == CodeKind::int4m ? GroupOffset::minimum
                                                       : GroupOffset::none;
  return {.name = name,
          .kind = kind,
          .activations = activations,
          .bits = bits,
          .group = group,
          .offset = offset,
          .column_pad = group,
          .unit_bytes = tile::table_group_bytes(bits, group, offset != GroupOffset::none),
          .table = has_table(kind)};
}

constexpr SchemeFacts nested_codes(std::string_view name, ActivationType activations) {
  return {.name = name,
          .kind = CodeKind::int4k,
          .activations = activations,
          .bits = 4,
          .group = tile::kNestedGroup,
          .offset = GroupOffset::minimum,
          .column_pad = tile::kNestedBlock,
          .unit_bytes = tile::kNestedBlockBytes};
}

// Every scheme; its number is its place here. Rows with an enumerator come first, in the order of Scheme; new
// ones are added at the end. Files hold names, never numbers.
constexpr std::array kSchemes = {
    SchemeFacts{.name = "f32",
                .kind = CodeKind::f32,
                .activations = kF32,
                .bits = 32,
                .column_pad = 1,
                .unit_bytes = kPanelRows * 4,
                .vector_bytes = 4},
    SchemeFacts{.name = "f16",
                .kind = CodeKind::f16,
                .activations = kF32,
                .bits = 16,
                .column_pad = 1,
                .unit_bytes = kPanelRows * 2},
    SchemeFacts{.name = "bf16",
                .kind = CodeKind::bf16,
                .activations = kF32,
                .bits = 16,
                .column_pad = 2,
                .unit_bytes = kPanelRows * 2 * 2},
    SchemeFacts{.name = "w8a8",
                .kind = CodeKind::row_bytes,
                .activations = kInt8,
                .bits = 8,
                .column_pad = tile::kIntegerColumnPad,
                .unit_bytes = kPanelRows * tile::kIntegerColumnPad,
                .row_scales = true,
                .largest_code = 128},
    SchemeFacts{.name = "w4a8",
                .kind = CodeKind::row_nibbles,
                .activations = kInt8,
                .bits = 4,
                .column_pad = tile::kIntegerColumnPad,
                .unit_bytes = kPanelRows * tile::kIntegerColumnPad / 2,
                .row_scales = true,
                .row_zeros = true,
                .largest_code = 15},
    SchemeFacts{.name = "w4a8-g128",
                .kind = CodeKind::progressive,
                .activations = kInt8,
                .bits = 4,
                .group = tile::kGroupColumns,
                .column_pad = tile::kGroupColumns,
                .unit_bytes = tile::progressive_group_bytes(tile::kGroupColumns),
                .row_scales = true,
                .largest_code = 128},
    SchemeFacts{.name = "u8", .kind = CodeKind::data, .activations = kF32, .bits = 8, .vector_bytes = 1},
    SchemeFacts{.name = "u32", .kind = CodeKind::data, .activations = kF32, .bits = 32, .vector_bytes = 4},
    group_codes("lut2-g32", CodeKind::lut2, 32, kBf16),
    group_codes("lut2-g32-a8", CodeKind::lut2, 32, kInt8),
    group_codes("lut2-g64", CodeKind::lut2, 64, kBf16),
    group_codes("lut2-g64-a8", CodeKind::lut2, 64, kInt8),
    group_codes("lut2-g128", CodeKind::lut2, 128, kBf16),
    group_codes("lut2-g128-a8", CodeKind::lut2, 128, kInt8),
    group_codes("lut2-g256", CodeKind::lut2, 256, kBf16),
    group_codes("lut2-g256-a8", CodeKind::lut2, 256, kInt8),
    group_codes("lut3-g32", CodeKind::lut3, 32, kBf16),
    group_codes("lut3-g32-a8", CodeKind::lut3, 32, kInt8),
    group_codes("lut3-g64", CodeKind::lut3, 64, kBf16),
    group_codes("lut3-g64-a8", CodeKind::lut3, 64, kInt8),
    group_codes("lut3-g128", CodeKind::lut3, 128, kBf16),
    group_codes("lut3-g128-a8", CodeKind::lut3, 128, kInt8),
    group_codes("lut3-g256", CodeKind::lut3, 256, kBf16),
    group_codes("lut3-g256-a8", CodeKind::lut3, 256, kInt8),
    group_codes("lut4-g32", CodeKind::lut4, 32, kBf16),
    group_codes("lut4-g32-a8", CodeKind::lut4, 32, kInt8),
    group_codes("lut4-g64", CodeKind::lut4, 64, kBf16),
    group_codes("lut4-g64-a8", CodeKind::lut4, 64, kInt8),
    group_codes("lut4-g128", CodeKind::lut4, 128, kBf16),
    group_codes("lut4-g128-a8", CodeKind::lut4, 128, kInt8),
    group_codes("lut4-g256", CodeKind::lut4, 256, kBf16),
    group_codes("lut4-g256-a8", CodeKind::lut4, 256, kInt8),
    group_codes("int4-g32", CodeKind::int4, 32, kBf16),
    group_codes("int4-g32-a8", CodeKind::int4, 32, kInt8),
    group_codes("int4-g64", CodeKind::int4, 64, kBf16),
    group_codes("int4-g64-a8", CodeKind::int4, 64, kInt8),
    group_codes("int4-g128", CodeKind::int4, 128, kBf16),
    group_codes("int4-g128-a8", CodeKind::int4, 128, kInt8),
    group_codes("int4-g256", CodeKind::int4, 256, kBf16),
    group_codes("int4-g256-a8", CodeKind::int4, 256, kInt8),
    group_codes("int8-g32", CodeKind::int8, 32, kBf16),
    group_codes("int8-g32-a8", CodeKind::int8, 32, kInt8),
    group_codes("int8-g64", CodeKind::int8, 64, kBf16),
    group_codes("int8-g64-a8", CodeKind::int8, 64, kInt8),
    group_codes("int8-g128", CodeKind::int8, 128, kBf16),
    group_codes("int8-g128-a8", CodeKind::int8, 128, kInt8),
    group_codes("int8-g256", CodeKind::int8, 256, kBf16),
    group_codes("int8-g256-a8", CodeKind::int8, 256, kInt8),
    group_codes("int4m-g32", CodeKind::int4m, 32, kBf16),
    group_codes("int4m-g32-a8", CodeKind::int4m, 32, kInt8),
    nested_codes("int4k-g32", kBf16),
    nested_codes("int4k-g32-a8", kInt8),
};

constexpr std::string_view name_of(Scheme scheme) { return kSchemes[static_cast<size_t>(scheme)].name; }
static_assert(name_of(Scheme::f32) == "f32" && name_of(Scheme::f16) == "f16" &&
                  name_of(Scheme::bf16) == "bf16" && name_of(Scheme::w8a8) == "w8a8" &&
                  name_of(Scheme::w4a8) == "w4a8" && name_of(Scheme::w4a8_g128) == "w4a8-g128" &&
                  name_of(Scheme::u8) == "u8" && name_of(Scheme::u32) == "u32",
              "rows with an enumerator lie at its number");

bool is_table(CodeKind kind) { return has_table(kind) || kind == CodeKind::int4; }

constexpr uint64_t kMostBytes = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());

std::optional<uint64_t> checked_multiply(uint64_t a, uint64_t b) {
  if (b != 0 && a > kMostBytes / b) return std::nullopt;
  return a * b;
}

}  // namespace

const SchemeFacts& scheme_facts(Scheme scheme) {
  assert(static_cast<size_t>(scheme) < kSchemes.size());
  return kSchemes[static_cast<size_t>(scheme)];
}

Scheme table_scheme(const TableFormat& format) {
  size_t number = 0;
  while (number < kSchemes.size() && table_format(static_cast<Scheme>(number)) != format) ++number;
  assert(number < kSchemes.size());
  return static_cast<Scheme>(number);
}

std::optional<TableFormat> table_format(Scheme scheme) {
  if (static_cast<size_t>(scheme) >= kSchemes.size()) return std::nullopt;
  const SchemeFacts& facts = scheme_facts(scheme);
  if (!is_table(facts.kind)) return std::nullopt;
  return TableFormat{facts.bits, facts.group, !facts.table, facts.activations == ActivationType::int8};
}

std::span<const Scheme> matrix_schemes() {
  static const std::vector<Scheme> schemes = [] {
    std::vector<Scheme> found;
    for (size_t i = 0; i < kSchemes.size(); ++i)
      if (kSchemes[i].stores_matrices()) found.push_back(static_cast<Scheme>(i));
    return found;
  }();
  return schemes;
}

const char* matrix_scheme_names() {
  static const std::string names = [] {
    std::string list;
    for (const Scheme scheme : matrix_schemes()) {
      if (!list.empty()) list += ' ';
      list += scheme_name(scheme);
    }
    return list;
  }();
  return names.c_str();
}

std::string_view scheme_name(Scheme scheme) {
  return static_cast<size_t>(scheme) < kSchemes.size() ? name_of(scheme) : "unknown";
}

std::optional<Scheme> parse_scheme(std::string_view name) {
  for (size_t i = 0; i < kSchemes.size(); ++i)
    if (kSchemes[i].name == name) return static_cast<Scheme>(i);
  return std::nullopt;
}

ActivationType activation_type(Scheme scheme) { return scheme_facts(scheme).activations; }

bool has_row_scales(Scheme scheme) { return scheme_facts(scheme).row_scales; }

size_t most_summed_columns(Scheme scheme) {
  const size_t largest_code = scheme_facts(scheme).largest_code;
  if (largest_code == 0) return std::numeric_limits<size_t>::max();
  // Partial sums may wrap: only the last one, codes less their zero point times activations, has to fit.
  constexpr size_t kMostActivation = 127;
  return size_t{std::numeric_limits<int32_t>::max()} / (largest_code * kMostActivation);
}

size_t group_columns(Scheme scheme) { return scheme_facts(scheme).group; }

size_t padded_columns(Scheme scheme, size_t columns) {
  const SchemeFacts& facts = scheme_facts(scheme);
  return facts.stores_matrices() ? tile::round_up(columns, facts.column_pad) : columns;
}

size_t panel_bytes(Scheme scheme, size_t columns) {
  const SchemeFacts& facts = scheme_facts(scheme);
  if (!facts.stores_matrices()) return 0;
  return padded_columns(scheme, columns) / facts.column_pad * facts.unit_bytes;
}

double bits_per_weight(Scheme scheme, size_t rows, size_t columns) {
  const std::array<uint64_t, 2> shape{rows, columns};
  const std::optional<uint64_t> bytes = stored_bytes(scheme, shape);
  if (!bytes) return 0.0;
  return static_cast<double>(*bytes) * 8.0 / (static_cast<double>(rows) * static_cast<double>(columns));
}

std::optional<uint64_t> stored_bytes(Scheme scheme, std::span<const uint64_t> shape) {
  const SchemeFacts& facts = scheme_facts(scheme);
  if (shape.size() == 1) {
    if (facts.vector_bytes == 0 || shape[0] == 0) return std::nullopt;
    return checked_multiply(shape[0], facts.vector_bytes);
  }
  if (!facts.stores_matrices() || shape.size() != 2 || shape[0] == 0 || shape[1] == 0) return std::nullopt;
  // Rounding up must not wrap either, so both dimensions are held well below 2^63 first.
  if (shape[0] > kMostBytes - kPanelRows || shape[1] > kMostBytes - facts.column_pad) return std::nullopt;
  const uint64_t row_bytes = (facts.row_scales ? 4u : 0u) + (facts.row_zeros ? 1u : 0u);
  const uint64_t table_bytes = facts.table ? tile::kTableBytes : 0u;
  const uint64_t panels = (shape[0] + kPanelRows - 1) / kPanelRows;
  const uint64_t units = (shape[1] + facts.column_pad - 1) / facts.column_pad;
  const std::optional<uint64_t> one_panel = checked_multiply(units, facts.unit_bytes);
  if (!one_panel) return std::nullopt;
  const std::optional<uint64_t> all_panels = checked_multiply(panels, *one_panel);
  const std::optional<uint64_t> row_arrays = checked_multiply(panels, kPanelRows * row_bytes);
  if (!all_panels || !row_arrays || *row_arrays > kMostBytes - table_bytes) return std::nullopt;
  const uint64_t after_panels = *row_arrays + table_bytes;
  if (*all_panels > kMostBytes - after_panels) return std::nullopt;
  return *all_panels + after_panels;
}

RowTail row_tail(Scheme scheme, size_t rows, size_t columns) {
  const SchemeFacts& facts = scheme_facts(scheme);
  const size_t padded_rows = tile::round_up(rows, kPanelRows);
  const size_t scales = padded_rows / kPanelRows * panel_bytes(scheme, columns);
  const size_t zeros = scales + (facts.row_scales ? padded_rows * 4 : 0);
  const size_t table = zeros + (facts.row_zeros ? padded_rows : 0);
  return {scales, zeros, table};
}

}  // namespace tessera
