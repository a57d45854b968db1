#include "engine/quantize/keep/kept_codes.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "engine/codec/matrix_codec.h"
#include "engine/codec/table_levels.h"

namespace tessera::keep {

namespace {

constexpr int32_t kByteZero = 128;         // the code that w8a8 and int8 mean 0 by
constexpr float kHalfOverflow = 65520.0f;  // f16 rounds this and more to infinity
constexpr int kHighestOfF16 = 15;          // exponent
constexpr int kMostShift = 60;             // leaves tables and scales far from the ends of their exponents

struct Question {
  const PackedFormat& format;
  const LevelFacts& facts;
  size_t columns;
  const SchemeFacts& scheme;

  bool one_offset() const { return facts.lowest_offset == facts.highest_offset; }
  // Whether no group of the scheme reaches over the end of one of the matrix.
  bool groups_fit() const { return format.group >= columns || format.group % scheme.group == 0; }
};

// What is added to codes that become signed bytes around 128; nothing where some would not fit.
std::optional<int32_t> shift_to_bytes(const Question& ask) {
  if (ask.format.meaning != PackedMeaning::zero_point || !ask.facts.whole_offsets() || !ask.one_offset())
    return std::nullopt;
  const float shift = static_cast<float>(kByteZero) - ask.facts.lowest_offset;
  const float highest_code = static_cast<float>((1u << ask.format.bits) - 1);
  if (!(shift >= 0) || !(highest_code + shift <= 255)) return std::nullopt;
  return static_cast<int32_t>(shift);
}

bool hold_scales(const Question& ask, KeptCodes& kept) {
  kept.rounds.scales = !ask.facts.scales.in_f16();
  return ask.facts.largest_scale < kHalfOverflow;
}

bool hold_offsets(const Question& ask, KeptCodes& kept) {
  kept.rounds.offsets = !ask.facts.offsets.in_f16();
  return ask.facts.largest_offset < kHalfOverflow;
}

// A scale for a row in f32, which is not negative.
bool in_row_bytes(const Question& ask, KeptCodes& kept) {
  const std::optional<int32_t> shift = shift_to_bytes(ask);
  if (!shift || ask.format.group < ask.columns || ask.facts.negative) return false;
  kept.code_shift = *shift;
  return true;
}

bool in_int8(const Question& ask, KeptCodes& kept) {
  const std::optional<int32_t> shift = shift_to_bytes(ask);
  if (!shift || !ask.groups_fit() || !hold_scales(ask, kept)) return false;
  kept.code_shift = *shift;
  return true;
}

// Scales may be moved by a power of two that the table is divided by: f16 has few exponents, bfloat16 many.
// With int8 activations entries are multiples of 1/127, and scales 127 times as large for whole numbers.
bool in_table(const Question& ask, KeptCodes& kept) {
  const bool zero_point = ask.format.meaning == PackedMeaning::zero_point;
  if (!zero_point && ask.format.meaning != PackedMeaning::table) return false;
  if (ask.format.bits > ask.scheme.bits || !ask.groups_fit() || (zero_point && !ask.one_offset()))
    return false;
  const BinaryDigits& scales = ask.facts.scales;
  const TableFormat target{ask.scheme.bits, ask.scheme.group, false,
                           ask.scheme.activations == ActivationType::int8};
  std::array<float, 16> values{};
  const size_t entries = size_t{1} << ask.format.bits;
  float largest = 0;
  bool whole = true;
  for (size_t code = 0; code < entries; ++code) {
    values[code] = zero_point ? static_cast<float>(code) - ask.facts.lowest_offset : ask.format.table[code];
    largest = std::max(largest, std::abs(values[code]));
    whole = whole && std::nearbyint(values[code]) == values[code];
  }
  if (!std::isfinite(largest)) return false;
  if (target.int8_activations) {
    kept.scale_factor = whole && largest <= 127 ? 127.0f : largest > 0 ? largest : 1.0f;
    kept.rounds.scales = !scales.empty();
  } else {
    int shift = scales.in_f16() ? 0 : kHighestOfF16 - scales.highest;
    if (!scales.in_f16(shift)) --shift;  // rounding must not reach infinity
    if (std::abs(shift) > kMostShift) return false;
    kept.scale_factor = std::ldexp(1.0f, shift);
    kept.rounds.scales = !scales.in_f16(shift);
  }
  if (!(ask.facts.largest_scale * kept.scale_factor < kHalfOverflow)) return false;
  for (size_t code = 0; code < entries; ++code) {
    const float exact = values[code] / kept.scale_factor;
    kept.table[code] = stored_entry(target, static_cast<double>(exact));
    kept.rounds.table = kept.rounds.table || kept.table[code] != exact;
  }
  return true;
}

bool in_int4(const Question& ask, KeptCodes& kept) {
  return ask.format.meaning == PackedMeaning::zero_point && ask.format.bits <= ask.scheme.bits &&
         ask.groups_fit() && hold_scales(ask, kept) && hold_offsets(ask, kept);
}

bool in_int4m(const Question& ask, KeptCodes& kept) {
  return ask.format.meaning == PackedMeaning::minimum && ask.format.bits <= ask.scheme.bits &&
         ask.groups_fit() && hold_scales(ask, kept) && hold_offsets(ask, kept);
}

bool in_int4k(const Question& ask, KeptCodes& kept) {
  return ask.format.meaning == PackedMeaning::nested && ask.format.bits <= ask.scheme.bits &&
         ask.format.group == ask.scheme.group && ask.format.block == ask.scheme.column_pad &&
         hold_scales(ask, kept) && hold_offsets(ask, kept);
}

// Whether a kind of scheme holds the codes, and how.
struct Holder {
  CodeKind kind;
  bool (*holds)(const Question& ask, KeptCodes& kept);
};
constexpr std::array kHolders = {
    Holder{CodeKind::row_bytes, in_row_bytes}, Holder{CodeKind::int8, in_int8},
    Holder{CodeKind::lut2, in_table},          Holder{CodeKind::lut3, in_table},
    Holder{CodeKind::lut4, in_table},          Holder{CodeKind::int4, in_int4},
    Holder{CodeKind::int4m, in_int4m},         Holder{CodeKind::int4k, in_int4k},
};

const Holder* holder_of(CodeKind kind) {
  const auto found =
      std::find_if(kHolders.begin(), kHolders.end(), [&](const Holder& each) { return each.kind == kind; });
  return found == kHolders.end() ? nullptr : &*found;
}

// -0 becomes 0.
float scaled(float scale, float factor) { return scale * factor + 0.0f; }

// Which group of a packed row the columns of a group of the scheme belong to.
size_t group_of(const KeptCodes& kept, size_t group) {
  return group * scheme_facts(kept.scheme).group / kept.format.group;
}

class RowWriter {
 public:
  RowWriter(const KeptCodes& kept, size_t rows, size_t columns, const PackedRows& packed,
            std::span<std::byte> out)
      : kept_(kept),
        facts_(scheme_facts(kept.scheme)),
        rows_(rows),
        columns_(columns),
        source_groups_((columns + kept.format.group - 1) / kept.format.group),
        groups_(facts_.group == 0 ? 1 : (columns + facts_.group - 1) / facts_.group),
        packed_(packed),
        out_(out),
        codes_(columns) {
    table_levels_.group_columns = std::max<size_t>(1, facts_.group);
    group_levels_.kind = facts_.kind;
    group_levels_.group_columns = std::max<size_t>(1, facts_.group);
    row_levels_.group_columns = columns;
    row_levels_.groups.resize(1);
  }

