// compressed-tensors. pack-quantized: weight_packed [rows, words], rows of which are streams of q + 2^(bits -
// 1); weight_shape [2]; weight_zero_point, packed the same way down its columns. int-quantized: weight I8.
// float-quantized: weight F8_E4M3. All have weight_scale; a value is (q - zero point) * scale.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <tuple>

#include "engine/checkpoint/bit_stream.h"
#include "engine/checkpoint/compressed_tensors_config.h"
#include "engine/checkpoint/packed_layout.h"

namespace tessera {

namespace {

using compressed_tensors::Storage;
using compressed_tensors::Strategy;
using compressed_tensors::WeightSettings;

constexpr std::array<std::string_view, 9> kTypeNames{"",        "CT-INT1", "CT-INT2", "CT-INT3", "CT-INT4",
                                                     "CT-INT5", "CT-INT6", "CT-INT7", "CT-INT8"};
// Scales and zero points of activations, and of cached keys and values.
constexpr std::array<std::string_view, 10> kUnused{
    ".input_scale", ".input_zero_point", ".output_scale", ".output_zero_point", ".q_scale",
    ".k_scale",     ".v_scale",          ".k_zero_point", ".v_zero_point",      ".input_global_scale"};

// Where a code lies among words: densely, or, as older versions wrote widths that do not divide 32, as many
// whole codes as fit a word.
struct Packing {
  unsigned bits = 4;
  bool dense = true;

  uint64_t words(uint64_t codes) const {
    const uint64_t whole = 32 / bits;
    return dense ? bit_stream::words(codes, bits) : (codes + whole - 1) / whole;
  }
  uint32_t code(std::span<const std::byte> bytes, size_t first, size_t stride, uint64_t i) const {
    if (dense) return bit_stream::code(bytes, first, stride, i, bits);
    const uint64_t whole = 32 / bits;
    return (bit_stream::load_word(bytes, first + i / whole * stride) >> (i % whole * bits)) &
           ((1u << bits) - 1);
  }
};

// Nothing where so many codes cannot take so many words.
std::optional<Packing> packing_of(uint64_t codes, uint64_t words, unsigned bits) {
  for (const bool dense : {true, false})
    if (const Packing packing{bits, dense}; packing.words(codes) == words) return packing;
  return std::nullopt;
}

struct Parts {
  const CheckpointTensor* codes = nullptr;   // weight_packed or weight
  const CheckpointTensor* scales = nullptr;  // one for all, or [rows, groups]
  const CheckpointTensor* zeros = nullptr;   // absent, I8 like scales, or I32 packed down its columns
};

class IntegerReader : public GroupedReader {
 public:
  // bits: of a code as it is stored; packing of codes and zero points where they are packed.
  IntegerReader(uint64_t columns, unsigned bits, ColumnGroups groups, const Parts& parts,
                Packing code_packing, Packing zero_packing)
      : GroupedReader(columns, {PackedMeaning::zero_point, bits, 0, 0, {}, {}}, std::move(groups)),
        bits_(bits),
        parts_(parts),
        code_packing_(code_packing),
        zero_packing_(zero_packing) {}

 protected:
  void read_codes(uint64_t first_row, uint64_t rows, std::span<uint8_t> out) const override {
    const auto width = static_cast<size_t>(columns());
    const std::span<const std::byte> bytes = parts_.codes->bytes;
    if (parts_.codes->type == CheckpointType::i8) {
      const auto part = bytes.subspan(first_row * width, rows * width);
      for (size_t i = 0; i < part.size(); ++i) out[i] = std::to_integer<uint8_t>(part[i]) ^ 128;
      return;
    }
    const uint64_t words = parts_.codes->shape[1];
    for (size_t row = 0; row < rows; ++row) {
      const size_t first = (first_row + row) * words;
      const auto to = out.subspan(row * width, width);
      if (code_packing_.dense)
        bit_stream::unpack(bytes.subspan(4 * first), bits_, to);
      else
        for (size_t k = 0; k < width; ++k)
          to[k] = static_cast<uint8_t>(code_packing_.code(bytes, first, 1, k));
    }
  }

