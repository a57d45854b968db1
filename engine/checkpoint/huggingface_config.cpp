#include "engine/checkpoint/huggingface_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <optional>
#include <string_view>
#include <vector>

#include "engine/models/families.h"
#include "gguf-like-format/hyperparameter_checks.h"
#include "gguf-like-format/strict_json.h"

namespace tessera {

namespace {

using nlohmann::json;
namespace limits = header_limits;

constexpr JsonLimits kConfigLimits{size_t{4} << 20, 32};
constexpr JsonLimits kTokenizerConfigLimits{size_t{64} << 20, 32};
constexpr size_t kMostWordBytes = 256;

Hyperparameters read_hyperparameters(const json& document, const std::string& path,
                                     std::vector<std::string>& notes) {
  const JsonFields config(document, path, "");
  const std::string name = config.text("model_type", kMostWordBytes);
  const auto [family, type] = find_model_type(name);
  if (family == nullptr) config.refuse_value("model_type", known_model_types());
  Hyperparameters h = type->read(document, config, *type, notes);
  h.family = family->name;
  if (family->qkv_bias == BiasRule::always) h.qkv_bias = true;
  if (family->output_bias == BiasRule::always) h.output_bias = true;
  check_hyperparameters(h, path, "model");
  return h;
}

// eos_token_id is one id, a list of ids, or null. An id of -1 stands for none.
void add_stop_tokens(const JsonFields& fields, uint64_t vocabulary, std::vector<uint32_t>& stops,
                     std::vector<std::string>& notes) {
  const json* value = fields.find("eos_token_id");
  if (value == nullptr) return;
  const auto add = [&](const json& id, const std::string& label) {
    if (id == -1) {
      notes.push_back(fmt::format("{}: {} is -1, which is no token", fields.where(), label));
      return;
    }
    const auto token = static_cast<uint32_t>(fields.element(id, label, 0, vocabulary - 1));
    if (std::find(stops.begin(), stops.end(), token) == stops.end()) stops.push_back(token);
  };
  if (!value->is_array()) return add(*value, fields.label("eos_token_id"));
  if (value->size() > limits::kMostStopTokens)
    fields.refuse("eos_token_id", fmt::format("at most {} ids", limits::kMostStopTokens),
                  std::to_string(value->size()));
  for (size_t i = 0; i < value->size(); ++i)
    add((*value)[i], fmt::format("{}[{}]", fields.label("eos_token_id"), i));
}

// Sampling settings are advice: one that no sampler could follow is passed over with a note. A value of
// another type is refused as everywhere.
GenerationDefaults read_generation(const JsonFields& fields, std::vector<std::string>& notes) {
  GenerationDefaults out;
  const auto number = [&](std::string_view field, double least, double most, std::optional<double>& to) {
    constexpr double any = std::numeric_limits<double>::max();
    const std::optional<double> value = fields.optional_number(field, -any, any);
    if (value && !(*value >= least && *value <= most)) {
      notes.push_back(fmt::format("{}: {} is {}, which cannot be used", fields.where(), field, *value));
      return;
    }
    to = value;
  };
  number("temperature", 0.0, 1000.0, out.temperature);
  number("top_p", 0.0, 1.0, out.top_p);
  number("min_p", 0.0, 1.0, out.min_p);
  number("repetition_penalty", 1e-6, 1000.0, out.repeat_penalty);
  std::optional<double> top_k;
  number("top_k", 0, std::numeric_limits<uint32_t>::max(), top_k);
  if (top_k) out.top_k = fields.integer("top_k", 0, std::numeric_limits<uint32_t>::max());
  if (fields.find("do_sample") != nullptr) out.do_sample = fields.boolean("do_sample");
  return out;
}

// One template, or a list of named ones of which "default" is the one for conversations.
std::string read_template_field(const JsonFields& fields) {
  constexpr std::string_view field = "chat_template";
  const json* value = fields.find(field);
  if (value == nullptr) return {};
  if (!value->is_array()) return fields.text(field, limits::kMostTextBytes);
  for (size_t i = 0; i < value->size(); ++i) {
    const JsonFields entry((*value)[i], fields.where(), fmt::format("{}[{}]", field, i));
    if (entry.text("name", kMostWordBytes) == "default")
      return entry.text("template", limits::kMostTextBytes);
  }
  fields.refuse(field, "a template named \"default\" in the list", "none");
}

// The folder's own name, whatever way it was written.
std::string folder_name(const std::string& folder) {
  std::error_code error;
  const std::filesystem::path real = std::filesystem::canonical(folder, error);
  return error ? folder : real.filename().string();
}

// Of a folder without a template of its own.
const BuiltInTemplate* find_built_in(const std::string& folder) {
  const auto document = [&](const char* file) {
    const std::string path = fmt::format("{}/{}", folder, file);
    std::error_code error;
    return std::filesystem::exists(path, error) ? read_strict_json(path, kConfigLimits) : json();
  };
  const json config = document("config.json");
  if (!config.is_object() || !config.contains("model_type") || !config["model_type"].is_string())
    return nullptr;
  const Family* family = find_model_type(config["model_type"].get_ref<const std::string&>()).family;
  if (family == nullptr || family->chat_templates.empty()) return nullptr;
  Hyperparameters h;
  if (config.contains("vocab_size") && config["vocab_size"].is_number_unsigned())
    h.vocabulary = config["vocab_size"].get<uint64_t>();
  return find_built_in_template(*family, h, document("generation_config.json"));
}

// What the folder's own files say; empty when they say nothing.
std::string own_template(const std::string& folder) {
  std::error_code error;
  const std::string own_file = folder + "/chat_template.jinja";
  if (std::filesystem::exists(own_file, error)) return read_utf8_file(own_file, limits::kMostTextBytes);
  const std::string settings = folder + "/tokenizer_config.json";
  if (!std::filesystem::exists(settings, error)) return {};
  const json document = read_strict_json(settings, kTokenizerConfigLimits);
  return read_template_field(JsonFields(document, settings, ""));
}

}  // namespace

const BuiltInTemplate* folder_built_in_template(const std::string& folder) {
  return own_template(folder).empty() ? find_built_in(folder) : nullptr;
}

std::string folder_chat_template(const std::string& folder) {
  std::string text = own_template(folder);
  const BuiltInTemplate* built_in = text.empty() ? find_built_in(folder) : nullptr;
  return built_in == nullptr ? text : built_in_text(*built_in);
}

ModelHeader read_huggingface_folder(const std::string& folder) {
  std::vector<std::string> unread;
  return read_huggingface_folder(folder, unread);
}

ModelHeader read_huggingface_folder(const std::string& folder, std::vector<std::string>& notes) {
  ModelHeader header;
  header.name = folder_name(folder);
  const std::string config_path = folder + "/config.json";
  const json config = read_strict_json(config_path, kConfigLimits);
  header.hyperparameters = read_hyperparameters(config, config_path, notes);
  const std::string generation_path = folder + "/generation_config.json";
  std::error_code error;
  if (std::filesystem::exists(generation_path, error)) {
    const json document = read_strict_json(generation_path, kConfigLimits);
    const JsonFields fields(document, generation_path, "");
    header.generation = read_generation(fields, notes);
    add_stop_tokens(fields, header.hyperparameters.vocabulary, header.chat.stop_tokens, notes);
  }
  add_stop_tokens(JsonFields(config, config_path, ""), header.hyperparameters.vocabulary,
                  header.chat.stop_tokens, notes);
  header.chat.chat_template = folder_chat_template(folder);
  return header;
}

}  // namespace tessera
