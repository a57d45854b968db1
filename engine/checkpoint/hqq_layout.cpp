// HQQ. The weight [rows, columns] is reshaped to a table whose lines are groups (axis 1: [groups, size]) or
// whose columns are (axis 0: [size, groups]); lines are packed: a word holds the same place of several lines
// that lie a step apart, the first in its highest bits. scale and zero are floats, one for each group; a
// value is (q - zero) * scale.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "engine/checkpoint/module_patterns.h"
#include "engine/checkpoint/packed_layout.h"

namespace tessera {

namespace {

constexpr size_t kMostWordBytes = 64;

struct PackingRow {
  std::string_view name;  // the tensor X.packing
  unsigned bits;          // of a place in a word
  unsigned lines;         // in a word
  CheckpointType word;
};
constexpr std::array kPackings = {
    PackingRow{"8bit_u8", 8, 1, CheckpointType::u8},   PackingRow{"4bit_u8", 4, 2, CheckpointType::u8},
    PackingRow{"3bit_32", 3, 10, CheckpointType::i32}, PackingRow{"2bit_u8", 2, 4, CheckpointType::u8},
    PackingRow{"1bit_u8", 1, 8, CheckpointType::u8},
};
// By bits of codes; wider ones have no packing of their own.
constexpr std::array<std::string_view, 9> kTypeNames{"",      "HQQ-1", "HQQ-2", "HQQ-3", "HQQ-4",
                                                     "HQQ-5", "HQQ-6", "",      "HQQ-8"};
// What files hold beside codes and levels: how they were made, and settings that other tensors repeat.
constexpr std::array<std::string_view, 16> kDescriptions{".nbits",
                                                         ".group_size",
                                                         ".shape",
                                                         ".axis",
                                                         ".packing",
                                                         ".view_as_float",
                                                         ".unpack_view_dtype",
                                                         ".quant_scale",
                                                         ".quant_zero",
                                                         ".compute_dtype",
                                                         ".offload_meta",
                                                         ".channel_wise",
                                                         ".optimize",
                                                         ".round_zero",
                                                         ".encoded_state_dict",
                                                         ".stores_quant_config"};

// A layer's name as settings have it, the same in every block of the model: "model.layers.3.mlp.up_proj" is
// "mlp.up_proj".
std::string layer_kind(std::string_view module) {
  std::string kind;
  for (size_t at = 0; at <= module.size();) {
    const size_t end = std::min(module.find('.', at), module.size());
    const std::string_view word = module.substr(at, end - at);
    const bool number = word.find_first_not_of("0123456789") == std::string_view::npos;
    if (!number && word != "model" && word != "layers")
      kind += fmt::format("{}{}", kind.empty() ? "" : ".", word);
    at = end + 1;
  }
  return kind;
}

// Codes in the table's shape.
struct CodeTable {
  const CheckpointTensor* words = nullptr;  // [step, width]
  const PackingRow* packing = nullptr;
  uint64_t width = 0;

  uint64_t step() const { return words->shape[0]; }
  // The codes of `out.size()` neighbours of one line.
  void read(uint64_t line, uint64_t first, std::span<uint8_t> out) const {
    const unsigned shift = packing->bits * (packing->lines - 1 - static_cast<unsigned>(line / step()));
    const auto mask = static_cast<uint8_t>((1u << packing->bits) - 1);
    const size_t at = line % step() * width + first;
    if (packing->word == CheckpointType::u8) {
      for (size_t i = 0; i < out.size(); ++i)
        out[i] = static_cast<uint8_t>(std::to_integer<unsigned>(words->bytes[at + i]) >> shift) & mask;
    } else {
      for (size_t i = 0; i < out.size(); ++i)
        out[i] = static_cast<uint8_t>(static_cast<uint32_t>(integer_at(*words, at + i)) >> shift) & mask;
    }
  }
};

struct Levels {
  const CheckpointTensor* scales = nullptr;
  const CheckpointTensor* zeros = nullptr;
};

// axis 1 with groups that lie within rows.
class HqqReader : public GroupedReader {
 public:
  HqqReader(uint64_t columns, unsigned bits, uint64_t group, const CodeTable& codes, const Levels& levels)
      : GroupedReader(columns, {PackedMeaning::zero_point, bits, 0, 0, {}, {}}, {group, {}, {}}),
        codes_(codes),
        levels_(levels) {}

 protected:
  void read_codes(uint64_t first_row, uint64_t rows, std::span<uint8_t> out) const override {
    const auto size = static_cast<size_t>(group_size());
    for (uint64_t i = 0; i < rows * groups(); ++i)
      codes_.read(first_row * groups() + i, 0, out.subspan(i * size, size));
  }
  void read_levels(uint64_t first_row, uint64_t rows, std::span<float> scales,
                   std::span<float> offsets) const override {
    for (uint64_t i = 0; i < rows * groups(); ++i) {
      scales[i] = float_at(*levels_.scales, first_row * groups() + i);
      offsets[i] = float_at(*levels_.zeros, first_row * groups() + i);
    }
  }

 private:
  CodeTable codes_;
  Levels levels_;
};

// Groups that do not lie within rows: as floats.
class HqqFloatReader : public PackedReader {
 public:
  HqqFloatReader(uint64_t columns, unsigned axis, const CodeTable& codes, const Levels& levels)
      : columns_(columns), axis_(axis), codes_(codes), levels_(levels) {}

