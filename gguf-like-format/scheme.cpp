#include "gguf-like-format/scheme.h"

#include <array>
#include <limits>
#include <vector>

#include "gguf-like-format/tile_layout.h"

namespace tessera {

namespace {

struct SchemeName {
  Scheme scheme;
  std::string_view name;
};

constexpr std::array<SchemeName, 8> kNames{{
    {Scheme::f32, "f32"},
    {Scheme::f16, "f16"},
    {Scheme::bf16, "bf16"},
    {Scheme::w8a8, "w8a8"},
    {Scheme::w4a8, "w4a8"},
    {Scheme::w4a8_g128, "w4a8-g128"},
    {Scheme::u8, "u8"},
    {Scheme::u32, "u32"},
}};

// A table scheme's number is kFirstTable + 8 * kind + 2 * log2(group / 32) + int8_activations.
constexpr unsigned kFirstTable = 64;
constexpr unsigned kTableKinds = 4;
constexpr unsigned kPerKind = 8;

struct TableKind {
  unsigned bits;
  bool zero_points;
};
constexpr std::array<TableKind, kTableKinds> kTableKindList{{{2, false}, {3, false}, {4, false}, {4, true}}};

struct TableName {
  std::array<char, 16> text{};
  size_t length = 0;

  constexpr void add(std::string_view part) {
    for (const char character : part) text[length++] = character;
  }
  constexpr std::string_view view() const { return {text.data(), length}; }
};

constexpr std::array<TableName, kTableKinds* kPerKind> kTableNames = [] {
  constexpr std::array<std::string_view, kTableKinds> kinds{"lut2", "lut3", "lut4", "int4"};
  constexpr std::array<std::string_view, 4> groups{"-g32", "-g64", "-g128", "-g256"};
  std::array<TableName, kTableKinds * kPerKind> names{};
  for (size_t i = 0; i < names.size(); ++i) {
    names[i].add(kinds[i / kPerKind]);
    names[i].add(groups[i % kPerKind / 2]);
    if (i % 2 == 1) names[i].add("-a8");
  }
  return names;
}();

// What the scheme asks of a matrix. Stored columns are a multiple of column_pad; panel_unit bytes hold
// column_pad columns of 16 rows; tail_row_bytes for every padded row and then tail_bytes follow all panels.
struct MatrixRule {
  uint64_t column_pad;
  uint64_t panel_unit;
  uint64_t tail_row_bytes = 0;
  uint64_t tail_bytes = 0;
};

std::optional<MatrixRule> matrix_rule(Scheme scheme) {
  constexpr uint64_t rows = tile::kPanelRows;
  constexpr uint64_t pad = tile::kIntegerColumnPad;
  if (const std::optional<TableFormat> format = table_format(scheme)) {
    const uint64_t unit = tile::table_group_bytes(format->bits, format->group, format->zero_points);
    return MatrixRule{format->group, unit, 0, format->zero_points ? 0 : tile::kTableBytes};
  }
  switch (scheme) {
    case Scheme::f32:
      return MatrixRule{1, rows * 4};
    case Scheme::f16:
      return MatrixRule{1, rows * 2};
    case Scheme::bf16:
      return MatrixRule{2, rows * 2 * 2};
    case Scheme::w8a8:
      return MatrixRule{pad, rows * pad, 4};
    case Scheme::w4a8:
      return MatrixRule{pad, rows * pad / 2, 5};
    case Scheme::w4a8_g128:
      return MatrixRule{tile::kGroupColumns, tile::kGroupBytes, 4};
    case Scheme::u8:
    case Scheme::u32:
      break;
  }
  return std::nullopt;
}

// Bytes of one element of a plain vector; 0 when the scheme stores no vectors.
uint64_t vector_element_bytes(Scheme scheme) {
  if (scheme == Scheme::f32 || scheme == Scheme::u32) return 4;
  return scheme == Scheme::u8 ? 1 : 0;
}

constexpr uint64_t kMostBytes = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());

std::optional<uint64_t> checked_multiply(uint64_t a, uint64_t b) {
  if (b != 0 && a > kMostBytes / b) return std::nullopt;
  return a * b;
}

}  // namespace

Scheme table_scheme(const TableFormat& format) {
  const unsigned kind = format.zero_points ? kTableKinds - 1 : format.bits - 2;
  unsigned group = 0;
  while ((size_t{32} << group) < format.group) ++group;
  return static_cast<Scheme>(kFirstTable + kPerKind * kind + 2 * group + (format.int8_activations ? 1 : 0));
}

std::optional<TableFormat> table_format(Scheme scheme) {
  const auto number = static_cast<unsigned>(scheme);
  if (number < kFirstTable || number >= kFirstTable + kTableNames.size()) return std::nullopt;
  const unsigned index = number - kFirstTable;
  const TableKind kind = kTableKindList[index / kPerKind];
  return TableFormat{kind.bits, size_t{32} << (index % kPerKind / 2), kind.zero_points, index % 2 == 1};
}

