#include "engine/checkpoint/huggingface_source.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <filesystem>

#include "engine/checkpoint/huggingface_config.h"
#include "gguf-like-format/safetensors/safetensors.h"

namespace tessera {

namespace {

struct TypeRow {
  CheckpointType type;
  std::string_view name;
  std::optional<Scheme> precision;
};
constexpr TypeRow kTypes[] = {
    {CheckpointType::f32, "F32", Scheme::f32},    {CheckpointType::f16, "F16", Scheme::f16},
    {CheckpointType::bf16, "BF16", Scheme::bf16}, {CheckpointType::i32, "I32", std::nullopt},
    {CheckpointType::u8, "U8", std::nullopt},
};

const TypeRow& type_row(CheckpointType type) {
  size_t at = 0;
  while (kTypes[at].type != type) ++at;
  return kTypes[at];
}

class HuggingFaceSource : public CheckpointSource {
 public:
  explicit HuggingFaceSource(const std::string& folder)
      : path_(folder),
        header_(read_huggingface_folder(folder, notes_)),
        checkpoint_(Checkpoint::open(folder)),
        tokenizer_(Tokenizer::from_folder(folder)) {
    tensors_.reserve(checkpoint_.tensors().size());
    for (const CheckpointTensor& tensor : checkpoint_.tensors()) {
      const TypeRow& row = type_row(tensor.type);
      tensors_.push_back({tensor.name, tensor.shape, row.name, row.precision});
    }
  }

  const std::string& path() const override { return path_; }
  const ModelHeader& header() const override { return header_; }
  std::span<const std::string> notes() const override { return notes_; }
  const Tokenizer& tokenizer() const override { return tokenizer_; }
  std::span<const SourceTensor> tensors() const override { return tensors_; }
  void read(const SourceTensor& tensor, uint64_t first, std::span<float> out) const override {
    read_floats(stored(tensor), first, out);
  }
  uint64_t hash(const SourceTensor& tensor, uint64_t seed) const override {
    const std::span<const std::byte> bytes = stored(tensor).bytes;
    return XXH64(bytes.data(), bytes.size(), seed);
  }

 private:
  // tensors_ mirrors the checkpoint's list.
  const CheckpointTensor& stored(const SourceTensor& tensor) const {
    return checkpoint_.tensors()[static_cast<size_t>(&tensor - tensors_.data())];
  }

  std::string path_;
  std::vector<std::string> notes_;
  ModelHeader header_;
  Checkpoint checkpoint_;
  Tokenizer tokenizer_;
  std::vector<SourceTensor> tensors_;
};

}  // namespace

std::unique_ptr<CheckpointSource> open_huggingface_folder(const std::string& folder) {
  return std::make_unique<HuggingFaceSource>(folder);
}

std::vector<std::string> huggingface_files(const std::string& folder) {
  std::error_code error;
  if (!std::filesystem::exists(std::filesystem::path(folder) / "config.json", error))
    throw FileError(fmt::format("{}: expected a checkpoint folder, found one without config.json", folder));
  std::vector<std::string> files;
  std::filesystem::directory_iterator entry(folder, error);
  for (const std::filesystem::directory_iterator end; !error && entry != end; entry.increment(error)) {
    const std::filesystem::path& path = entry->path();
    std::error_code gone;
    if (path.filename().string().starts_with('.') || path.extension() == ".tess" ||
        !entry->is_regular_file(gone))
      continue;
    files.push_back(path.string());
  }
  if (error) throw FileError(fmt::format("{}: cannot be listed: {}", folder, error.message()));
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace tessera
