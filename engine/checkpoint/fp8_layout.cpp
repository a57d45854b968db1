// fp8 as DeepSeek, Qwen and others publish it: weight F8_E4M3 [rows, columns] and weight_scale_inv with a
// scale for every block of weight_block_size, or weight_scale(_inv) with one for all. In spite of its name it
// multiplies.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "engine/checkpoint/block_scaled_reader.h"
#include "engine/checkpoint/module_patterns.h"
#include "engine/checkpoint/packed_layout.h"

namespace tessera {

namespace {

constexpr uint64_t kMostBlock = uint64_t{1} << 20;
constexpr size_t kMostWordBytes = 64;
constexpr std::array<std::string_view, 2> kScaleNames{".weight_scale_inv", ".weight_scale"};
// Scales of activations and of cached keys and values.
constexpr std::array<std::string_view, 5> kUnused{".input_scale", ".activation_scale", ".k_scale", ".v_scale",
                                                  ".q_scale"};

class Fp8Layout : public PackedLayout {
 public:
  explicit Fp8Layout(const JsonFields& fields) : excluded_(fields, "modules_to_not_convert") {
    if (fields.find("fmt") != nullptr) {
      const std::string number = fields.text("fmt", kMostWordBytes);
      if (number != "e4m3" && number != "float8_e4m3fn") fields.refuse_value("fmt", "e4m3");
    }
    if (fields.find("weight_block_size") == nullptr) return;
    const nlohmann::json& sizes = fields.array("weight_block_size");
    if (sizes.size() != 2) fields.refuse("weight_block_size", "two sizes", std::to_string(sizes.size()));
    const std::string label = fields.label("weight_block_size");
    block_ = {fields.element(sizes[0], label + "[0]", 1, kMostBlock),
              fields.element(sizes[1], label + "[1]", 1, kMostBlock)};
  }

  bool is_unused(std::string_view name) const override {
    return std::any_of(kUnused.begin(), kUnused.end(),
                       [&](std::string_view end) { return name.ends_with(end); });
  }

  std::vector<PackedTensor> find(const TensorParts& tensors) const override {
    std::vector<PackedTensor> found;
    for (const std::string_view scale_name : kScaleNames)
      for (const std::string& module : tensors.modules(scale_name))
        found.push_back(matrix(tensors, module, *tensors.find(module + std::string(scale_name))));
    return found;
  }

 private:
  PackedTensor matrix(const TensorParts& tensors, const std::string& module,
                      const CheckpointTensor& scales) const {
    const CheckpointTensor& values = tensors.require(module + ".weight", scales.name);
    if (excluded_.contains(module))
      tensors.refuse(scales, "no scales, as modules_to_not_convert names it", "some");
    tensors.check_type(values, {CheckpointType::f8_e4m3});
    tensors.check_matrix(values);
    const uint64_t rows = values.shape[0];
    const uint64_t columns = values.shape[1];
    const bool one = scales.elements() == 1 && block_.rows == 0;
    const BlockSize block = one ? BlockSize{rows, columns} : block_;
    if (block.rows == 0)
      tensors.refuse(scales, "one scale, as there is no weight_block_size",
                     fmt::format("{}", scales.elements()));
    if (!one)
      tensors.check_shape(
          scales, {(rows + block.rows - 1) / block.rows, (columns + block.columns - 1) / block.columns});
    tensors.check_levels(scales);
    return {
        values.name, rows, columns, "FP8", {&values, &scales}, block_scaled_reader(values, scales, block)};
  }

  ExcludedModules excluded_;
  BlockSize block_;  // 0: one scale for a matrix
};

}  // namespace

std::unique_ptr<PackedLayout> read_fp8_layout(const JsonFields& fields) {
  return std::make_unique<Fp8Layout>(fields);
}

}  // namespace tessera
