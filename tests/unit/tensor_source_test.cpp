// Tensors read from a part of a checkpoint's tensor, in another order of rows, or multiplied.
#include "engine/models/tensor_source.h"

#include <doctest/doctest.h>

#include <cmath>
#include <numeric>

#include "engine/quantize/plan/checkpoint_values.h"

using namespace tessera;

namespace {

// One tensor whose element i is i.
class CountingCheckpoint : public CheckpointSource {
 public:
  explicit CountingCheckpoint(std::vector<uint64_t> shape)
      : tensors_{{"fused", std::move(shape), "F32", Scheme::f32}} {}
  const std::string& path() const override { return path_; }
  const ModelHeader& header() const override { return header_; }
  const Tokenizer& tokenizer() const override { throw FileError("no tokenizer"); }
  std::span<const SourceTensor> tensors() const override { return tensors_; }
  void read(const SourceTensor& tensor, uint64_t first, std::span<float> out) const override {
    if (first + out.size() > tensor.elements()) throw FileError("beyond the tensor");
    std::iota(out.begin(), out.end(), static_cast<float>(first));
  }
  uint64_t hash(const SourceTensor&, uint64_t seed) const override { return seed; }

 private:
  std::string path_ = "counting";
  ModelHeader header_;
  std::vector<SourceTensor> tensors_;
};

std::vector<float> read_all(const CountingCheckpoint& checkpoint, std::vector<uint64_t> shape,
                            const TensorSource& source, uint64_t first, size_t count) {
  PlannedWeight weight;
  weight.expected.shape = std::move(shape);
  weight.expected.source = source;
  weight.checkpoint = &checkpoint;
  weight.source = checkpoint.find("fused");
  std::vector<float> values(count);
  read_finite("counting", weight, first, values);
  return values;
}

}  // namespace

TEST_CASE("rows of a fused matrix that is stored with its columns as rows") {
  const CountingCheckpoint checkpoint({3, 6});  // element (row, column) is 6 column + row
  TensorSource source{"fused"};
  source.first_row = 2;
  source.all_rows = 6;
  source.transposed = true;
  CHECK(read_all(checkpoint, {2, 3}, source, 0, 6) == std::vector<float>{2, 8, 14, 3, 9, 15});
  CHECK(read_all(checkpoint, {2, 3}, source, 2, 3) == std::vector<float>{14, 3, 9});
  // Heads of two rows where one is stored, then columns likewise.
  source.first_row = 0;
  source.stored_head = 1;
  source.padded_head = 2;
  CHECK(read_all(checkpoint, {4, 3}, source, 0, 12) ==
        std::vector<float>{0, 6, 12, 0, 0, 0, 1, 7, 13, 0, 0, 0});
  source.in_columns = true;
  CHECK(read_all(checkpoint, {1, 6}, source, 1, 5) == std::vector<float>{0, 6, 0, 12, 0});
}

TEST_CASE("rows that are divided by their lengths") {
  const CountingCheckpoint checkpoint({3, 2});
  TensorSource source{"fused"};
  source.unit_rows = true;
  const std::vector<float> values = read_all(checkpoint, {3, 2}, source, 0, 6);
  for (size_t row = 0; row < 3; ++row) {
    const double first = 2.0 * static_cast<double>(row);
    const double length = std::sqrt(first * first + (first + 1) * (first + 1));
    CHECK(values[2 * row] == doctest::Approx(first / length));
    CHECK(values[2 * row + 1] == doctest::Approx((first + 1) / length));
  }
  CHECK(read_all(checkpoint, {3, 2}, source, 3, 2) == std::vector<float>{values[3], values[4]});
}

TEST_CASE("rows of a fused matrix") {
  const CountingCheckpoint checkpoint({6, 3});
  TensorSource source{"fused"};
  source.first_row = 2;
  source.all_rows = 6;
  CHECK(read_all(checkpoint, {2, 3}, source, 0, 6) == std::vector<float>{6, 7, 8, 9, 10, 11});
  CHECK(read_all(checkpoint, {2, 3}, source, 2, 3) == std::vector<float>{8, 9, 10});
  source.multiplier = 0.5f;
  CHECK(read_all(checkpoint, {2, 3}, source, 4, 2) == std::vector<float>{5, 5.5f});
  // A bias of the same fused product.
  const CountingCheckpoint vector({6});
  source.multiplier = 1;
  CHECK(read_all(vector, {2}, source, 0, 2) == std::vector<float>{2, 3});
}

TEST_CASE("rows stored as pairs of neighbours are read half the rotated rows apart") {
  const CountingCheckpoint checkpoint({20});
  TensorSource source{"fused"};
  source.first_row = 4;
  source.all_rows = 20;
  source.head_rows = 8;
  source.rotated_rows = 8;
  // Two heads of 8 behind 4 other rows.
  CHECK(read_all(checkpoint, {16}, source, 0, 16) ==
        std::vector<float>{4, 6, 8, 10, 5, 7, 9, 11, 12, 14, 16, 18, 13, 15, 17, 19});
  source.rotated_rows = 4;  // the rest of a head stays
  CHECK(read_all(checkpoint, {16}, source, 0, 16) ==
        std::vector<float>{4, 6, 5, 7, 8, 9, 10, 11, 12, 14, 13, 15, 16, 17, 18, 19});
  const CountingCheckpoint matrix({4, 2});
  TensorSource rows{"fused"};
  rows.head_rows = 4;
  rows.rotated_rows = 4;
  const std::vector<float> all = read_all(matrix, {4, 2}, rows, 0, 8);
  CHECK(all == std::vector<float>{0, 1, 4, 5, 2, 3, 6, 7});
  // Any part, also one that begins and ends amid rows.
  for (size_t first = 0; first < 8; ++first) {
    for (size_t count = 0; first + count <= 8; ++count) {
      const auto begin = all.begin() + static_cast<std::ptrdiff_t>(first);
      CHECK(read_all(matrix, {4, 2}, rows, first, count) ==
            std::vector<float>(begin, begin + static_cast<std::ptrdiff_t>(count)));
    }
  }
}
