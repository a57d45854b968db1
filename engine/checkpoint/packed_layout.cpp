#include "engine/checkpoint/packed_layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <unordered_set>

namespace tessera {

namespace {

using nlohmann::json;

constexpr JsonLimits kConfigLimits{size_t{16} << 20, 32};
constexpr size_t kMostWordBytes = 256;
constexpr uint64_t kMostGroup = uint64_t{1} << 20;

struct Method {
  std::string_view name;  // quant_method
  std::unique_ptr<PackedLayout> (*read)(const JsonFields& fields);
};
constexpr std::array kMethods = {
    Method{"gptq", read_gptq_layout},
    Method{"awq", read_awq_layout},
    Method{"bitsandbytes", read_bitsandbytes_layout},
    Method{"compressed-tensors", read_compressed_tensors_layout},
    Method{"fp8", read_fp8_layout},
    Method{"hqq", read_hqq_layout},
};

// Files of settings of their own, from before config.json had them, and what they are of unless they say so.
struct SideFile {
  std::string_view name;
  std::string_view method;
};
constexpr std::array kSideFiles = {
    SideFile{"quantize_config.json", "gptq"},
    SideFile{"quant_config.json", "awq"},
};

// Ends of names that only packed tensors have.
constexpr std::array<std::string_view, 7> kPackedEnds{
    ".qweight", ".weight_packed", ".weight_scale", ".weight_scale_inv", ".W_q", ".SCB", ".weight.absmax"};

std::string method_of(const JsonFields& fields, std::string_view fallback) {
  if (fields.find("quant_method") != nullptr) return fields.text("quant_method", kMostWordBytes);
  // bitsandbytes came first and once left it out.
  if (fields.boolean_or("load_in_4bit", false) || fields.boolean_or("load_in_8bit", false))
    return "bitsandbytes";
  return std::string(fallback);
}

FolderQuantization read_settings(const json& settings, const std::string& path, const std::string& prefix,
                                 std::string_view fallback) {
  const JsonFields fields(settings, path, prefix);
  const std::string name = method_of(fields, fallback);
  const auto* method =
      std::find_if(kMethods.begin(), kMethods.end(), [&](const Method& each) { return each.name == name; });
  if (method == kMethods.end()) {
    std::vector<std::string_view> names;
    for (const Method& each : kMethods) names.push_back(each.name);
    fields.refuse("quant_method", fmt::format("one of {}", fmt::join(names, ", ")),
                  name.empty() ? "none" : fmt::format("\"{}\"", printable(name)));
  }
  return {method->read(fields), settings.dump()};
}

}  // namespace

unsigned bits_setting(const JsonFields& fields, std::string_view field, std::span<const unsigned> allowed) {
  const uint64_t bits = fields.integer(field, 1, 64);
  if (std::find(allowed.begin(), allowed.end(), bits) == allowed.end())
    fields.refuse(field, fmt::format("one of {}", fmt::join(allowed, ", ")), fmt::format("{}", bits));
  return static_cast<unsigned>(bits);
}

uint64_t group_setting(const JsonFields& fields, std::string_view field) {
  if (fields.require(field) == -1) return 0;
  const json& value = fields.require(field);
  if (!value.is_number_unsigned() || value.get<uint64_t>() < 1 || value.get<uint64_t>() > kMostGroup)
    fields.refuse_value(field, fmt::format("-1 or an integer from 1 to {}", kMostGroup));
  return value.get<uint64_t>();
}

std::optional<FolderQuantization> read_quantization_config(const std::string& folder) {
  const std::string path = folder + "/config.json";
  const json config = read_strict_json(path, kConfigLimits);
  constexpr std::string_view field = "quantization_config";
  const JsonFields fields(config, path, "");
  if (fields.find(field) != nullptr)
    return read_settings(fields.require(field), path, std::string(field), "");
  const json* text = fields.find("text_config");
  if (text == nullptr) return std::nullopt;
  const JsonFields inner(*text, path, "text_config");
  if (inner.find(field) == nullptr) return std::nullopt;
  return read_settings(inner.require(field), path, inner.label(field), "");
}

std::optional<FolderQuantization> read_quantization_file(const std::string& folder,
                                                         const TensorParts& tensors) {
  const auto is_packed = [](const CheckpointTensor& tensor) {
    return std::any_of(kPackedEnds.begin(), kPackedEnds.end(),
                       [&](std::string_view end) { return tensor.name.ends_with(end); });
  };
  const auto first = std::find_if(tensors.tensors().begin(), tensors.tensors().end(), is_packed);
  if (first == tensors.tensors().end()) return std::nullopt;
  for (const SideFile& file : kSideFiles) {
    const std::string path = fmt::format("{}/{}", folder, file.name);
    std::error_code error;
    if (std::filesystem::exists(path, error))
      return read_settings(read_strict_json(path, kConfigLimits), path, "", file.method);
  }
  tensors.refuse(*first, "quantization_config in config.json to say how it is packed", "none");
}

std::vector<PackedTensor> find_packed(const PackedLayout& layout, const TensorParts& tensors) {
  std::vector<PackedTensor> packed = layout.find(tensors);
  if (packed.empty())
    throw FileError(fmt::format(
        "{}: expected packed matrices, as its settings of quantization say, found none", tensors.path()));
  std::unordered_set<std::string_view> names;
  for (const PackedTensor& matrix : packed) {
    if (!names.insert(matrix.name).second)
      tensors.refuse(*matrix.parts.front(), fmt::format("one way to read \"{}\"", printable(matrix.name)),
                     "two");
    const CheckpointTensor* plain = tensors.find(matrix.name);
    if (plain != nullptr && std::find(matrix.parts.begin(), matrix.parts.end(), plain) == matrix.parts.end())
      tensors.refuse(*plain, fmt::format("either this or \"{}\"", printable(matrix.parts.front()->name)),
                     "both");
  }
  return packed;
}

}  // namespace tessera