  void read_levels(uint64_t first_row, uint64_t rows, std::span<float> scales,
                   std::span<float> offsets) const override {
    const uint64_t count = groups();
    const bool one = parts_.scales->elements() == 1;
    const auto half = static_cast<float>(1u << (bits_ - 1));
    for (uint64_t row = 0; row < rows; ++row)
      for (uint64_t group = 0; group < count; ++group) {
        const uint64_t at = row * count + group;
        const uint64_t stored = one ? 0 : (first_row + row) * count + group;
        scales[at] = float_at(*parts_.scales, stored);
        if (parts_.zeros == nullptr)
          offsets[at] = half;
        else if (parts_.zeros->type == CheckpointType::i8)
          offsets[at] = half + static_cast<float>(integer_at(*parts_.zeros, stored));
        else
          offsets[at] =
              static_cast<float>(zero_packing_.code(parts_.zeros->bytes, group, count, first_row + row));
      }
  }

 private:
  unsigned bits_;
  Parts parts_;
  Packing code_packing_;
  Packing zero_packing_;
};

class CompressedTensorsLayout : public PackedLayout {
 public:
  explicit CompressedTensorsLayout(const JsonFields& fields) : config_(fields) {}

  bool is_unused(std::string_view name) const override {
    return std::any_of(kUnused.begin(), kUnused.end(),
                       [&](std::string_view end) { return name.ends_with(end); });
  }

  std::vector<PackedTensor> find(const TensorParts& tensors) const override {
    std::vector<PackedTensor> found;
    for (const std::string& module : tensors.modules(".weight_packed"))
      tensors.require(module + ".weight_scale", module + ".weight_packed");
    for (const std::string& module : tensors.modules(".weight_scale"))
      found.push_back(matrix(tensors, module));
    return found;
  }

 private:
  PackedTensor matrix(const TensorParts& tensors, const std::string& module) const {
    const CheckpointTensor& scales = *tensors.find(module + ".weight_scale");
    const WeightSettings& settings = config_.settings_of(tensors, scales, module);
    tensors.check_levels(scales);
    Parts parts;
    parts.scales = &scales;
    parts.codes = &tensors.require(
        module + (settings.storage == Storage::packed ? ".weight_packed" : ".weight"), scales.name);
    PackedTensor packed{module + ".weight", 0, 0, "FP8", {parts.codes, &scales}, nullptr};
    tensors.check_matrix(*parts.codes);
    if (settings.storage == Storage::packed) {
      tensors.check_type(*parts.codes, {CheckpointType::i32});
      const CheckpointTensor& shape = tensors.require(module + ".weight_shape", parts.codes->name);
      packed.parts.push_back(&shape);
      std::tie(packed.rows, packed.columns) = tensors.matrix_shape(shape);
      if (packed.rows != parts.codes->shape[0])
        tensors.refuse(shape, fmt::format("the {} rows of \"{}\"", parts.codes->shape[0], parts.codes->name),
                       fmt::format("{}", packed.rows));
    } else {
      tensors.check_type(*parts.codes,
                         {settings.storage == Storage::fp8 ? CheckpointType::f8_e4m3 : CheckpointType::i8});
      packed.rows = parts.codes->shape[0];
      packed.columns = parts.codes->shape[1];
    }
    if (settings.storage == Storage::fp8 || settings.strategy == Strategy::block)
      make_floats(tensors, settings, parts, packed);
    else
      make_integers(tensors, settings, parts, module, packed);
    return packed;
  }

  // One scale, one for every row, or a matrix of them.
  static void check_scales(const TensorParts& tensors, const WeightSettings& settings,
                           const CheckpointTensor& levels, uint64_t down, uint64_t across) {
    if (settings.strategy == Strategy::tensor && levels.elements() == 1) return;
    if (settings.strategy == Strategy::channel && levels.shape.size() == 1 && levels.shape[0] == down) return;
    tensors.check_shape(levels, {down, across});
  }

  static uint64_t whole_groups(const TensorParts& tensors, const WeightSettings& settings, const Parts& parts,
                               uint64_t columns) {
    if (settings.strategy != Strategy::group) return columns;
    if (columns % settings.group != 0)
      tensors.refuse(*parts.codes, fmt::format("a multiple of {} columns", settings.group),
                     fmt::format("{}", columns));
    return settings.group;
  }

  static void make_floats(const TensorParts& tensors, const WeightSettings& settings, const Parts& parts,
                          PackedTensor& packed) {
    BlockSize block = settings.block;
    if (settings.strategy == Strategy::tensor)
      block = {packed.rows, packed.columns};
    else if (settings.strategy != Strategy::block)
      block = {1, whole_groups(tensors, settings, parts, packed.columns)};
    check_scales(tensors, settings, *parts.scales, (packed.rows + block.rows - 1) / block.rows,
                 (packed.columns + block.columns - 1) / block.columns);
    if (settings.storage == Storage::bytes) packed.type = kTypeNames[settings.bits];
    packed.reader = block_scaled_reader(*parts.codes, *parts.scales, block);
  }

