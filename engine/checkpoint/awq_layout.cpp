// AWQ, codes of 4 bits with zero points: a value is scale * (q - z). Two layouts:
// gemm: qweight [columns, rows / 8], qzeros [groups, rows / 8], scales [groups, rows]; the nibbles of a word
// are rows 0, 2, 4, 6, 1, 3, 5, 7 of eight. gemv: qweight [rows, columns / 8], qzeros [rows, padded], scales
// [rows, 8 * padded], all in their own order.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "engine/checkpoint/bit_stream.h"
#include "engine/checkpoint/module_patterns.h"
#include "engine/checkpoint/packed_layout.h"

namespace tessera {

namespace {

constexpr size_t kMostWordBytes = 64;
constexpr std::array<unsigned, 1> kBits{4};
constexpr std::string_view kTypeName = "AWQ-4";
constexpr PackedFormat kFormat{PackedMeaning::zero_point, 4, 0, 0, {}, {}};

struct Parts {
  const CheckpointTensor* codes;
  const CheckpointTensor* zeros;
  const CheckpointTensor* scales;
};

// The nibble of a word that holds row i of its eight.
constexpr std::array<unsigned, 8> kNibbleOfRow{0, 4, 1, 5, 2, 6, 3, 7};

class GemmReader : public GroupedReader {
 public:
  GemmReader(uint64_t rows, uint64_t columns, uint64_t group, const Parts& parts)
      : GroupedReader(columns, kFormat, {group, {}, {}}), rows_(rows), parts_(parts) {}

 protected:
  // A tile of columns is gathered before it is written, since its rows lie apart in the result.
  void read_codes(uint64_t first_row, uint64_t rows, std::span<uint8_t> out) const override {
    constexpr size_t kTile = 64;
    const auto width = static_cast<size_t>(columns());
    std::vector<uint8_t> tile(rows * kTile);
    for (size_t k = 0; k < width; k += kTile) {
      const size_t count = std::min(kTile, width - k);
      for (size_t i = 0; i < count; ++i)
        for (size_t row = 0; row < rows; ++row)
          tile[row * kTile + i] = nibble(*parts_.codes, k + i, first_row + row);
      for (size_t row = 0; row < rows; ++row)
        std::memcpy(out.subspan(row * width + k, count).data(), &tile[row * kTile], count);
    }
  }

  void read_levels(uint64_t first_row, uint64_t rows, std::span<float> scales,
                   std::span<float> offsets) const override {
    const uint64_t count = groups();
    for (uint64_t group = 0; group < count; ++group)
      for (uint64_t row = 0; row < rows; ++row) {
        scales[row * count + group] = float_at(*parts_.scales, group * rows_ + first_row + row);
        offsets[row * count + group] = static_cast<float>(nibble(*parts_.zeros, group, first_row + row));
      }
  }

 private:
  uint8_t nibble(const CheckpointTensor& tensor, size_t line, size_t row) const {
    const uint32_t word = bit_stream::load_word(tensor.bytes, line * (rows_ / 8) + row / 8);
    return static_cast<uint8_t>((word >> (4 * kNibbleOfRow[row % 8])) & 15);
  }

  size_t rows_;
  Parts parts_;
};

class GemvReader : public GroupedReader {
 public:
  GemvReader(uint64_t columns, uint64_t group, const Parts& parts)
      : GroupedReader(columns, kFormat, {group, {}, {}}), parts_(parts) {}

 protected:
  void read_codes(uint64_t first_row, uint64_t rows, std::span<uint8_t> out) const override {
    const auto width = static_cast<size_t>(columns());
    for (size_t row = 0; row < rows; ++row)
      bit_stream::unpack(parts_.codes->bytes.subspan((first_row + row) * (width / 2)), 4,
                         out.subspan(row * width, width));
  }