  void read_rows(uint64_t first_row, uint64_t rows, std::span<float> out) const override {
    const uint64_t width = codes_.width;
    std::vector<uint8_t> codes(static_cast<size_t>(width));
    const uint64_t end = (first_row + rows) * columns_;
    for (uint64_t at = first_row * columns_; at < end;) {
      const uint64_t line = at / width;
      const uint64_t first = at % width;
      const uint64_t count = std::min(width - first, end - at);
      const auto part = std::span(codes).first(static_cast<size_t>(count));
      codes_.read(line, first, part);
      for (uint64_t i = 0; i < count; ++i) {
        const uint64_t group = axis_ == 0 ? first + i : line;
        out[at - first_row * columns_ + i] = float_at(*levels_.scales, group) *
                                             (static_cast<float>(part[i]) - float_at(*levels_.zeros, group));
      }
      at += count;
    }
  }

 private:
  uint64_t columns_;
  unsigned axis_;
  CodeTable codes_;
  Levels levels_;
};

class HqqLayout : public PackedLayout {
 public:
  explicit HqqLayout(const JsonFields& fields) : skipped_(string_list(fields, "skip_modules")) {
    fields.object("quant_config");
  }

  std::vector<PackedTensor> find(const TensorParts& tensors) const override {
    std::vector<PackedTensor> found;
    for (const std::string& module : tensors.modules(".W_q")) found.push_back(matrix(tensors, module));
    return found;
  }

 private:
  PackedTensor matrix(const TensorParts& tensors, const std::string& module) const {
    const CheckpointTensor& words = *tensors.find(module + ".W_q");
    const auto part = [&](std::string_view end) -> const CheckpointTensor& {
      return tensors.require(module + std::string(end), words.name);
    };
    if (std::find(skipped_.begin(), skipped_.end(), layer_kind(module)) != skipped_.end())
      tensors.refuse(words, "no codes, as skip_modules names its layer", "some");
    for (const std::string_view nested : {".zero_q", ".scale_q", ".zero_scale"})
      if (const CheckpointTensor* levels = tensors.find(module + std::string(nested)))
        tensors.refuse(*levels, "levels in floats (packed levels are not supported)", "codes of them");
    const CheckpointTensor& scales = part(".scale");
    const CheckpointTensor& zeros = part(".zero");
    tensors.check_levels(scales);
    tensors.check_levels(zeros);
    const auto [rows, columns] = tensors.matrix_shape(part(".shape"));
    const uint64_t axis = tensors.scalar(part(".axis"));
    if (axis > 1) tensors.refuse(part(".axis"), "0 or 1", fmt::format("{}", axis));
    const CheckpointTensor& bits_tensor = part(".nbits");
    const uint64_t bits = tensors.scalar(bits_tensor);
    if (bits >= kTypeNames.size() || kTypeNames[bits].empty())
      tensors.refuse(bits_tensor, "1, 2, 3, 4, 5, 6 or 8", fmt::format("{}", bits));
    const PackingRow& packing = packing_of(tensors, part(".packing"), bits);
    if (words.type != packing.word)
      tensors.refuse(words, fmt::format("type {} of {}", type_name(packing.word), packing.name),
                     type_name(words.type));
    tensors.check_matrix(words);

    const CheckpointTensor* size_tensor = tensors.find(module + ".group_size");
    const uint64_t whole = axis == 1 ? columns : rows;
    const uint64_t size = size_tensor != nullptr ? tensors.scalar(*size_tensor) : whole;
    if (size == 0 || rows * columns % size != 0)
      tensors.refuse(*size_tensor, fmt::format("a divisor of {} values", rows * columns),
                     fmt::format("{}", size));
    const uint64_t groups = rows * columns / size;
    const uint64_t lines = axis == 1 ? groups : size;
    const uint64_t width = axis == 1 ? size : groups;
    tensors.check_shape(words, {(lines + packing.lines - 1) / packing.lines, width});
    for (const CheckpointTensor* levels : {&scales, &zeros})
      if (levels->elements() != groups)
        tensors.refuse(*levels, fmt::format("{} values, one for each group", groups),
                       fmt::format("{}", levels->elements()));

    const CodeTable codes{&words, &packing, width};
    PackedTensor packed{module + ".weight",        rows,   columns, kTypeNames[bits],
                        {&words, &scales, &zeros}, nullptr};
    for (const std::string_view end : kDescriptions)
      if (const CheckpointTensor* described = tensors.find(module + std::string(end)))
        packed.parts.push_back(described);
    if (axis == 1 && columns % size == 0)
      packed.reader =
          std::make_unique<HqqReader>(columns, packing.bits, size, codes, Levels{&scales, &zeros});
    else
      packed.reader = std::make_unique<HqqFloatReader>(columns, static_cast<unsigned>(axis), codes,
                                                       Levels{&scales, &zeros});
    return packed;
  }

  static const PackingRow& packing_of(const TensorParts& tensors, const CheckpointTensor& name,
                                      uint64_t bits) {
    tensors.check_type(name, {CheckpointType::u8});
    const std::string_view text(reinterpret_cast<const char*>(name.bytes.data()),
                                std::min(name.bytes.size(), kMostWordBytes));
    const auto* row = std::find_if(kPackings.begin(), kPackings.end(),
                                   [&](const PackingRow& each) { return each.name == text; });
    if (row == kPackings.end() || (row->bits != bits && (row->bits != 8 || bits > 8)))
      tensors.refuse(name, fmt::format("a packing of {} bits", bits), fmt::format("\"{}\"", printable(text)));
    return *row;
  }

  std::vector<std::string> skipped_;
};

}  // namespace

std::unique_ptr<PackedLayout> read_hqq_layout(const JsonFields& fields) {
  return std::make_unique<HqqLayout>(fields);
}

}  // namespace tessera