  static void make_integers(const TensorParts& tensors, const WeightSettings& settings, Parts& parts,
                            const std::string& module, PackedTensor& packed) {
    const uint64_t size = whole_groups(tensors, settings, parts, packed.columns);
    const uint64_t groups = packed.columns / size;
    check_scales(tensors, settings, *parts.scales, packed.rows, groups);
    const bool bytes = settings.storage == Storage::bytes;
    const unsigned bits = bytes ? 8 : settings.bits;
    Packing code_packing;
    if (!bytes) {
      const auto packing = packing_of(packed.columns, parts.codes->shape[1], bits);
      if (!packing)
        tensors.refuse(*parts.codes,
                       fmt::format("{} words for {} codes of {} bits",
                                   bit_stream::words(packed.columns, bits), packed.columns, bits),
                       fmt::format("{}", parts.codes->shape[1]));
      code_packing = *packing;
    }
    Packing zero_packing;
    const std::string zeros_name = module + ".weight_zero_point";
    parts.zeros =
        settings.symmetric ? tensors.find(zeros_name) : &tensors.require(zeros_name, parts.codes->name);
    if (parts.zeros != nullptr) {
      packed.parts.push_back(parts.zeros);
      zero_packing = check_zeros(tensors, settings, parts, packed.rows, groups);
    }
    ColumnGroups column_order = column_groups(size, read_index(tensors, module, packed, groups));
    packed.type = kTypeNames[settings.bits];
    packed.reader = std::make_unique<IntegerReader>(packed.columns, bits, std::move(column_order), parts,
                                                    code_packing, zero_packing);
  }

  static Packing check_zeros(const TensorParts& tensors, const WeightSettings& settings, const Parts& parts,
                             uint64_t rows, uint64_t groups) {
    const CheckpointTensor& zeros = *parts.zeros;
    if (settings.storage == Storage::bytes)
      tensors.check_type(zeros, {CheckpointType::i8});
    else
      tensors.check_type(zeros, {CheckpointType::i8, CheckpointType::i32});
    if (zeros.type == CheckpointType::i8) {
      if (zeros.elements() != parts.scales->elements())
        tensors.refuse(zeros, fmt::format("{} values, one for each scale", parts.scales->elements()),
                       fmt::format("{}", zeros.elements()));
      return {};
    }
    tensors.check_matrix(zeros);
    const auto packing = packing_of(rows, zeros.shape[0], settings.bits);
    tensors.check_shape(zeros, {packing ? zeros.shape[0] : bit_stream::words(rows, settings.bits), groups});
    return packing.value_or(Packing{});
  }

  // The group of each column, for files with activation order; -1 throughout stands for none.
  static std::vector<uint32_t> read_index(const TensorParts& tensors, const std::string& module,
                                          PackedTensor& packed, uint64_t groups) {
    const CheckpointTensor* index = tensors.find(module + ".weight_g_idx");
    if (index == nullptr) return {};
    packed.parts.push_back(index);
    tensors.check_type(*index, {CheckpointType::i32, CheckpointType::i64});
    tensors.check_shape(*index, {packed.columns});
    std::vector<uint32_t> group_of(static_cast<size_t>(packed.columns));
    size_t unset = 0;
    for (size_t k = 0; k < group_of.size(); ++k) {
      const int64_t group = integer_at(*index, k);
      if (group == -1) {
        ++unset;
        continue;
      }
      if (group < 0 || static_cast<uint64_t>(group) >= groups)
        tensors.refuse(*index, fmt::format("groups from 0 to {}", groups - 1),
                       fmt::format("{} at [{}]", group, k));
      group_of[k] = static_cast<uint32_t>(group);
    }
    if (unset == group_of.size()) return {};
    if (unset != 0)
      tensors.refuse(*index, "a group for every column or for none", fmt::format("{} without", unset));
    return group_of;
  }

  compressed_tensors::Config config_;
};

}  // namespace

std::unique_ptr<PackedLayout> read_compressed_tensors_layout(const JsonFields& fields) {
  return std::make_unique<CompressedTensorsLayout>(fields);
}

}  // namespace tessera