  void write(size_t row, size_t from) {
    const auto source = std::span(packed_.codes).subspan(from * columns_, columns_);
    std::span<const uint8_t> codes = source;
    if (kept_.code_shift != 0) {
      for (size_t i = 0; i < columns_; ++i) codes_[i] = static_cast<uint8_t>(source[i] + kept_.code_shift);
      codes = codes_;
    }
    if (facts_.row_scales)
      write_row_scale(row, from, codes);
    else if (table_format(kept_.scheme))
      write_table_levels(row, from, codes);
    else
      write_group_levels(row, from, codes);
  }

  void pad(size_t row) {
    if (facts_.row_scales)
      store_row(kept_.scheme, rows_, columns_, row, panel::CodedRow{}, out_);
    else if (table_format(kept_.scheme))
      store_row(kept_.scheme, rows_, columns_, row, panel::CodedTableRow{}, out_);
    else
      store_row(kept_.scheme, rows_, columns_, row, panel::CodedGroupRow{}, out_);
  }

 private:
  float scale(size_t from, size_t group) const {
    return scaled(packed_.scales[from * source_groups_ + group_of(kept_, group)], kept_.scale_factor);
  }
  float offset(size_t from, size_t group) const {
    return packed_.offsets[from * source_groups_ + group_of(kept_, group)];
  }

