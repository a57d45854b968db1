// Products with scales per group in plain loops. A group of columns is expanded to one value per weight once
// for several tokens; expanded panels are multiplied by the same loops, so both ways give the same bits.
#include <cmath>
#include <cstring>

#include "backends/cpu/portable/portable.h"
#include "gguf-like-format/float_types.h"
#include "gguf-like-format/tile_layout.h"
#include "graph/bf16_row.h"
#include "graph/q8_row.h"

namespace tessera::cpu::portable {

namespace {

constexpr size_t kRows = tile::kPanelRows;
constexpr size_t kUnit = tile::kTableUnitColumns;
constexpr size_t kMostGroup = 256;
constexpr size_t kTokens = 8;  // that share the values of a group

static_assert(q8::kFineGroup == kUnit && bf16_row::kGroup == kUnit, "rows hold a sum per unit of columns");
static_assert(255 * 127 * kMostGroup < (size_t{1} << 24), "a group's sum of bytes is a whole float");

template <class Value>
Value read(const uint8_t* at) {
  Value value{};
  std::memcpy(&value, at, sizeof value);
  return value;
}

template <class Value>
void write(uint8_t* at, Value value) {
  std::memcpy(at, &value, sizeof value);
}

// A kind of codes: their width, how their groups are put together, and where a panel has them.
template <size_t kCodeBits, GroupForm kGroupForm>
struct Groups {
  static constexpr size_t kBits = kCodeBits;
  static constexpr GroupForm kForm = kGroupForm;
  static constexpr bool kOffsets = has_offsets(kForm);

  static const uint8_t* unit(const uint8_t* panel, size_t columns, size_t column) {
    return panel + tile::table_unit_byte(kBits, columns, kOffsets, column);
  }
  static float scale(const uint8_t* panel, size_t columns, size_t row, size_t group) {
    return f16_to_f32(read<uint16_t>(panel + tile::table_scale_byte(kBits, columns, kOffsets, row, group)));
  }
  static float offset(const uint8_t* panel, size_t columns, size_t row, size_t group) {
    return f16_to_f32(read<uint16_t>(panel + tile::table_zero_byte(kBits, columns, row, group)));
  }
};
using Lut2 = Groups<2, GroupForm::table>;
using Lut3 = Groups<3, GroupForm::table>;
using Lut4 = Groups<4, GroupForm::table>;
using Int4 = Groups<4, GroupForm::zero_points>;
using Int8Groups = Groups<8, GroupForm::bytes>;
using Int4m = Groups<4, GroupForm::minimums>;

struct Int4k {
  static constexpr size_t kBits = 4;
  static constexpr GroupForm kForm = GroupForm::minimums;
  static constexpr bool kOffsets = true;

  static const uint8_t* unit(const uint8_t* panel, size_t, size_t column) {
    return panel + tile::nested_unit_byte(column);
  }
  static float scale(const uint8_t* panel, size_t, size_t row, size_t group) {
    const size_t block = group / tile::kNestedGroups;
    return f16_to_f32(read<uint16_t>(panel + tile::nested_scale_byte(row, block))) *
           static_cast<float>(panel[tile::nested_group_scale_byte(row, group)]);
  }
  static float offset(const uint8_t* panel, size_t, size_t row, size_t group) {
    const size_t block = group / tile::kNestedGroups;
    return -f16_to_f32(read<uint16_t>(panel + tile::nested_minimum_byte(row, block))) *
           static_cast<float>(panel[tile::nested_group_minimum_byte(row, group)]);
  }
};

template <class Format>
unsigned code_at(const uint8_t* unit, size_t row, size_t column) {
  const tile::CodeBits at = tile::code_in_unit(Format::kBits, row, column);
  unsigned code = (static_cast<unsigned>(unit[at.byte]) >> at.shift) & ((1u << at.low) - 1);
  if (at.low < Format::kBits) {
    code |= ((static_cast<unsigned>(unit[at.high_byte]) >> at.high_shift) & 1u) << at.low;
  }
  return code;
}

template <class Format>
constexpr size_t kEntries = size_t{1} << (Format::kBits == 8 ? 8 : 4);  // tables always have 16

// With int8 activations: values are bytes 4 columns to a row.
struct Int8 {
  using Value = uint8_t;

  static size_t byte_of(size_t row, size_t column) { return tile::byte_in_panel(row, column); }

  template <class Format>
  static void entries(const float* table, Value* values) {
    for (size_t i = 0; i < kEntries<Format>; ++i) {
      if constexpr (Format::kForm == GroupForm::table) {
        // The bounds, which files keep, make the conversion defined whatever the table holds.
        const float t = std::fmin(std::fmax(std::nearbyint(127.0f * table[i]), -127.0f), 127.0f);
        values[i] = static_cast<Value>(static_cast<int>(t) + 128);
      } else {
        values[i] = static_cast<Value>(i);
      }
    }
  }

