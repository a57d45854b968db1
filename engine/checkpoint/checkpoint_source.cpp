#include "engine/checkpoint/checkpoint_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "engine/checkpoint/gguf_source.h"
#include "engine/checkpoint/huggingface_source.h"
#include "gguf-like-format/file_error.h"

namespace tessera {

namespace {

struct CheckpointFormat {
  bool (*recognizes)(const std::string& path);
  std::unique_ptr<CheckpointSource> (*open)(const std::string& path);
  std::vector<std::string> (*files)(const std::string& path);
};

// The last one recognizes everything: its errors say what is missing.
constexpr std::array kFormats = {
    CheckpointFormat{is_gguf_file, open_gguf_file, gguf_files},
    CheckpointFormat{[](const std::string&) { return true; }, open_huggingface_folder, huggingface_files},
};

const CheckpointFormat& format_of(const std::string& path) {
  return *std::find_if(kFormats.begin(), kFormats.end(),
                       [&](const CheckpointFormat& each) { return each.recognizes(path); });
}

}  // namespace

uint64_t SourceTensor::elements() const {
  uint64_t product = 1;
  for (const uint64_t dimension : shape) product *= dimension;
  return product;
}

const SourceTensor* CheckpointSource::find(std::string_view name) const {
  const std::span<const SourceTensor> all = tensors();
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const SourceTensor& each) { return each.name == name; });
  return found == all.end() ? nullptr : &*found;
}

PackedRows CheckpointSource::read_packed(const SourceTensor& tensor, uint64_t, uint64_t) const {
  throw FileError(fmt::format("{}: tensor {} holds no codes", path(), tensor.name));
}

bool is_checkpoint(const std::string& path) {
  std::error_code none;
  return std::filesystem::is_directory(path, none) || &format_of(path) != &kFormats.back();
}

std::unique_ptr<CheckpointSource> open_checkpoint(const std::string& path) {
  return format_of(path).open(path);
}

std::vector<std::string> checkpoint_files(const std::string& path) { return format_of(path).files(path); }

}  // namespace tessera
