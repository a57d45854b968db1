#include "engine/checkpoint/compressed_tensors_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "engine/checkpoint/packed_layout.h"

namespace tessera::compressed_tensors {

namespace {

using nlohmann::json;

constexpr size_t kMostWordBytes = 256;
constexpr size_t kMostGroups = 1024;
constexpr uint64_t kMostBlock = uint64_t{1} << 20;
constexpr std::array<unsigned, 8> kIntegerBits{1, 2, 3, 4, 5, 6, 7, 8};
constexpr std::array<unsigned, 1> kFloatBits{8};
constexpr std::string_view kPattern = "re:";

struct StrategyName {
  std::string_view name;
  Strategy strategy;
};
constexpr std::array kStrategies = {
    StrategyName{"tensor", Strategy::tensor},
    StrategyName{"channel", Strategy::channel},
    StrategyName{"group", Strategy::group},
    StrategyName{"block", Strategy::block},
};

// Formats, and the storage of integers and of floats; nothing where a format does not hold them.
struct FormatRow {
  std::string_view name;
  std::optional<Storage> integers;
  std::optional<Storage> floats;
};
constexpr std::array kFormats = {
    FormatRow{"pack-quantized", Storage::packed, std::nullopt},
    FormatRow{"int-quantized", Storage::bytes, std::nullopt},
    FormatRow{"float-quantized", std::nullopt, Storage::fp8},
    FormatRow{"naive-quantized", Storage::bytes, Storage::fp8},
};

constexpr std::string_view kMixed = "mixed-precision";  // every group names its own format

// [128, 128], or "128x128" as once written.
BlockSize read_block(const JsonFields& weights) {
  constexpr std::string_view field = "block_structure";
  json sizes = weights.require(field);
  if (sizes.is_string()) {
    const auto text = sizes.get<std::string>();
    const size_t cross = text.find('x');
    const auto size = [](const std::string& digits) {
      const bool number =
          !digits.empty() && digits.size() < 8 && digits.find_first_not_of("0123456789") == std::string::npos;
      return number ? json(std::stoull(digits)) : json();
    };
    if (cross != std::string::npos)
      sizes = json::array({size(text.substr(0, cross)), size(text.substr(cross + 1))});
  }
  if (!sizes.is_array() || sizes.size() != 2) weights.refuse_value(field, "two sizes");
  const std::string label = weights.label(field);
  return {weights.element(sizes[0], label + "[0]", 1, kMostBlock),
          weights.element(sizes[1], label + "[1]", 1, kMostBlock)};
}

Strategy read_strategy(const JsonFields& weights) {
  if (weights.find("strategy") == nullptr) {
    if (weights.find("group_size") == nullptr) return Strategy::tensor;
    return group_setting(weights, "group_size") == 0 ? Strategy::channel : Strategy::group;
  }
  const std::string name = weights.text("strategy", kMostWordBytes);
  const auto* row = std::find_if(kStrategies.begin(), kStrategies.end(),
                                 [&](const StrategyName& each) { return each.name == name; });
  if (row == kStrategies.end()) weights.refuse_value("strategy", "tensor, channel, group or block");
  return row->strategy;
}

WeightSettings read_weights(const JsonFields& weights, const FormatRow& format) {
  const std::string type = weights.find("type") == nullptr ? "int" : weights.text("type", kMostWordBytes);
  const std::optional<Storage> storage = type == "int"     ? format.integers
                                         : type == "float" ? format.floats
                                                           : std::nullopt;
  if (!storage)
    weights.refuse("type", fmt::format("a type of numbers that {} holds", format.name),
                   fmt::format("\"{}\"", printable(type)));
  WeightSettings settings;
  settings.storage = *storage;
  settings.bits = type == "int" ? bits_setting(weights, "num_bits", kIntegerBits)
                                : bits_setting(weights, "num_bits", kFloatBits);
  settings.symmetric = weights.boolean_or("symmetric", true);
  if (!settings.symmetric && settings.storage == Storage::fp8)
    weights.refuse_value("symmetric", "true for floats");
  settings.strategy = read_strategy(weights);
  if (settings.strategy == Strategy::group) {
    settings.group = group_setting(weights, "group_size");
    if (settings.group == 0) weights.refuse_value("group_size", "a positive number for groups");
  }
  if (settings.strategy == Strategy::block) {
    if (settings.storage == Storage::packed) weights.refuse_value("strategy", "no blocks in packed integers");
    if (!settings.symmetric) weights.refuse_value("symmetric", "true for blocks");
    settings.block = read_block(weights);
  }
  return settings;
}

// Settings that change the model in a way that we do not have.
void refuse_unsupported(const JsonFields& fields) {
  if (fields.find("sparsity_config") != nullptr) {
    const JsonFields sparsity = fields.object("sparsity_config");
    if (sparsity.find("format") != nullptr && sparsity.text("format", kMostWordBytes) != "dense")
      sparsity.refuse_value("format", "dense (sparse weights are not supported)");
  }
  if (fields.find("transform_config") != nullptr) {
    const JsonFields transforms = fields.object("transform_config");
    const json* groups = transforms.find("config_groups");
    if (groups != nullptr && !groups->empty())
      transforms.refuse("config_groups", "none (transforms are not supported)", "some");
  }
}

}  // namespace

Config::Config(const JsonFields& fields) {
  refuse_unsupported(fields);
  const std::string format = fields.text("format", kMostWordBytes);
  const JsonFields groups = fields.object("config_groups");
  const json& object = fields.require("config_groups");
  if (object.empty() || object.size() > kMostGroups)
    fields.refuse("config_groups", fmt::format("1 to {} groups", kMostGroups), std::to_string(object.size()));
  for (const auto& [name, value] : object.items())
    read_group(JsonFields(value, groups.where(), groups.label(printable(name))), format);
  const std::string where = fmt::format("{}: {}", fields.where(), fields.label("ignore"));
  for (const std::string& entry : string_list(fields, "ignore")) {
    if (entry.starts_with(kPattern))
      ignored_patterns_.emplace_back(entry.substr(kPattern.size()), where);
    else
      ignored_.push_back(entry);
  }
}

void Config::read_group(const JsonFields& group, std::string_view format) {
  if (group.find("weights") == nullptr) return;  // of activations only
  const std::string own =
      group.find("format") != nullptr ? group.text("format", kMostWordBytes) : std::string(format);
  const auto* row =
      std::find_if(kFormats.begin(), kFormats.end(), [&](const FormatRow& each) { return each.name == own; });
  if (row == kFormats.end()) {
    std::vector<std::string_view> names;
    for (const FormatRow& each : kFormats) names.push_back(each.name);
    group.refuse("format",
                 fmt::format("one of {}{}", fmt::join(names, ", "), own == kMixed ? " of its own" : ""),
                 fmt::format("\"{}\"", printable(own)));
  }
  const size_t index = groups_.size();
  groups_.push_back(read_weights(group.object("weights"), *row));
  const std::string where = fmt::format("{}: {}", group.where(), group.label("targets"));
  for (const std::string& target : string_list(group, "targets")) {
    if (target.starts_with(kPattern))
      pattern_targets_.push_back({ModulePattern(target.substr(kPattern.size()), where), index});
    else
      targets_.push_back({target, index});
  }
}

const WeightSettings& Config::settings_of(const TensorParts& tensors, const CheckpointTensor& tensor,
                                          const std::string& module) const {
  const bool ignored = std::find(ignored_.begin(), ignored_.end(), module) != ignored_.end() ||
                       std::any_of(ignored_patterns_.begin(), ignored_patterns_.end(),
                                   [&](const ModulePattern& pattern) { return pattern.matches(module); });
  if (ignored) tensors.refuse(tensor, "no packed weight, as ignore names its layer", "one");
  const auto named = [&](std::string_view name) {
    return std::find_if(targets_.begin(), targets_.end(),
                        [&](const Target& target) { return target.name == name; });
  };
  if (const auto exact = named(module); exact != targets_.end()) return groups_[exact->group];
  const auto pattern =
      std::find_if(pattern_targets_.begin(), pattern_targets_.end(),
                   [&](const PatternTarget& target) { return target.pattern.matches(module); });
  if (pattern != pattern_targets_.end()) return groups_[pattern->group];
  // A packed layer that no name fits is a linear one.
  if (const auto linear = named("Linear"); linear != targets_.end()) return groups_[linear->group];
  tensors.refuse(tensor, "a group of config_groups that has its layer as a target", "none");
}

}  // namespace tessera::compressed_tensors
