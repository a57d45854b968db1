// bitsandbytes. NF4 and FP4: two codes a byte, the higher nibble first, row-major without regard to rows;
// blocks of `blocksize` values share a scale (absmax), a value is quant_map[q] * absmax. absmax may be codes
// itself, of blocks again: nested_quant_map[q] * nested_absmax + nested_offset. 8 bits: weight I8 [rows,
// columns] with SCB [rows], a value is q * (SCB / 127).
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "engine/checkpoint/packed_layout.h"

namespace tessera {

namespace {

using nlohmann::json;

constexpr JsonLimits kStateLimits{size_t{64} << 10, 8, 1000};
constexpr size_t kMostWordBytes = 64;
constexpr uint64_t kMostBlock = uint64_t{1} << 20;
constexpr uint64_t kMostRows = (uint64_t{1} << 31) - 1;

struct FourBitType {
  std::string_view name;  // quant_type
  std::string_view type;
  std::string_view state;  // the tensor of settings
};
constexpr std::array kFourBitTypes = {
    FourBitType{"nf4", "NF4", ".weight.quant_state.bitsandbytes__nf4"},
    FourBitType{"fp4", "FP4", ".weight.quant_state.bitsandbytes__fp4"},
};

class FourBitReader : public GroupedReader {
 public:
  FourBitReader(uint64_t columns, uint64_t block, const std::array<float, 16>& table,
                const CheckpointTensor& codes, std::vector<float> scales)
      // Every run of this many values lies in one row and in one block.
      : GroupedReader(columns, {PackedMeaning::table, 4, 0, 0, table, {}},
                      {std::gcd(columns, block), {}, {}}),
        block_(block),
        codes_(&codes),
        scales_(std::move(scales)) {}

 protected:
  void read_codes(uint64_t first_row, uint64_t rows, std::span<uint8_t> out) const override {
    const uint64_t first = first_row * columns();
    for (uint64_t i = 0; i < rows * columns(); ++i) {
      const auto byte = std::to_integer<uint8_t>(codes_->bytes[(first + i) / 2]);
      out[i] = (first + i) % 2 == 0 ? byte >> 4 : byte & 15;
    }
  }

  void read_levels(uint64_t first_row, uint64_t rows, std::span<float> scales,
                   std::span<float>) const override {
    for (uint64_t row = 0; row < rows; ++row)
      for (uint64_t group = 0; group < groups(); ++group)
        scales[row * groups() + group] =
            scales_[((first_row + row) * columns() + group * group_size()) / block_];
  }

 private:
  uint64_t block_;
  const CheckpointTensor* codes_;
  std::vector<float> scales_;  // of blocks
};

class EightBitReader : public GroupedReader {
 public:
  EightBitReader(const CheckpointTensor& codes, const CheckpointTensor& maxima)
      : GroupedReader(codes.shape[1], {PackedMeaning::zero_point, 8, 0, 0, {}, {}}, {codes.shape[1], {}, {}}),
        codes_(&codes),
        maxima_(&maxima) {}

 protected:
  void read_codes(uint64_t first_row, uint64_t rows, std::span<uint8_t> out) const override {
    const std::span<const std::byte> bytes = codes_->bytes.subspan(first_row * columns(), rows * columns());
    for (size_t i = 0; i < bytes.size(); ++i) out[i] = std::to_integer<uint8_t>(bytes[i]) ^ 128;
  }

  void read_levels(uint64_t first_row, uint64_t rows, std::span<float> scales,
                   std::span<float> offsets) const override {
    for (uint64_t row = 0; row < rows; ++row) {
      scales[row] = float_at(*maxima_, first_row + row) / 127.0f;
      offsets[row] = 128.0f;
    }
  }

 private:
  const CheckpointTensor* codes_;
  const CheckpointTensor* maxima_;
};

// Collects the parts of one matrix as they are looked up.
class PartFinder {
 public:
  PartFinder(const TensorParts& tensors, const CheckpointTensor& first) : tensors_(tensors), parts_{&first} {}

  const CheckpointTensor& require(const std::string& name) {
    parts_.push_back(&tensors_.require(name, parts_.front()->name));
    return *parts_.back();
  }
  // A tensor of f32 with so many finite values.
  const CheckpointTensor& floats(const std::string& name, uint64_t count) {
    const CheckpointTensor& tensor = require(name);
    tensors_.check_type(tensor, {CheckpointType::f32});
    count_is(tensor, count);
    tensors_.check_levels(tensor);
    return tensor;
  }
  void count_is(const CheckpointTensor& tensor, uint64_t count) const {
    if (tensor.elements() != count)
      tensors_.refuse(tensor, fmt::format("{} values", count), fmt::format("{}", tensor.elements()));
  }
  std::vector<const CheckpointTensor*> take() { return std::move(parts_); }

