#include "gguf-like-format/pytorch/pytorch_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <utility>

#include "gguf-like-format/pytorch/tensor_pickle.h"
#include "gguf-like-format/pytorch/zip_archive.h"

namespace tessera {

namespace {

using Bytes = std::span<const std::byte>;
using Files = std::map<std::string_view, Bytes>;

constexpr uint64_t kMost = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
constexpr std::string_view kPickle = "/data.pkl";

struct StorageType {
  std::string_view name;
  CheckpointType type;
  uint64_t bytes;
};
constexpr std::array kTypes = {
    StorageType{"FloatStorage", CheckpointType::f32, 4},
    StorageType{"HalfStorage", CheckpointType::f16, 2},
    StorageType{"BFloat16Storage", CheckpointType::bf16, 2},
    StorageType{"DoubleStorage", CheckpointType::f64, 8},
    StorageType{"LongStorage", CheckpointType::i64, 8},
    StorageType{"IntStorage", CheckpointType::i32, 4},
    StorageType{"CharStorage", CheckpointType::i8, 1},
    StorageType{"ByteStorage", CheckpointType::u8, 1},
    StorageType{"BoolStorage", CheckpointType::u8, 1},
};

bool begins_with(Bytes bytes, std::string_view text) {
  return bytes.size() >= text.size() && std::memcmp(bytes.data(), text.data(), text.size()) == 0;
}

// The folder inside the archive that everything lies in: the one with data.pkl.
std::string_view top_folder(const Files& files, const std::string& file) {
  std::string_view top;
  for (const auto& [name, content] : files) {
    if (!name.ends_with(kPickle) || name.find('/') != name.size() - kPickle.size()) continue;
    if (!top.empty()) throw FileError(fmt::format("{}: expected one data.pkl, found two", file));
    top = name.substr(0, name.size() - kPickle.size());
  }
  if (top.empty())
    throw FileError(fmt::format("{}: expected FOLDER/data.pkl, which torch.save writes, found none", file));
  return top;
}

class TensorReader {
 public:
  TensorReader(const Files& files, std::string_view top, const std::string& file)
      : files_(files), top_(top), file_(file) {}

  CheckpointTensor read(const PickledTensor& pickled) const {
    const auto* const type = std::find_if(kTypes.begin(), kTypes.end(), [&](const StorageType& each) {
      return each.name == pickled.storage_type;
    });
    if (type == kTypes.end())
      fail(pickled, "type", "a storage of floats or of whole numbers of 8, 32 or 64 bits",
           pickled.storage_type);
    const Bytes storage = storage_of(pickled, type->bytes);
    CheckpointTensor tensor;
    tensor.name = pickled.name;
    tensor.type = type->type;
    tensor.shape = pickled.shape;
    const uint64_t elements = count_elements(pickled);
    if (elements == 0) return tensor;
    const Bytes from = storage.subspan(static_cast<size_t>(pickled.offset * type->bytes));
    if (is_in_order(pickled)) {
      tensor.bytes = from.first(static_cast<size_t>(elements * type->bytes));
      return tensor;
    }
    tensor.copy = in_order(pickled, from, elements, static_cast<size_t>(type->bytes));
    tensor.bytes = *tensor.copy;
    return tensor;
  }

 private:
  [[noreturn]] void fail(const PickledTensor& tensor, std::string_view field, std::string_view expected,
                         std::string_view found) const {
    throw FileError(fmt::format("{}: tensor {}: {}: expected {}, found {}", file_, printable(tensor.name),
                                field, expected, printable(found)));
  }

  Bytes storage_of(const PickledTensor& tensor, uint64_t element_bytes) const {
    const auto found = files_.find(fmt::format("{}/data/{}", top_, tensor.storage_key));
    if (found == files_.end()) fail(tensor, "storage", "a file of the archive", tensor.storage_key);
    if (found->second.size() / element_bytes != tensor.storage_elements ||
        found->second.size() % element_bytes != 0)
      fail(tensor, "storage", fmt::format("{} elements of {} bytes", tensor.storage_elements, element_bytes),
           fmt::format("{} bytes", found->second.size()));
    return found->second;
  }

