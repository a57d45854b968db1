#include "engine/checkpoint/mistaken_path.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string_view>
#include <vector>

#include "engine/checkpoint/weight_formats.h"
#include "gguf-like-format/file_error.h"
#include "gguf-like-format/stand_ins.h"

namespace tessera {

namespace {

namespace fs = std::filesystem;

struct Ending {
  std::string_view ending;
  std::string_view what;
};

// Files by the endings of their names, and what to do instead. {}: the folder that holds the file.
constexpr std::array kFileEndings = {
    Ending{".safetensors", "is one file of a checkpoint: give the folder that holds it, {}"},
    Ending{".json", "is one file of a checkpoint: give the folder that holds it, {}"},
    Ending{".jinja", "is one file of a checkpoint: give the folder that holds it, {}"},
    Ending{".model", "is one file of a checkpoint: give the folder that holds it, {}"},
    Ending{"merges.txt", "is one file of a checkpoint: give the folder that holds it, {}"},
    Ending{".bin", "is one file of a checkpoint: give the folder that holds it, {}"},
    Ending{".pt", "holds PyTorch weights: expected safetensors, as save_pretrained writes them"},
    Ending{".pth", "holds PyTorch weights: expected safetensors, as save_pretrained writes them"},
    Ending{".ckpt", "holds PyTorch weights: expected safetensors, as save_pretrained writes them"},
    Ending{".zip", "is an archive: unpack it and give the folder"},
    Ending{".tar", "is an archive: unpack it and give the folder"},
    Ending{".gz", "is an archive: unpack it and give the folder"},
    Ending{".zst", "is an archive: unpack it and give the folder"},
    Ending{".incomplete", "is an unfinished download: fetch it again"},
    Ending{".part", "is an unfinished download: fetch it again"},
    Ending{".crdownload", "is an unfinished download: fetch it again"},
    Ending{".aria2", "is an unfinished download: fetch it again"},
};

// Endings of the files that importing reads.
constexpr std::array<std::string_view, 7> kReadEndings = {".json", ".jinja",       ".model", ".txt",
                                                          ".bpe",  ".safetensors", ".bin"};

bool ends_with(std::string_view text, std::string_view ending) {
  return text.size() >= ending.size() && text.substr(text.size() - ending.size()) == ending;
}

[[noreturn]] void refuse(const std::string& path, std::string_view what) {
  throw FileError(fmt::format("{}: {}", path, what));
}

[[noreturn]] void refuse_file(const std::string& path) {
  std::string beginning(256, '\0');
  std::ifstream file(path, std::ios::binary);
  file.read(beginning.data(), static_cast<std::streamsize>(beginning.size()));
  beginning.resize(static_cast<size_t>(file.gcount()));
  refuse_stand_in(path, beginning);
  if (beginning.substr(0, 8) == std::string_view("TESSERA\0", 8))
    refuse(path, "is a .tess file already: run it with -m");
  for (const Ending& row : kFileEndings) {
    if (!ends_with(path, row.ending)) continue;
    const std::string folder = fs::path(path).parent_path().string();
    refuse(path, fmt::format(fmt::runtime(row.what), folder.empty() ? "." : folder));
  }
  refuse(path, "expected the folder of a Hugging Face checkpoint or a GGUF file, found another file");
}

// "owner/name", as models are called on Hugging Face.
bool is_repository_name(std::string_view path) {
  const size_t slash = path.find('/');
  if (slash == std::string_view::npos || slash == 0 || slash + 1 == path.size()) return false;
  if (path.front() == '.' || path.find('/', slash + 1) != std::string_view::npos) return false;
  return std::all_of(path.begin(), path.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("/._-").find(c) != std::string_view::npos;
  });
}

// The names in a folder, sorted; none where it cannot be read.
std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error))
    names.push_back(entry->path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

// The first of the names with an ending.
std::optional<std::string> first_with(const std::vector<std::string>& names, std::string_view ending) {
  const auto found = std::find_if(names.begin(), names.end(),
                                  [&](const std::string& name) { return ends_with(name, ending); });
  return found == names.end() ? std::nullopt : std::optional(*found);
}

// Where Hugging Face's tools keep what they have not finished for this folder.
std::optional<std::string> unfinished_download(const fs::path& folder) {
  for (const char* place : {".", ".cache/huggingface/download", "../../blobs"})
    if (const auto name = first_with(names_in(folder / place), ".incomplete"))
      return (folder / place / *name).lexically_normal().string();
  return std::nullopt;
}

// A folder without config.json.
void explain_missing_config(const std::string& path, const std::vector<std::string>& names) {
  const auto has = [&](std::string_view name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  if (has("adapter_config.json"))
    refuse(path, "is an adapter (LoRA), not a model: merge it into its base model first");
  if (has("snapshots")) {
    const std::vector<std::string> versions = names_in(fs::path(path) / "snapshots");
    refuse(path, fmt::format(
                     "is a cache of Hugging Face's tools: give the folder of a version, {}",
                     (fs::path(path) / "snapshots" / (versions.size() == 1 ? versions.front() : "<version>"))
                         .string()));
  }
  if (const auto name = first_with(names, ".gguf"))
    refuse(path,
           fmt::format("holds GGUF files: give one of them, such as {}", (fs::path(path) / *name).string()));
  if (has("params.json"))
    refuse(path,
           "holds weights as their publisher packs them (params.json): expected the Hugging Face format");
}

void explain_missing_weights(const std::string& path, const std::vector<std::string>& names) {
  if (const auto part = unfinished_download(path))
    refuse(path, fmt::format("the download is unfinished: {} is incomplete", *part));
  if (std::find(names.begin(), names.end(), "adapter_config.json") != names.end())
    refuse(path, "is an adapter (LoRA), not a model: merge it into its base model first");
  for (const std::string_view ending : {".bin", ".pth", ".pt"})
    if (const auto name = first_with(names, ending))
      refuse(path, fmt::format("holds PyTorch weights ({}): expected safetensors or pytorch_model.bin, as "
                               "save_pretrained writes them",
                               *name));
}

}  // namespace

void refuse_mistaken_path(const std::string& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) {
    if (is_repository_name(path) && error.value() == ENOENT && !fs::is_symlink(path, error))
      refuse(path, fmt::format("there is no such folder; a model of a hub comes with tessera pull {}", path));
    refuse(path, why_not_opened(path, error.value() != 0 ? error.value() : ENOENT));
  }
  if (!fs::is_directory(status)) refuse_file(path);
  const std::vector<std::string> names = names_in(path);
  for (const std::string& name : names) {
    const fs::path file = fs::path(path) / name;
    if (std::none_of(kReadEndings.begin(), kReadEndings.end(),
                     [&](std::string_view ending) { return ends_with(name, ending); }))
      continue;
    if (fs::is_symlink(file, error) && !fs::exists(file, error))
      refuse(file.string(), why_not_opened(file.string(), ENOENT));
  }
  const auto has = [&](std::string_view name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  if (!has("config.json")) explain_missing_config(path, names);
  const bool has_weights =
      std::any_of(kWeightFormats.begin(), kWeightFormats.end(),
                  [&](const CheckpointFormat& format) { return has(format.file) || has(format.index); });
  if (!has_weights) explain_missing_weights(path, names);
}

}  // namespace tessera
