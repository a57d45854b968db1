// GPTQ: qweight [columns * bits / 32, rows], whose columns are streams of codes; qzeros [groups, rows * bits
// / 32], whose rows are such streams; scales [groups, rows]; g_idx [columns], the group of each column. A
// value is scale * (q - z).
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "engine/checkpoint/bit_stream.h"
#include "engine/checkpoint/module_patterns.h"
#include "engine/checkpoint/packed_layout.h"

namespace tessera {

namespace {

using nlohmann::json;

constexpr size_t kMostWordBytes = 64;
constexpr std::array<unsigned, 4> kBits{2, 3, 4, 8};
constexpr std::array<std::string_view, 9> kTypeNames{"", "", "GPTQ-2", "GPTQ-3", "GPTQ-4",
                                                     "", "", "",       "GPTQ-8"};

// How zero points are stored: less by 1, modulo 2^bits, or as they are.
enum class ZeroPoints : uint8_t { less_one, plain };

struct Settings {
  unsigned bits = 4;
  uint64_t group = 0;  // 0: all columns of a row
  bool symmetric = true;

  friend bool operator==(const Settings&, const Settings&) = default;
};

class GptqReader : public GroupedReader {
 public:
  struct Parts {
    const CheckpointTensor* codes;
    const CheckpointTensor* zeros;
    const CheckpointTensor* scales;
  };

  GptqReader(uint64_t rows, uint64_t columns, unsigned bits, ZeroPoints zero_points, ColumnGroups groups,
             const Parts& parts)
      : GroupedReader(columns, {PackedMeaning::zero_point, bits, 0, 0, {}, {}}, std::move(groups)),
        rows_(rows),
        bits_(bits),
        zero_points_(zero_points),
        parts_(parts) {}

 protected:
  // 32 columns at a time: the words of neighbouring rows are neighbours, those of a row are far apart.
  void read_codes(uint64_t first_row, uint64_t rows, std::span<uint8_t> out) const override {
    const auto width = static_cast<size_t>(columns());
    const std::span<const std::byte> bytes = parts_.codes->bytes;
    std::array<uint32_t, 9> words{};
    std::array<uint8_t, 32> block{};
    for (size_t k = 0; k < width; k += 32) {
      const size_t count = std::min<size_t>(32, width - k);
      const size_t used = bit_stream::words(count, bits_);
      const size_t first = k / 32 * bits_ * rows_ + first_row;
      words.fill(0);
      for (size_t row = 0; row < rows; ++row) {
        for (size_t w = 0; w < used; ++w) words[w] = bit_stream::load_word(bytes, first + w * rows_ + row);
        bit_stream::kUnpackBlock[bits_](words, block);
        std::memcpy(out.subspan(row * width + k, count).data(), block.data(), count);
      }
    }
  }

  void read_levels(uint64_t first_row, uint64_t rows, std::span<float> scales,
                   std::span<float> offsets) const override {
    const uint64_t count = groups();
    const uint64_t words = bit_stream::words(rows_, bits_);
    const uint32_t mask = (1u << bits_) - 1;
    for (uint64_t group = 0; group < count; ++group)
      for (uint64_t row = 0; row < rows; ++row) {
        const uint64_t n = first_row + row;
        uint32_t zero = bit_stream::code(parts_.zeros->bytes, group * words, 1, n, bits_);
        if (zero_points_ == ZeroPoints::less_one) zero = (zero + 1) & mask;
        scales[row * count + group] = float_at(*parts_.scales, group * rows_ + n);
        offsets[row * count + group] = static_cast<float>(zero);
      }
  }