  // How many elements the tensor has; all of them lie within its storage, and there are no more of them than
  // the storage has.
  uint64_t count_elements(const PickledTensor& tensor) const {
    uint64_t elements = 1, last = tensor.offset;
    if (std::find(tensor.shape.begin(), tensor.shape.end(), 0) != tensor.shape.end()) return 0;
    for (size_t i = 0; i < tensor.shape.size(); ++i) {
      const uint64_t size = tensor.shape[i], stride = tensor.strides[i];
      if (elements > tensor.storage_elements / size)
        fail(tensor, "shape", fmt::format("at most the {} elements of its storage", tensor.storage_elements),
             "more");
      elements *= size;
      if (stride != 0 && (size - 1) > (kMost - last) / stride)
        fail(tensor, "strides", "a view of its storage", "more");
      last += (size - 1) * stride;
    }
    if (last >= tensor.storage_elements)
      fail(tensor, "view", fmt::format("elements below {}, the end of its storage", tensor.storage_elements),
           std::to_string(last));
    return elements;
  }

  // Whether elements follow each other as in a row-major array.
  static bool is_in_order(const PickledTensor& tensor) {
    uint64_t expected = 1;
    for (size_t i = tensor.shape.size(); i-- > 0;) {
      if (tensor.shape[i] != 1 && tensor.strides[i] != expected) return false;
      expected *= tensor.shape[i];
    }
    return true;
  }

  // The elements of a transposed or cut view, in row-major order.
  static std::shared_ptr<const std::vector<std::byte>> in_order(const PickledTensor& tensor, Bytes from,
                                                                uint64_t elements, size_t element_bytes) {
    auto copy = std::make_shared<std::vector<std::byte>>(static_cast<size_t>(elements) * element_bytes);
    std::vector<uint64_t> index(tensor.shape.size());
    uint64_t source = 0;
    for (size_t i = 0; i < elements; ++i) {
      std::memcpy(copy->data() + i * element_bytes, from.data() + static_cast<size_t>(source) * element_bytes,
                  element_bytes);
      for (size_t d = tensor.shape.size(); d-- > 0;) {
        source += tensor.strides[d];
        if (++index[d] < tensor.shape[d]) break;
        source -= tensor.strides[d] * tensor.shape[d];
        index[d] = 0;
      }
    }
    return copy;
  }

  const Files& files_;
  std::string_view top_;
  const std::string& file_;
};

}  // namespace

std::vector<CheckpointTensor> parse_pytorch(std::span<const std::byte> bytes, const std::string& file) {
  constexpr std::string_view kZip = "PK\x03\x04", kOldPickle = "\x80\x02";
  constexpr size_t kTarMark = 257;
  if (begins_with(bytes, kOldPickle) ||
      (bytes.size() > kTarMark && begins_with(bytes.subspan(kTarMark), "ustar")))
    throw FileError(
        fmt::format("{}: expected the format that torch.save writes since version 1.6, found the older "
                    "one: torch.save(torch.load(FILE), FILE) converts it",
                    file));
  if (!begins_with(bytes, kZip))
    throw FileError(fmt::format("{}: expected a file of torch.save, found no zip archive", file));
  const Files files = parse_zip(bytes, file);
  const std::string_view top = top_folder(files, file);
  if (files.contains(fmt::format("{}/constants.pkl", top)))
    throw FileError(fmt::format("{}: expected a file of torch.save, found a TorchScript program", file));
  if (const auto order = files.find(fmt::format("{}/byteorder", top));
      order != files.end() && !(order->second.size() == 6 && begins_with(order->second, "little")))
    throw FileError(fmt::format("{}: byteorder: expected little, found another", file));
  const std::vector<PickledTensor> pickled =
      read_tensor_pickle(files.at(fmt::format("{}{}", top, kPickle)), fmt::format("{}: data.pkl", file));
  const TensorReader reader(files, top, file);
  std::vector<CheckpointTensor> tensors;
  uint64_t copied = 0;
  for (const PickledTensor& each : pickled) {
    tensors.push_back(reader.read(each));
    if (tensors.back().copy) copied += tensors.back().bytes.size();
    if (copied > bytes.size())
      throw FileError(
          fmt::format("{}: tensor {}: expected views that copy no more than the file has, found more", file,
                      printable(each.name)));
  }
  return tensors;
}

}  // namespace tessera