  void read_levels(uint64_t first_row, uint64_t rows, std::span<float> scales,
                   std::span<float> offsets) const override {
    const uint64_t count = groups();
    const uint64_t padded = parts_.zeros->shape[1];
    for (uint64_t row = 0; row < rows; ++row)
      for (uint64_t group = 0; group < count; ++group) {
        const uint64_t n = first_row + row;
        scales[row * count + group] = float_at(*parts_.scales, n * 8 * padded + group);
        offsets[row * count + group] =
            static_cast<float>(bit_stream::code(parts_.zeros->bytes, n * padded, 1, group, 4));
      }
  }

 private:
  Parts parts_;
};

// Words of zero points that a row of the gemv layout has: kernels read several at once.
uint64_t padded_words(uint64_t groups, uint64_t group) {
  const uint64_t together = group >= 128 ? 1 : 128 / group;
  const uint64_t words = (groups + 7) / 8;
  return (words + together - 1) / together * together;
}

class AwqLayout : public PackedLayout {
 public:
  explicit AwqLayout(const JsonFields& fields) : excluded_(fields, "modules_to_not_convert") {
    std::string version = "gemm";
    for (const std::string_view field : {"checkpoint_format", "format", "version"})
      if (fields.find(field) != nullptr) version = fields.text(field, kMostWordBytes);
    std::transform(version.begin(), version.end(), version.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
    if (version != "gemm" && version != "gemv")
      fields.refuse("version", "gemm or gemv (no other layout is supported)",
                    fmt::format("\"{}\"", printable(version)));
    by_rows_ = version == "gemv";
    bits_setting(fields, fields.find("bits") == nullptr ? "w_bit" : "bits", kBits);
    group_ = group_setting(fields, fields.find("group_size") == nullptr ? "q_group_size" : "group_size");
    if (by_rows_ && group_ != 0 && group_ != 32 && group_ != 64 && group_ < 128)
      fields.refuse("group_size", "32, 64, or at least 128 for gemv", fmt::format("{}", group_));
    if (!fields.boolean_or("zero_point", true)) fields.refuse_value("zero_point", "true");
  }

  std::vector<PackedTensor> find(const TensorParts& tensors) const override {
    std::vector<PackedTensor> found;
    for (const std::string& module : tensors.modules(".qweight")) {
      const CheckpointTensor& codes = *tensors.find(module + ".qweight");
      if (excluded_.contains(module))
        tensors.refuse(codes, "no codes, as modules_to_not_convert names it", "some");
      tensors.check_type(codes, {CheckpointType::i32});
      tensors.check_matrix(codes);
      const CheckpointTensor& zeros = tensors.require(module + ".qzeros", codes.name);
      const CheckpointTensor& scales = tensors.require(module + ".scales", codes.name);
      tensors.check_type(zeros, {CheckpointType::i32});
      const uint64_t rows = by_rows_ ? codes.shape[0] : 8 * codes.shape[1];
      const uint64_t columns = by_rows_ ? 8 * codes.shape[1] : codes.shape[0];
      const uint64_t group = group_ == 0 ? columns : group_;
      if (columns % group != 0)
        tensors.refuse(codes, fmt::format("a multiple of {} columns", group), fmt::format("{}", columns));
      const uint64_t groups = columns / group;
      if (by_rows_) {
        const uint64_t words = padded_words(groups, group);
        tensors.check_shape(zeros, {rows, words});
        tensors.check_shape(scales, {rows, 8 * words});
      } else {
        tensors.check_shape(zeros, {groups, rows / 8});
        tensors.check_shape(scales, {groups, rows});
      }
      tensors.check_levels(scales);
      PackedTensor packed{module + ".weight", rows, columns, kTypeName, {&codes, &zeros, &scales}, nullptr};
      const Parts parts{&codes, &zeros, &scales};
      if (by_rows_)
        packed.reader = std::make_unique<GemvReader>(columns, group, parts);
      else
        packed.reader = std::make_unique<GemmReader>(rows, columns, group, parts);
      found.push_back(std::move(packed));
    }
    return found;
  }

 private:
  ExcludedModules excluded_;
  bool by_rows_ = false;
  uint64_t group_ = 0;
};

}  // namespace

std::unique_ptr<PackedLayout> read_awq_layout(const JsonFields& fields) {
  return std::make_unique<AwqLayout>(fields);
}

}  // namespace tessera