  static float factor(const uint8_t* row, size_t columns, GroupForm form) {
    const auto scale = read<float>(row + q8::scale_offset(columns));
    return form == GroupForm::table ? scale / 127.0f : scale;
  }

  static float sum_of_group(const uint8_t* row, size_t columns, size_t first, size_t group) {
    int32_t sum = 0;
    for (size_t k = first; k < first + group; k += kUnit) {
      sum += read<int32_t>(row + q8::fine_sums_offset(columns) + 4 * (k / kUnit));
    }
    return static_cast<float>(sum);
  }

  static void dots(const uint8_t* values, const uint8_t* row, size_t first, size_t group, float* out) {
    const auto* x = reinterpret_cast<const int8_t*>(row) + first;
    int32_t sums[kRows] = {};
    for (size_t k = 0; k < group; k += 4) {
      const uint8_t* line = values + tile::byte_in_panel(0, k);
      for (size_t r = 0; r < kRows; ++r) {
        for (size_t j = 0; j < 4; ++j) sums[r] += static_cast<int32_t>(line[4 * r + j]) * x[k + j];
      }
    }
    for (size_t r = 0; r < kRows; ++r) out[r] = static_cast<float>(sums[r]);
  }

  // What a value that stands for 0 is with tables and under int8.
  static constexpr float kZero = 128;
};

// With bfloat16 activations: values are bfloat16, 2 columns to a row, in the order of the activations.
struct Bf16 {
  using Value = uint16_t;

  static size_t byte_of(size_t row, size_t column) {
    return sizeof(Value) * tile::bf16_in_panel(row, tile::bf16_position(column));
  }

  template <class Format>
  static void entries(const float* table, Value* values) {
    for (size_t i = 0; i < kEntries<Format>; ++i) {
      const float code = static_cast<float>(i);
      values[i] = f32_to_bf16(Format::kForm == GroupForm::table   ? table[i]
                              : Format::kForm == GroupForm::bytes ? code - 128.0f
                                                                  : code);
    }
  }

  static float factor(const uint8_t*, size_t, GroupForm) { return 1.0f; }

  static float sum_of_group(const uint8_t* row, size_t columns, size_t first, size_t group) {
    float sum = 0;
    for (size_t k = first; k < first + group; k += kUnit) {
      sum += read<float>(row + bf16_row::sums_offset(columns) + 4 * (k / kUnit));
    }
    return sum;
  }

  static void dots(const uint8_t* values, const uint8_t* row, size_t first, size_t group, float* out) {
    float sums[kRows] = {};
    for (size_t k = 0; k < group; ++k) {
      const float x = bf16_to_f32(read<uint16_t>(row + 2 * (first + k)));
      for (size_t r = 0; r < kRows; ++r) {
        sums[r] += bf16_to_f32(read<uint16_t>(values + 2 * tile::bf16_in_panel(r, k))) * x;
      }
    }
    for (size_t r = 0; r < kRows; ++r) out[r] = sums[r];
  }

  static constexpr float kZero = 0;
};

// Group `index` of a panel: its values, and scales and offsets of 16 rows.
template <class Mode, class Format>
void expand_group(const uint8_t* panel, size_t index, size_t columns, const typename Mode::Value* entries,
                  uint8_t* values, float* scales, float* offsets) {
  for (size_t k = 0; k < columns; ++k) {
    const uint8_t* unit = Format::unit(panel, columns, index * columns + k);
    for (size_t r = 0; r < kRows; ++r) {
      write(values + Mode::byte_of(r, k), entries[code_at<Format>(unit, r, k % kUnit)]);
    }
  }
  for (size_t r = 0; r < kRows; ++r) {
    scales[r] = Format::scale(panel, columns, r, index);
    if constexpr (Format::kOffsets) offsets[r] = Format::offset(panel, columns, r, index);
  }
}

// The sums of one panel for up to kTokens tokens, which both kinds of product have in common.
template <class Job>
class PanelSums {
 public:
  PanelSums(const Job& job, size_t panel, size_t token)
      : job_(job),
        panel_(panel),
        token_(token),
        tokens_(job.tokens - token < kTokens ? job.tokens - token : kTokens) {}

