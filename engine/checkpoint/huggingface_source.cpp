#include "engine/checkpoint/huggingface_source.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <unordered_set>

#include "engine/checkpoint/huggingface_config.h"
#include "engine/checkpoint/mistaken_path.h"
#include "engine/checkpoint/packed_layout.h"
#include "engine/checkpoint/weight_formats.h"

namespace tessera {

namespace {

// The float type that holds all values of a tensor that is not packed.
std::optional<Scheme> precision_of(CheckpointType type) {
  switch (type) {
    case CheckpointType::f32:
      return Scheme::f32;
    case CheckpointType::f16:
      return Scheme::f16;
    case CheckpointType::bf16:
      return Scheme::bf16;
    default:
      return std::nullopt;
  }
}

// The format of the folder's weights; where it has none, the one that errors speak of.
const CheckpointFormat& weights_format(const std::string& folder) {
  const auto has = [&](const CheckpointFormat& format) {
    std::error_code error;
    return std::filesystem::exists(folder + "/" + format.file, error) ||
           std::filesystem::exists(folder + "/" + format.index, error);
  };
  const auto* const found = std::find_if(kWeightFormats.begin(), kWeightFormats.end(), has);
  return found != kWeightFormats.end() ? *found : kWeightFormats.front();
}

class HuggingFaceSource : public CheckpointSource {
 public:
  explicit HuggingFaceSource(const std::string& folder)
      : path_(folder),
        header_(read_huggingface_folder(folder, notes_)),
        quantization_(read_quantization_config(folder)),
        checkpoint_(Checkpoint::open(folder, weights_format(folder))),
        tokenizer_(Tokenizer::from_folder(folder, &notes_)) {
    add_built_in_end(folder);
    const TensorParts parts(folder, checkpoint_.tensors());
    if (!quantization_) quantization_ = read_quantization_file(folder, parts);
    if (quantization_) packed_ = find_packed(*quantization_->layout, parts);
    std::unordered_set<const CheckpointTensor*> hidden = empty_biases(parts);
    if (!hidden.empty())
      notes_.push_back(fmt::format("{}: {} biases that the model does not have are 0 and left out", folder,
                                   hidden.size()));
    for (const PackedTensor& matrix : packed_) hidden.insert(matrix.parts.begin(), matrix.parts.end());
    size_t unused = 0;
    for (const CheckpointTensor& tensor : checkpoint_.tensors()) {
      if (hidden.contains(&tensor)) continue;
      if (quantization_ && quantization_->layout->is_unused(tensor.name)) {
        ++unused;
        continue;
      }
      plain_.push_back(&tensor);
      tensors_.push_back({tensor.name, tensor.shape, type_name(tensor.type), precision_of(tensor.type)});
    }
    for (const PackedTensor& matrix : packed_)
      tensors_.push_back({matrix.name,
                          {matrix.rows, matrix.columns},
                          matrix.type,
                          Scheme::f32,
                          static_cast<unsigned>(matrix.type.back() - '0')});
    if (unused != 0)
      notes_.push_back(fmt::format(
          "{}: {} scales and zero points of activations, keys and values are not used", folder, unused));
  }

  const std::string& path() const override { return path_; }
  const ModelHeader& header() const override { return header_; }
  std::span<const std::string> notes() const override { return notes_; }
  const Tokenizer& tokenizer() const override { return tokenizer_; }
  std::span<const SourceTensor> tensors() const override { return tensors_; }
  // Checkpoints of a model without its head lack the first part of every name.
  TensorSource source_of(const ExpectedTensor& tensor) const override {
    TensorSource source = tensor.source;
    const std::string bare = source.name.substr(source.name.find('.') + 1);
    if (find(source.name) == nullptr && find(bare) != nullptr) source.name = bare;
    return source;
  }
  void read(const SourceTensor& tensor, uint64_t first, std::span<float> out) const override {
    if (const PackedTensor* matrix = packed(tensor))
      read_packed_values(*matrix, first, out);
    else
      read_floats(*plain_[index_of(tensor)], first, out);
  }
  std::optional<PackedFormat> packed_format(const SourceTensor& tensor) const override {
    const PackedTensor* matrix = packed(tensor);
    if (matrix == nullptr || matrix->reader->format() == nullptr) return std::nullopt;
    return *matrix->reader->format();
  }
  PackedRows read_packed(const SourceTensor& tensor, uint64_t first_row, uint64_t rows) const override {
    const PackedReader* reader = reader_of_rows(tensor, first_row, rows);
    return reader == nullptr ? CheckpointSource::read_packed(tensor, first_row, rows)
                             : reader->packed_rows(first_row, rows);
  }
  PackedRows read_levels(const SourceTensor& tensor, uint64_t first_row, uint64_t rows) const override {
    const PackedReader* reader = reader_of_rows(tensor, first_row, rows);
    return reader == nullptr ? CheckpointSource::read_levels(tensor, first_row, rows)
                             : reader->level_rows(first_row, rows);
  }
  uint64_t hash(const SourceTensor& tensor, uint64_t seed) const override {
    const auto hashed = [](std::span<const std::byte> bytes, uint64_t from) {
      return XXH64(bytes.data(), bytes.size(), from);
    };
    const PackedTensor* matrix = packed(tensor);
    if (matrix == nullptr) return hashed(plain_[index_of(tensor)]->bytes, seed);
    uint64_t hash = hashed(std::as_bytes(std::span(quantization_->settings)), seed);
    for (const CheckpointTensor* part : matrix->parts) hash = hashed(part->bytes, hash);
    return hash;
  }

