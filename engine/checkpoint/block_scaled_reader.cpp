#include "engine/checkpoint/block_scaled_reader.h"

#include <algorithm>
#include <array>

#include "gguf-like-format/float_types.h"

namespace tessera {

namespace {

class BlockScaledReader : public PackedReader {
 public:
  BlockScaledReader(const CheckpointTensor& values, const CheckpointTensor& scales, BlockSize block)
      : values_(&values), scales_(&scales), block_(block) {
    for (size_t byte = 0; byte < numbers_.size(); ++byte)
      numbers_[byte] = values.type == CheckpointType::i8
                           ? static_cast<float>(byte) - (byte < 128 ? 0.0f : 256.0f)
                           : f8_e4m3_to_f32(static_cast<uint8_t>(byte));
  }

  void read_rows(uint64_t first_row, uint64_t rows, std::span<float> out) const override {
    const auto width = static_cast<size_t>(values_->shape[1]);
    const uint64_t across = (width + block_.columns - 1) / block_.columns;
    const std::byte* bytes = values_->bytes.subspan(first_row * width, rows * width).data();
    for (uint64_t row = 0; row < rows; ++row)
      for (uint64_t group = 0; group < across; ++group) {
        const float scale = float_at(*scales_, (first_row + row) / block_.rows * across + group);
        const size_t end = std::min<size_t>(width, (group + 1) * block_.columns);
        for (size_t k = group * block_.columns; k < end; ++k) {
          const size_t at = row * width + k;
          out[at] = numbers_[std::to_integer<size_t>(bytes[at])] * scale;
        }
      }
  }

 private:
  const CheckpointTensor* values_;
  const CheckpointTensor* scales_;
  BlockSize block_;
  std::array<float, 256> numbers_{};
};

}  // namespace

std::unique_ptr<PackedReader> block_scaled_reader(const CheckpointTensor& values,
                                                  const CheckpointTensor& scales, BlockSize block) {
  return std::make_unique<BlockScaledReader>(values, scales, block);
}

}  // namespace tessera
