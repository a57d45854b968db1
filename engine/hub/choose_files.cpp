#include "engine/hub/choose_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cstdint>
#include <optional>
#include <set>

#include "engine/hub/hub_error.h"
#include "engine/hub/model_name.h"
#include "gguf-like-format/strict_json.h"

namespace tessera::hub {

namespace {

constexpr std::string_view kEnd = ".gguf";
constexpr std::array<std::string_view, 2> kUsualQuants = {"q4_k_m", "q4_0"};
// What is read of a checkpoint folder beside its weights.
constexpr std::array<std::string_view, 15> kSmallFiles = {"config.json",
                                                          "generation_config.json",
                                                          "quantize_config.json",
                                                          "quant_config.json",
                                                          "tokenizer.json",
                                                          "tokenizer_config.json",
                                                          "special_tokens_map.json",
                                                          "added_tokens.json",
                                                          "tokenizer.model",
                                                          "qwen.tiktoken",
                                                          "vocab.json",
                                                          "merges.txt",
                                                          "chat_template.jinja",
                                                          "processor_config.json",
                                                          "preprocessor_config.json"};
struct Weights {
  std::string_view single;
  std::string_view index;
};
constexpr std::array<Weights, 2> kWeights = {Weights{"model.safetensors", "model.safetensors.index.json"},
                                             Weights{"pytorch_model.bin", "pytorch_model.bin.index.json"}};

std::string in_small_letters(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

std::string_view file_name(std::string_view path) { return path.substr(path.rfind('/') + 1); }

bool is_gguf(std::string_view path) { return in_small_letters(path).ends_with(kEnd); }

// A part of a split model: "STEM-00001-of-00003.gguf".
struct Part {
  std::string_view stem;  // with the folder
  uint64_t number = 0;
  uint64_t count = 0;
};

std::optional<Part> part_of(std::string_view path) {
  constexpr size_t kDigits = 5;
  constexpr std::string_view kOf = "-of-";
  constexpr size_t kTail = 1 + kDigits + kOf.size() + kDigits;
  if (!is_gguf(path) || path.size() <= kTail + kEnd.size()) return std::nullopt;
  const std::string_view stem = path.substr(0, path.size() - kTail - kEnd.size());
  const std::string_view tail = path.substr(stem.size(), kTail);
  const auto number = [](std::string_view digits) {
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    return error == std::errc{} && end == digits.data() + digits.size() ? value : 0;
  };
  const Part part{stem, number(tail.substr(1, kDigits)), number(tail.substr(1 + kDigits + kOf.size()))};
  const bool good = tail[0] == '-' && tail.substr(1 + kDigits, kOf.size()) == kOf && part.number >= 1 &&
                    part.number <= part.count;
  return good ? std::optional(part) : std::nullopt;
}

// GGUF files that are language models: no projectors of pictures, no importance matrices.
bool is_model(std::string_view path) {
  const std::string name = in_small_letters(file_name(path));
  return is_gguf(path) && name.find("mmproj") == std::string::npos &&
         name.find("imatrix") == std::string::npos;
}

// Files that stand for a model: those that are not split, and first parts.
std::vector<std::string> models_among(std::span<const std::string> paths) {
  std::vector<std::string> models;
  for (const std::string& path : paths) {
    const std::optional<Part> part = part_of(path);
    if (is_model(path) && (!part || part->number == 1)) models.push_back(path);
  }
  std::sort(models.begin(), models.end());
  return models;
}

// Whether the text holds the word between characters that belong to no word; "q4_k" is none of "q4_k_m".
bool has_word(const std::string& text, const std::string& word) {
  const auto in_word = [&](size_t at) {
    return at < text.size() && (std::isalnum(static_cast<unsigned char>(text[at])) != 0 || text[at] == '_');
  };
  for (size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1))
    if ((at == 0 || !in_word(at - 1)) && !in_word(at + word.size())) return true;
  return false;
}

// The first of the models with that word in its file name, or else in its folder's.
const std::string* find_word(const std::vector<std::string>& models, std::string_view word) {
  const std::string small = in_small_letters(word);
  for (const bool whole_path : {false, true})
    for (const std::string& model : models)
      if (has_word(in_small_letters(whole_path ? std::string_view(model) : file_name(model)), small))
        return &model;
  return nullptr;
}

std::vector<std::string> all_parts(std::span<const std::string> paths, const std::string& first,
                                   const std::string& repository) {
  const std::optional<Part> part = part_of(first);
  if (!part) return {first};
  std::vector<std::string> parts;
  for (uint64_t number = 1; number <= part->count; ++number) {
    parts.push_back(fmt::format("{}-{:05}-of-{:05}{}", part->stem, number, part->count,
                                first.substr(first.size() - kEnd.size())));
    if (std::find(paths.begin(), paths.end(), parts.back()) == paths.end())
      throw HubError(
          fmt::format("{}: {} is missing, a part of the model", repository, printable(parts.back())));
  }
  return parts;
}

bool is_there(std::span<const std::string> paths, std::string_view path) {
  return std::find(paths.begin(), paths.end(), path) != paths.end();
}

}  // namespace

bool has_gguf(std::span<const std::string> paths) {
  return std::any_of(paths.begin(), paths.end(), [](const std::string& path) { return is_model(path); });
}

std::string named_file(std::span<const std::string> paths, std::string_view choice) {
  if (is_there(paths, choice)) return std::string(choice);
  std::string found;
  for (const std::string& path : paths) {
    if (file_name(path) != choice) continue;
    if (!found.empty()) return {};
    found = path;
  }
  return found;
}

GgufChoice choose_gguf(std::span<const std::string> paths, std::string_view choice,
                       const std::string& repository) {
  const std::vector<std::string> models = models_among(paths);
  if (std::string file = named_file(paths, choice); !file.empty()) {
    if (const std::optional<Part> part = part_of(file))  // any part stands for all
      file = fmt::format("{}-{:05}-of-{:05}{}", part->stem, 1, part->count,
                         file.substr(file.size() - kEnd.size()));
    return {all_parts(paths, file, repository), true};
  }
  if (!choice.empty()) {
    const bool is_file = is_gguf(choice) || choice.find('/') != std::string_view::npos;
    const std::string* const model = is_file ? nullptr : find_word(models, choice);
    if (model != nullptr) return {all_parts(paths, *model, repository), true};
    throw HubError(models.empty() ? fmt::format("{}: has no GGUF file, and no file {}; it has {}", repository,
                                                printable(choice), some_names(paths))
                                  : fmt::format("{}: has no {} {}; it has {}", repository,
                                                is_file ? "file" : "GGUF file of", printable(choice),
                                                some_names(models)));
  }
  if (models.empty())
    throw HubError(fmt::format("{}: has no GGUF file; it has {}", repository, some_names(paths)));
  for (const std::string_view quant : kUsualQuants)
    if (const std::string* const model = find_word(models, quant))
      return {all_parts(paths, *model, repository), quant == kUsualQuants.front()};
  return {all_parts(paths, models.front(), repository), false};
}

FolderChoice choose_folder(std::span<const std::string> paths, const std::string& repository) {
  FolderChoice choice;
  for (const std::string_view name : kSmallFiles)
    if (is_there(paths, name)) choice.small.emplace_back(name);
  for (const Weights& weights : kWeights) {
    if (is_there(paths, weights.single))
      choice.weights = weights.single;
    else if (is_there(paths, weights.index))
      choice.index = weights.index;
    if (!choice.weights.empty() || !choice.index.empty()) break;
  }
  if (!is_there(paths, "config.json") || (choice.weights.empty() && choice.index.empty()))
    throw HubError(
        fmt::format("{}: holds neither GGUF files nor a checkpoint (config.json with model.safetensors or "
                    "pytorch_model.bin); it has {}",
                    repository, some_names(paths)));
  return choice;
}

std::vector<std::string> weight_files(const std::string& index, const std::string& about) {
  try {
    const nlohmann::json document = parse_strict_json(index, about, {size_t{64} << 20, 16});
    const JsonFields fields(document, about, "");
    const JsonFields map = fields.object("weight_map");
    std::set<std::string> files;
    for (const auto& [tensor, value] : fields.require("weight_map").items()) {
      if (!value.is_string() || !is_safe_path(value.get_ref<const std::string&>()))
        map.refuse_value(printable(tensor), "the name of a file");
      files.insert(value.get<std::string>());
    }
    return {files.begin(), files.end()};
  } catch (const FileError& error) {
    throw HubError(error.what());
  }
}

std::string some_names(std::span<const std::string> names) {
  constexpr size_t kMost = 8;
  if (names.empty()) return "no files";
  std::string text;
  for (size_t i = 0; i < std::min(names.size(), kMost); ++i)
    text += fmt::format("{}{}", i == 0 ? "" : ", ", printable(names[i]));
  return names.size() > kMost ? fmt::format("{} and {} more", text, names.size() - kMost) : text;
}

}  // namespace tessera::hub