 private:
  static constexpr uint64_t kRowsAtOnce = 32;

  // Says so where a template is built in, and stops at the token that it begins a turn with.
  void add_built_in_end(const std::string& folder) {
    const BuiltInTemplate* built_in = folder_built_in_template(folder);
    if (built_in == nullptr) return;
    notes_.push_back(fmt::format("{}: no chat template: that of its family, prompts/{}, is taken", folder,
                                 built_in->file));
    const auto id = built_in->also_ends.empty() ? std::nullopt : tokenizer_.find(built_in->also_ends);
    std::vector<uint32_t>& stops = header_.chat.stop_tokens;
    if (id && std::find(stops.begin(), stops.end(), *id) == stops.end()) stops.push_back(*id);
  }

  // Some GPTQ packages write a bias of 0 beside every packed matrix, also where the model has none.
  std::unordered_set<const CheckpointTensor*> empty_biases(const TensorParts& parts) const {
    std::unordered_set<const CheckpointTensor*> empty;
    if (packed_.empty()) return empty;
    std::unordered_set<std::string> expected;
    for (const ExpectedTensor& tensor : expected_tensors(header_.hyperparameters))
      expected.insert(tensor.source.name);
    constexpr std::string_view weight = "weight";
    for (const PackedTensor& matrix : packed_) {
      const std::string name = matrix.name.substr(0, matrix.name.size() - weight.size()) + "bias";
      const CheckpointTensor* bias = parts.find(name);
      if (bias == nullptr || expected.contains(name) || !precision_of(bias->type)) continue;
      bool zero = true;
      for (uint64_t i = 0; i < bias->elements() && zero; ++i) zero = float_at(*bias, i) == 0;
      if (zero) empty.insert(bias);
    }
    return empty;
  }

  // tensors_ has the plain tensors first, then the packed ones.
  size_t index_of(const SourceTensor& tensor) const { return static_cast<size_t>(&tensor - tensors_.data()); }
  const PackedTensor* packed(const SourceTensor& tensor) const {
    const size_t index = index_of(tensor);
    return index < plain_.size() ? nullptr : &packed_[index - plain_.size()];
  }

  // nullptr for a tensor without a format. Throws FileError for rows that it does not have.
  const PackedReader* reader_of_rows(const SourceTensor& tensor, uint64_t first_row, uint64_t rows) const {
    const PackedTensor* matrix = packed(tensor);
    if (matrix == nullptr || matrix->reader->format() == nullptr) return nullptr;
    if (first_row > matrix->rows || rows > matrix->rows - first_row)
      throw FileError(fmt::format("{}: tensor \"{}\": expected rows within {}, found {} from {}", path_,
                                  printable(tensor.name), matrix->rows, rows, first_row));
    return matrix->reader.get();
  }

  // Some rows at once, since those of several layouts lie side by side.
  void read_packed_values(const PackedTensor& matrix, uint64_t first, std::span<float> out) const {
    const uint64_t elements = matrix.rows * matrix.columns;
    if (first > elements || out.size() > elements - first)
      throw FileError(fmt::format("{}: tensor \"{}\": expected elements within {}, found {} from {}", path_,
                                  printable(matrix.name), elements, out.size(), first));
    std::vector<float> row;
    while (!out.empty()) {
      const uint64_t column = first % matrix.columns;
      uint64_t taken = 0;
      if (column == 0 && out.size() >= matrix.columns) {
        const uint64_t rows = std::min<uint64_t>(kRowsAtOnce, out.size() / matrix.columns);
        taken = rows * matrix.columns;
        matrix.reader->read_rows(first / matrix.columns, rows, out.first(taken));
      } else {
        taken = std::min<uint64_t>(matrix.columns - column, out.size());
        row.resize(matrix.columns);
        matrix.reader->read_rows(first / matrix.columns, 1, row);
        std::copy_n(row.begin() + static_cast<std::ptrdiff_t>(column), taken, out.begin());
      }
      first += taken;
      out = out.subspan(taken);
    }
  }

  std::string path_;
  std::vector<std::string> notes_;
  ModelHeader header_;
  std::optional<FolderQuantization> quantization_;
  Checkpoint checkpoint_;
  Tokenizer tokenizer_;
  std::vector<PackedTensor> packed_;
  std::vector<const CheckpointTensor*> plain_;
  std::vector<SourceTensor> tensors_;
};

}  // namespace

std::unique_ptr<CheckpointSource> open_huggingface_folder(const std::string& folder) {
  refuse_mistaken_path(folder);
  return std::make_unique<HuggingFaceSource>(folder);
}

std::vector<std::string> huggingface_files(const std::string& folder) {
  refuse_mistaken_path(folder);
  std::error_code error;
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
