#include "engine/checkpoint/tensor_parts.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "gguf-like-format/float_types.h"

namespace tessera {

namespace {

constexpr uint64_t kMostRows = (uint64_t{1} << 31) - 1;

std::string shape_text(std::span<const uint64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

template <typename T>
T load(const CheckpointTensor& tensor, uint64_t i) {
  T value{};
  std::memcpy(&value, tensor.bytes.subspan(static_cast<size_t>(i) * sizeof(T), sizeof(T)).data(), sizeof(T));
  return value;
}

}  // namespace

TensorParts::TensorParts(std::string path, std::span<const CheckpointTensor> tensors)
    : path_(std::move(path)), tensors_(tensors) {
  for (const CheckpointTensor& tensor : tensors) index_.emplace(tensor.name, &tensor);
}

const CheckpointTensor* TensorParts::find(const std::string& name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : found->second;
}

const CheckpointTensor& TensorParts::require(const std::string& name, const std::string& beside) const {
  const CheckpointTensor* found = find(name);
  if (found == nullptr)
    throw FileError(fmt::format("{}: tensor \"{}\": expected it beside \"{}\", found no such tensor", path_,
                                printable(name), printable(beside)));
  return *found;
}

std::vector<std::string> TensorParts::modules(std::string_view suffix) const {
  std::vector<std::string> found;
  for (const CheckpointTensor& tensor : tensors_)
    if (tensor.name.size() > suffix.size() && tensor.name.ends_with(suffix))
      found.push_back(tensor.name.substr(0, tensor.name.size() - suffix.size()));
  return found;
}

void TensorParts::check_type(const CheckpointTensor& tensor,
                             std::initializer_list<CheckpointType> allowed) const {
  if (std::find(allowed.begin(), allowed.end(), tensor.type) != allowed.end()) return;
  std::vector<std::string_view> names;
  for (const CheckpointType type : allowed) names.push_back(type_name(type));
  refuse(tensor, fmt::format("type {}", fmt::join(names, " or ")), type_name(tensor.type));
}

void TensorParts::check_shape(const CheckpointTensor& tensor,
                              std::initializer_list<uint64_t> expected) const {
  if (!std::equal(tensor.shape.begin(), tensor.shape.end(), expected.begin(), expected.end()))
    refuse(tensor, fmt::format("shape {}", shape_text({expected.begin(), expected.size()})),
           shape_text(tensor.shape));
}

void TensorParts::check_matrix(const CheckpointTensor& tensor) const {
  const bool sized = tensor.shape.size() == 2 && tensor.shape[0] != 0 && tensor.shape[1] != 0 &&
                     tensor.shape[0] <= kMostRows && tensor.shape[1] <= kMostRows;
  if (!sized) refuse(tensor, fmt::format("two dimensions from 1 to {}", kMostRows), shape_text(tensor.shape));
}

void TensorParts::check_levels(const CheckpointTensor& tensor) const {
  check_type(tensor, {CheckpointType::f32, CheckpointType::f16, CheckpointType::bf16});
  for (uint64_t i = 0; i < tensor.elements(); ++i) {
    const float value = float_at(tensor, i);
    if (!std::isfinite(value)) refuse(tensor, "finite values", fmt::format("{} at [{}]", value, i));
  }
}

uint64_t TensorParts::scalar(const CheckpointTensor& tensor) const {
  check_type(tensor, {CheckpointType::u8, CheckpointType::i32, CheckpointType::i64});
  if (tensor.elements() != 1) refuse(tensor, "one value", fmt::format("{}", tensor.elements()));
  const int64_t value = integer_at(tensor, 0);
  if (value < 0) refuse(tensor, "a value of at least 0", fmt::format("{}", value));
  return static_cast<uint64_t>(value);
}

std::pair<uint64_t, uint64_t> TensorParts::matrix_shape(const CheckpointTensor& tensor) const {
  check_type(tensor, {CheckpointType::i64, CheckpointType::i32});
  check_shape(tensor, {2});
  const int64_t rows = integer_at(tensor, 0);
  const int64_t columns = integer_at(tensor, 1);
  const auto most = static_cast<int64_t>(kMostRows);
  if (rows < 1 || rows > most || columns < 1 || columns > most)
    refuse(tensor, fmt::format("two sizes from 1 to {}", kMostRows), fmt::format("[{}, {}]", rows, columns));
  return {static_cast<uint64_t>(rows), static_cast<uint64_t>(columns)};
}

void TensorParts::refuse(const CheckpointTensor& tensor, std::string_view expected,
                         std::string_view found) const {
  throw FileError(fmt::format("{}: tensor \"{}\": expected {}, found {}", path_, printable(tensor.name),
                              expected, found));
}

int64_t integer_at(const CheckpointTensor& tensor, uint64_t i) {
  switch (tensor.type) {
    case CheckpointType::i64:
      return load<int64_t>(tensor, i);
    case CheckpointType::i32:
      return load<int32_t>(tensor, i);
    case CheckpointType::i8:
      return load<int8_t>(tensor, i);
    default:
      return load<uint8_t>(tensor, i);
  }
}

float float_at(const CheckpointTensor& tensor, uint64_t i) {
  switch (tensor.type) {
    case CheckpointType::f16:
      return f16_to_f32(load<uint16_t>(tensor, i));
    case CheckpointType::bf16:
      return bf16_to_f32(load<uint16_t>(tensor, i));
    default:
      return load<float>(tensor, i);
  }
}

}  // namespace tessera