 private:
  size_t rows_;
  unsigned bits_;
  ZeroPoints zero_points_;
  Parts parts_;
};

// Whether every stored zero point is `value`.
bool all_zeros_are(const CheckpointTensor& zeros, uint64_t groups, uint64_t rows, unsigned bits,
                   uint32_t value) {
  const uint64_t words = bit_stream::words(rows, bits);
  for (uint64_t group = 0; group < groups; ++group)
    for (uint64_t n = 0; n < rows; ++n)
      if (bit_stream::code(zeros.bytes, group * words, 1, n, bits) != value) return false;
  return true;
}

class GptqLayout : public PackedLayout {
 public:
  explicit GptqLayout(const JsonFields& fields) : where_(fields.where()), label_(fields.label("dynamic")) {
    std::string format = "gptq";
    for (const std::string_view field : {"format", "checkpoint_format"})
      if (fields.find(field) != nullptr) format = fields.text(field, kMostWordBytes);
    if (fields.boolean_or("is_marlin_format", false)) format = "marlin";
    if (format != "gptq" && format != "gptq_v2")
      fields.refuse("checkpoint_format", "gptq or gptq_v2 (no other layout is supported)",
                    fmt::format("\"{}\"", printable(format)));
    zero_points_ = format == "gptq_v2" ? ZeroPoints::plain : ZeroPoints::less_one;
    if (fields.find("pack_dtype") != nullptr && fields.text("pack_dtype", kMostWordBytes) != "int32")
      fields.refuse_value("pack_dtype", "int32");
    if (fields.find("rotation") != nullptr) fields.refuse_value("rotation", "none (it is not supported)");
    settings_.bits = bits_setting(fields, "bits", kBits);
    settings_.group = group_setting(fields, "group_size");
    settings_.symmetric = fields.boolean_or("sym", true);
    if (fields.find("dynamic") != nullptr) read_rules(fields.object("dynamic"), fields.require("dynamic"));
  }

  std::vector<PackedTensor> find(const TensorParts& tensors) const override {
    std::vector<PackedTensor> found;
    for (const std::string& module : tensors.modules(".qweight")) found.push_back(matrix(tensors, module));
    return found;
  }

 private:
  // "PATTERN" or "+:PATTERN" changes settings of the layers it matches, "-:PATTERN" leaves them unpacked.
  struct Rule {
    ModulePattern pattern;
    std::optional<Settings> settings;
  };

  void read_rules(const JsonFields& rules, const json& object) {
    for (const auto& [key, value] : object.items()) {
      const bool signed_key = key.starts_with("+:") || key.starts_with("-:");
      const std::string name = printable(key);
      Rule rule{ModulePattern(signed_key ? key.substr(2) : key, fmt::format("{}: {}", where_, label_)), {}};
      if (!key.starts_with("-:")) {
        const JsonFields changed(value, rules.where(), rules.label(name));
        for (const std::string_view field : {"method", "quant_method", "format", "checkpoint_format"})
          if (changed.find(field) != nullptr) changed.refuse_value(field, "none (one format for all layers)");
        rule.settings = settings_;
        if (changed.find("bits") != nullptr) rule.settings->bits = bits_setting(changed, "bits", kBits);
        if (changed.find("group_size") != nullptr)
          rule.settings->group = group_setting(changed, "group_size");
        rule.settings->symmetric = changed.boolean_or("sym", settings_.symmetric);
      }
      rules_.push_back(std::move(rule));
    }
  }

  // Of several rules the first counts, but JSON objects have no order: all that match have to agree.
  Settings settings_of(const TensorParts& tensors, const CheckpointTensor& codes,
                       const std::string& module) const {
    const Rule* matched = nullptr;
    for (const Rule& rule : rules_) {
      if (!rule.pattern.matches(module)) continue;
      if (matched != nullptr && matched->settings != rule.settings)
        tensors.refuse(codes, fmt::format("rules of {} that agree on it", label_), "two that differ");
      matched = &rule;
    }
    if (matched == nullptr) return settings_;
    if (!matched->settings) tensors.refuse(codes, fmt::format("no codes, as {} says", label_), "some");
    return *matched->settings;
  }