std::span<const Scheme> matrix_schemes() {
  static const std::vector<Scheme> schemes = [] {
    std::vector<Scheme> all{Scheme::f32,  Scheme::f16,  Scheme::bf16,
                            Scheme::w8a8, Scheme::w4a8, Scheme::w4a8_g128};
    for (unsigned i = 0; i < kTableNames.size(); ++i) all.push_back(static_cast<Scheme>(kFirstTable + i));
    return all;
  }();
  return schemes;
}

std::string_view scheme_name(Scheme scheme) {
  for (const SchemeName& entry : kNames)
    if (entry.scheme == scheme) return entry.name;
  if (table_format(scheme)) return kTableNames[static_cast<size_t>(scheme) - kFirstTable].view();
  return "unknown";
}

std::optional<Scheme> parse_scheme(std::string_view name) {
  for (const SchemeName& entry : kNames)
    if (entry.name == name) return entry.scheme;
  for (size_t i = 0; i < kTableNames.size(); ++i)
    if (kTableNames[i].view() == name) return static_cast<Scheme>(kFirstTable + i);
  return std::nullopt;
}

ActivationType activation_type(Scheme scheme) {
  if (const std::optional<TableFormat> format = table_format(scheme))
    return format->int8_activations ? ActivationType::int8 : ActivationType::bf16;
  return has_row_scales(scheme) ? ActivationType::int8 : ActivationType::f32;
}

bool has_row_scales(Scheme scheme) {
  return scheme == Scheme::w8a8 || scheme == Scheme::w4a8 || scheme == Scheme::w4a8_g128;
}

size_t most_summed_columns(Scheme scheme) {
  if (!has_row_scales(scheme)) return std::numeric_limits<size_t>::max();
  // Partial sums may wrap: only the last one, codes less their zero point times activations, has to fit.
  constexpr size_t kMostActivation = 127;
  const size_t most_code = scheme == Scheme::w4a8 ? 15 : 128;
  return size_t{std::numeric_limits<int32_t>::max()} / (most_code * kMostActivation);
}

size_t group_columns(Scheme scheme) {
  if (const std::optional<TableFormat> format = table_format(scheme)) return format->group;
  return scheme == Scheme::w4a8_g128 ? tile::kGroupColumns : 0;
}

size_t padded_columns(Scheme scheme, size_t columns) {
  const std::optional<MatrixRule> rule = matrix_rule(scheme);
  return rule ? tile::round_up(columns, static_cast<size_t>(rule->column_pad)) : columns;
}

size_t panel_bytes(Scheme scheme, size_t columns) {
  const std::optional<MatrixRule> rule = matrix_rule(scheme);
  if (!rule) return 0;
  return padded_columns(scheme, columns) / static_cast<size_t>(rule->column_pad) *
         static_cast<size_t>(rule->panel_unit);
}

double bits_per_weight(Scheme scheme, size_t rows, size_t columns) {
  const std::array<uint64_t, 2> shape{rows, columns};
  const std::optional<uint64_t> bytes = stored_bytes(scheme, shape);
  if (!bytes) return 0.0;
  return static_cast<double>(*bytes) * 8.0 / (static_cast<double>(rows) * static_cast<double>(columns));
}

std::optional<uint64_t> stored_bytes(Scheme scheme, std::span<const uint64_t> shape) {
  if (shape.size() == 1) {
    const uint64_t element = vector_element_bytes(scheme);
    if (element == 0 || shape[0] == 0) return std::nullopt;
    return checked_multiply(shape[0], element);
  }
  const std::optional<MatrixRule> rule = matrix_rule(scheme);
  if (!rule || shape.size() != 2 || shape[0] == 0 || shape[1] == 0) return std::nullopt;
  // Rounding up must not wrap either, so both dimensions are held well below 2^63 first.
  if (shape[0] > kMostBytes - tile::kPanelRows || shape[1] > kMostBytes - rule->column_pad)
    return std::nullopt;
  const uint64_t panels = (shape[0] + tile::kPanelRows - 1) / tile::kPanelRows;
  const uint64_t units = (shape[1] + rule->column_pad - 1) / rule->column_pad;
  const std::optional<uint64_t> one_panel = checked_multiply(units, rule->panel_unit);
  if (!one_panel) return std::nullopt;
  const std::optional<uint64_t> all_panels = checked_multiply(panels, *one_panel);
  const std::optional<uint64_t> tail = checked_multiply(panels, tile::kPanelRows * rule->tail_row_bytes);
  if (!all_panels || !tail || *tail > kMostBytes - rule->tail_bytes) return std::nullopt;
  const uint64_t whole_tail = *tail + rule->tail_bytes;
  if (*all_panels > kMostBytes - whole_tail) return std::nullopt;
  return *all_panels + whole_tail;
}

RowTail row_tail(Scheme scheme, size_t rows, size_t columns) {
  const size_t padded_rows = tile::round_up(rows, tile::kPanelRows);
  const size_t scales =
      padded_rows / tile::kPanelRows * panel_bytes(scheme, columns);  // the end of the panels
  return {scales, scales + padded_rows * 4, scales};
}

}  // namespace tessera