  // A row without a scale is zero, which files say with the codes too.
  void write_row_scale(size_t row, size_t from, std::span<const uint8_t> codes) {
    row_levels_.scale = scaled(packed_.scales[from * source_groups_], 1.0f);
    if (row_levels_.scale == 0.0f) {
      std::fill(codes_.begin(), codes_.end(), static_cast<uint8_t>(kByteZero));
      codes = codes_;
    }
    store_row(kept_.scheme, rows_, columns_, row, panel::CodedRow{&row_levels_, codes}, out_);
  }

  void write_table_levels(size_t row, size_t from, std::span<const uint8_t> codes) {
    table_levels_.groups.resize(groups_);
    for (size_t group = 0; group < groups_; ++group)
      table_levels_.groups[group] = {scale(from, group), facts_.table ? 0.0f : offset(from, group)};
    store_row(kept_.scheme, rows_, columns_, row, panel::CodedTableRow{&table_levels_, codes}, out_);
  }

  void write_group_levels(size_t row, size_t from, std::span<const uint8_t> codes) {
    if (kept_.format.meaning == PackedMeaning::nested) {
      const size_t blocks = (columns_ + kept_.format.block - 1) / kept_.format.block;
      copy(packed_.block_scales, from, blocks, group_levels_.scales);
      copy(packed_.block_minimums, from, blocks, group_levels_.minimums);
      copy(packed_.group_scales, from, source_groups_, group_levels_.group_scales);
      copy(packed_.group_minimums, from, source_groups_, group_levels_.group_minimums);
    } else {
      group_levels_.scales.resize(groups_);
      for (size_t group = 0; group < groups_; ++group) group_levels_.scales[group] = scale(from, group);
      if (facts_.offset == GroupOffset::minimum) {
        group_levels_.minimums.resize(groups_);
        for (size_t group = 0; group < groups_; ++group) group_levels_.minimums[group] = offset(from, group);
      }
    }
    store_row(kept_.scheme, rows_, columns_, row, panel::CodedGroupRow{&group_levels_, codes}, out_);
  }

  template <class Value>
  static void copy(const std::vector<Value>& all, size_t row, size_t count, std::vector<Value>& out) {
    const auto part = std::span(all).subspan(row * count, count);
    out.assign(part.begin(), part.end());
  }

  const KeptCodes& kept_;
  const SchemeFacts& facts_;
  size_t rows_;
  size_t columns_;
  size_t source_groups_;
  size_t groups_;  // of the scheme
  const PackedRows& packed_;
  std::span<std::byte> out_;
  std::vector<uint8_t> codes_;
  RowLevels row_levels_;
  TableLevels table_levels_;
  GroupLevels group_levels_;
};

}  // namespace

std::optional<KeptCodes> kept_codes(const PackedFormat& format, const LevelFacts& facts, size_t rows,
                                    size_t columns, ActivationType activations) {
  if (!facts.finite || !format.order.empty()) return std::nullopt;
  std::optional<KeptCodes> best;
  uint64_t fewest = 0;
  for (const Scheme scheme : matrix_schemes()) {
    const SchemeFacts& candidate = scheme_facts(scheme);
    const Holder* holder = holder_of(candidate.kind);
    if (holder == nullptr || columns > most_summed_columns(scheme)) continue;
    if (candidate.activations != activations && candidate.kind != CodeKind::row_bytes) continue;
    KeptCodes kept;
    if (!holder->holds({format, facts, columns, candidate}, kept)) continue;
    const std::optional<uint64_t> bytes = stored_bytes(scheme, std::array<uint64_t, 2>{rows, columns});
    if (!bytes) continue;
    const bool better = !best || (best->rounds.any() && !kept.rounds.any()) ||
                        (best->rounds.any() == kept.rounds.any() && *bytes < fewest);
    if (!better) continue;
    best = kept;
    best->scheme = scheme;
    fewest = *bytes;
  }
  if (best) best->format = format;
  return best;
}

void store_kept_rows(const KeptCodes& kept, size_t rows, size_t columns, const PackedRows& packed,
                     std::span<const size_t> from, size_t first_row, std::span<std::byte> out) {
  RowWriter writer(kept, rows, columns, packed, out);
  for (size_t i = 0; i < from.size(); ++i) writer.write(first_row + i, from[i]);
  if (first_row + from.size() != rows) return;
  for (size_t row = rows; row < tile::round_up(rows, tile::kPanelRows); ++row) writer.pad(row);
}

}  // namespace tessera::keep