 private:
  const TensorParts& tensors_;
  std::vector<const CheckpointTensor*> parts_;
};

uint64_t blocks_of(uint64_t values, uint64_t block) { return (values + block - 1) / block; }

// The scales of all blocks, which may be nested.
std::vector<float> block_scales(const TensorParts& tensors, const std::string& weight,
                                const JsonFields& state, uint64_t blocks, PartFinder& parts) {
  std::vector<float> scales(static_cast<size_t>(blocks));
  const std::string name = weight + ".absmax";
  if (tensors.find(weight + ".nested_absmax") == nullptr) {
    const CheckpointTensor& maxima = parts.floats(name, blocks);
    for (size_t i = 0; i < scales.size(); ++i) scales[i] = float_at(maxima, i);
    return scales;
  }
  const CheckpointTensor& codes = parts.require(name);
  tensors.check_type(codes, {CheckpointType::u8});
  parts.count_is(codes, blocks);
  const uint64_t nested_block = state.integer("nested_blocksize", 1, kMostBlock);
  if (state.text("nested_dtype", kMostWordBytes) != "float32") state.refuse_value("nested_dtype", "float32");
  constexpr double most = std::numeric_limits<float>::max();
  const auto offset = static_cast<float>(state.number("nested_offset", -most, most));
  const CheckpointTensor& outer = parts.floats(weight + ".nested_absmax", blocks_of(blocks, nested_block));
  const CheckpointTensor& table = parts.floats(weight + ".nested_quant_map", 256);
  for (size_t i = 0; i < scales.size(); ++i) {
    const float scaled =
        float_at(table, static_cast<uint64_t>(integer_at(codes, i))) * float_at(outer, i / nested_block);
    scales[i] = scaled + offset;
    if (!std::isfinite(scales[i]))
      tensors.refuse(codes, "finite scales", fmt::format("{} at [{}]", scales[i], i));
  }
  return scales;
}

PackedTensor four_bit_matrix(const TensorParts& tensors, const std::string& module, const FourBitType& type) {
  const std::string weight = module + ".weight";
  const CheckpointTensor& state_tensor = *tensors.find(module + std::string(type.state));
  tensors.check_type(state_tensor, {CheckpointType::u8});
  PartFinder parts(tensors, state_tensor);
  const std::string where = fmt::format("{}: tensor \"{}\"", tensors.path(), printable(state_tensor.name));
  const std::string_view text(reinterpret_cast<const char*>(state_tensor.bytes.data()),
                              state_tensor.bytes.size());
  const json document = parse_strict_json(text, where, kStateLimits);
  const JsonFields state(document, where, "");
  if (state.text("quant_type", kMostWordBytes) != type.name) state.refuse_value("quant_type", type.name);
  const uint64_t block = state.integer("blocksize", 2, kMostBlock);
  const json& shape = state.array("shape");
  if (shape.size() != 2) state.refuse("shape", "two sizes", std::to_string(shape.size()));
  const uint64_t rows = state.element(shape[0], "shape[0]", 1, kMostRows);
  const uint64_t columns = state.element(shape[1], "shape[1]", 1, kMostRows);

  // The codes may be stored as bytes of any type.
  const CheckpointTensor& codes = parts.require(weight);
  const uint64_t bytes = (rows * columns + 1) / 2;
  if (codes.bytes.size() != bytes)
    tensors.refuse(codes, fmt::format("{} bytes for shape [{}, {}]", bytes, rows, columns),
                   fmt::format("{}", codes.bytes.size()));
  const CheckpointTensor& map = parts.floats(weight + ".quant_map", 16);
  std::array<float, 16> table{};
  for (size_t i = 0; i < table.size(); ++i) table[i] = float_at(map, i);
  std::vector<float> scales = block_scales(tensors, weight, state, blocks_of(rows * columns, block), parts);
  auto reader = std::make_unique<FourBitReader>(columns, block, table, codes, std::move(scales));
  return {weight, rows, columns, type.type, parts.take(), std::move(reader)};
}

PackedTensor eight_bit_matrix(const TensorParts& tensors, const std::string& module) {
  const CheckpointTensor& maxima = *tensors.find(module + ".SCB");
  PartFinder parts(tensors, maxima);
  const CheckpointTensor& codes = parts.require(module + ".weight");
  tensors.check_type(codes, {CheckpointType::i8});
  tensors.check_matrix(codes);
  tensors.check_type(maxima, {CheckpointType::f32});
  parts.count_is(maxima, codes.shape[0]);
  tensors.check_levels(maxima);
  if (tensors.find(module + ".weight_format") != nullptr) {
    const CheckpointTensor& format = parts.require(module + ".weight_format");
    if (const uint64_t order = tensors.scalar(format); order != 0)
      tensors.refuse(format, "0 (rows; tiles are not supported)", fmt::format("{}", order));
  }
  return {codes.name, codes.shape[0], codes.shape[1],
          "BNB-8",    parts.take(),   std::make_unique<EightBitReader>(codes, maxima)};
}

class BitsandbytesLayout : public PackedLayout {
 public:
  explicit BitsandbytesLayout(const JsonFields& fields) {
    // Newer files have names with and without the line below.
    const auto on = [&](const std::string& name) {
      return fields.boolean_or(name, false) || fields.boolean_or("_" + name, false);
    };
    if (!on("load_in_4bit") && !on("load_in_8bit"))
      fields.refuse("load_in_4bit", "true, or load_in_8bit", "neither");
  }

  std::vector<PackedTensor> find(const TensorParts& tensors) const override {
    std::vector<PackedTensor> found;
    for (const FourBitType& type : kFourBitTypes)
      for (const std::string& module : tensors.modules(type.state))
        found.push_back(four_bit_matrix(tensors, module, type));
    for (const std::string& module : tensors.modules(".SCB"))
      found.push_back(eight_bit_matrix(tensors, module));
    return found;
  }
};

}  // namespace

std::unique_ptr<PackedLayout> read_bitsandbytes_layout(const JsonFields& fields) {
  return std::make_unique<BitsandbytesLayout>(fields);
}

}  // namespace tessera