  // Adds one group: values and levels of 16 rows times the columns from `first` on.
  template <class Mode>
  void add_group(GroupForm form, const uint8_t* values, const float* scales, const float* offsets,
                 size_t first) {
    for (size_t t = 0; t < tokens_; ++t) {
      const uint8_t* row = job_.x + (token_ + t) * job_.x_stride;
      float dots[kRows];
      Mode::dots(values, row, first, job_.group, dots);
      const float sum = Mode::sum_of_group(row, job_.x_columns, first, job_.group);
      for (size_t r = 0; r < kRows; ++r) {
        if (form == GroupForm::minimums) {
          sums_[t][r] = std::fma(scales[r], dots[r], sums_[t][r]);
          sums_[t][r] = std::fma(offsets[r], sum, sums_[t][r]);
        } else {
          const float zero = form == GroupForm::zero_points ? offsets[r] : Mode::kZero;
          sums_[t][r] = std::fma(scales[r], std::fma(-zero, sum, dots[r]), sums_[t][r]);
        }
      }
    }
  }

  template <class Mode>
  void store(GroupForm form) const {
    for (size_t t = 0; t < tokens_; ++t) {
      const uint8_t* row = job_.x + (token_ + t) * job_.x_stride;
      const float factor = Mode::factor(row, job_.x_columns, form);
      for (size_t r = 0; r < kRows && panel_ * kRows + r < job_.rows; ++r) {
        const size_t n = panel_ * kRows + r;
        // Two statements, so that no compiler fuses the addition into the multiplication.
        float y = sums_[t][r] * factor;
        if (job_.bias != nullptr) y += job_.bias[n];
        job_.y[(token_ + t) * job_.y_stride + n] = y;
      }
    }
  }

 private:
  const Job& job_;
  size_t panel_;
  size_t token_;
  size_t tokens_;
  float sums_[kTokens][kRows] = {};
};

template <class Mode, class Format>
void product(const TableProduct& job) {
  typename Mode::Value entries[kEntries<Format>];
  Mode::template entries<Format>(job.table, entries);
  for (size_t p = 0; p * kRows < job.rows; ++p) {
    for (size_t t = 0; t < job.tokens; t += kTokens) {
      PanelSums<TableProduct> sums(job, p, t);
      for (size_t g = 0; g < job.columns / job.group; ++g) {
        uint8_t values[kMostGroup * kRows * sizeof entries[0]];
        float scales[kRows];
        float offsets[kRows];
        expand_group<Mode, Format>(job.panels + p * job.panel_stride, g, job.group, entries, values, scales,
                                   offsets);
        sums.template add_group<Mode>(Format::kForm, values, scales, offsets, g * job.group);
      }
      sums.template store<Mode>(Format::kForm);
    }
  }
}

template <class Mode, class Format>
void expand(const uint8_t* panel, size_t columns, size_t group, const float* table,
            const ExpandedPanel& out) {
  typename Mode::Value entries[kEntries<Format>];
  Mode::template entries<Format>(table, entries);
  for (size_t g = 0; g < columns / group; ++g) {
    expand_group<Mode, Format>(panel, g, group, entries, out.values + g * group * kRows * sizeof entries[0],
                               out.scales + g * kRows, Format::kOffsets ? out.offsets + g * kRows : nullptr);
  }
}

template <class Mode>
void multiply_expanded(const ExpandedProduct& job) {
  for (size_t p = 0; p * kRows < job.rows; ++p) {
    const float* scales = job.scales + p * job.scales_stride;
    const float* offsets = has_offsets(job.form) ? job.offsets + p * job.scales_stride : nullptr;
    for (size_t t = 0; t < job.tokens; t += kTokens) {
      PanelSums<ExpandedProduct> sums(job, p, t);
      for (size_t g = 0; g < job.columns / job.group; ++g) {
        const size_t group_bytes = job.group * kRows * sizeof(typename Mode::Value);
        sums.template add_group<Mode>(job.form, job.values + p * job.values_stride + g * group_bytes,
                                      scales + g * kRows, offsets != nullptr ? offsets + g * kRows : nullptr,
                                      g * job.group);
      }
      sums.template store<Mode>(job.form);
    }
  }
}

template <class Mode, class Format>
constexpr TableCodeKernels kKernels{.product = product<Mode, Format>, .expand = expand<Mode, Format>};

template <class Mode>
constexpr TableKernels kTable{
    .code_tokens = kTokens,  // further tokens would expand the same codes again
    .codes = {kKernels<Mode, Lut2>, kKernels<Mode, Lut3>, kKernels<Mode, Lut4>, kKernels<Mode, Int4>,
              kKernels<Mode, Int8Groups>, kKernels<Mode, Int4m>, kKernels<Mode, Int4k>},
    .product_expanded = multiply_expanded<Mode>,
};

}  // namespace

constinit const TableKernels kTableInt8 = kTable<Int8>;
constinit const TableKernels kTableBf16 = kTable<Bf16>;

}  // namespace tessera::cpu::portable