  PackedTensor matrix(const TensorParts& tensors, const std::string& module) const {
    const CheckpointTensor& codes = *tensors.find(module + ".qweight");
    tensors.check_type(codes, {CheckpointType::i32});
    tensors.check_matrix(codes);
    const Settings settings = settings_of(tensors, codes, module);
    const unsigned bits = settings.bits;
    const uint64_t rows = codes.shape[1];
    const CheckpointTensor* index = tensors.find(module + ".g_idx");
    if (index == nullptr && codes.shape[0] * 32 % bits != 0)
      tensors.refuse(codes, fmt::format("whole codes of {} bits", bits),
                     fmt::format("{} words", codes.shape[0]));
    const uint64_t columns = index != nullptr ? index->elements() : codes.shape[0] * 32 / bits;
    if (columns == 0 || bit_stream::words(columns, bits) != codes.shape[0])
      tensors.refuse(codes,
                     fmt::format("{} words of codes of {} bits for the {} columns of \"{}.g_idx\"",
                                 bit_stream::words(columns, bits), bits, columns, printable(module)),
                     fmt::format("{}", codes.shape[0]));
    const uint64_t group = settings.group == 0 ? columns : std::min(settings.group, columns);
    const uint64_t groups = (columns + group - 1) / group;

    const CheckpointTensor& scales = tensors.require(module + ".scales", codes.name);
    tensors.check_shape(scales, {groups, rows});
    tensors.check_levels(scales);
    const CheckpointTensor& zeros = tensors.require(module + ".qzeros", codes.name);
    tensors.check_type(zeros, {CheckpointType::i32});
    tensors.check_shape(zeros, {groups, bit_stream::words(rows, bits)});

    PackedTensor packed{module + ".weight",        rows,   columns, kTypeNames[bits],
                        {&codes, &zeros, &scales}, nullptr};
    std::vector<uint32_t> group_of;
    if (index != nullptr) {
      group_of = read_index(tensors, *index, groups);
      packed.parts.push_back(index);
    }
    packed.reader = std::make_unique<GptqReader>(
        rows, columns, bits, zero_points(settings, zeros, groups, rows),
        column_groups(group, std::move(group_of)), GptqReader::Parts{&codes, &zeros, &scales});
    return packed;
  }

  static std::vector<uint32_t> read_index(const TensorParts& tensors, const CheckpointTensor& index,
                                          uint64_t groups) {
    tensors.check_type(index, {CheckpointType::i32, CheckpointType::i64});
    tensors.check_shape(index, {index.elements()});
    std::vector<uint32_t> group_of(static_cast<size_t>(index.elements()));
    for (size_t k = 0; k < group_of.size(); ++k) {
      const int64_t group = integer_at(index, k);
      if (group < 0 || static_cast<uint64_t>(group) >= groups)
        tensors.refuse(index, fmt::format("groups from 0 to {}", groups - 1),
                       fmt::format("{} at [{}]", group, k));
      group_of[k] = static_cast<uint32_t>(group);
    }
    return group_of;
  }

  // Some writers name the older convention and follow the newer one. Symmetric codes have one zero point,
  // half of the range, so what is stored tells the two apart.
  ZeroPoints zero_points(const Settings& settings, const CheckpointTensor& zeros, uint64_t groups,
                         uint64_t rows) const {
    const uint32_t half = 1u << (settings.bits - 1);
    if (settings.symmetric && all_zeros_are(zeros, groups, rows, settings.bits, half))
      return ZeroPoints::plain;
    if (settings.symmetric && all_zeros_are(zeros, groups, rows, settings.bits, half - 1))
      return ZeroPoints::less_one;
    return zero_points_;
  }

  std::string where_;
  std::string label_;  // of the rules
  Settings settings_;
  ZeroPoints zero_points_ = ZeroPoints::less_one;
  std::vector<Rule> rules_;
};

}  // namespace

std::unique_ptr<PackedLayout> read_gptq_layout(const JsonFields& fields) {
  return std::make_unique<GptqLayout>(fields);
}

}  // namespace tessera
