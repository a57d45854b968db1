#include "gguf-like-format/tess/tess_header.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <utility>

#include "gguf-like-format/hyperparameter_checks.h"
#include "gguf-like-format/strict_json.h"

namespace tessera {

namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr size_t kMostNameBytes = 256;
constexpr size_t kMostCommandBytes = size_t{64} << 10;
constexpr size_t kHeaderDepth = 16;

// Columns that share a scale in the scheme of this name; 0 without groups, or for an unknown name.
uint64_t group_columns_of(std::string_view name) {
  const std::optional<Scheme> scheme = parse_scheme(name);
  return scheme ? group_columns(*scheme) : 0;
}

// Text that only informs may come from a command line in any encoding: bytes that are not UTF-8 become
// U+FFFD.
std::string as_utf8(const std::string& text) {
  return json::parse(json(text).dump(-1, ' ', false, json::error_handler_t::replace)).get<std::string>();
}

class JsonWriter {
 public:
  explicit JsonWriter(ordered_json& out) : out_(out) {}

  void operator()(const char* field, const std::string& value) { out_[field] = value; }
  void operator()(const char* field, bool value) { out_[field] = value; }
  void operator()(const char* field, bool value, OffByDefault) {
    if (value) out_[field] = value;
  }
  template <class Number>
  void operator()(const char* field, Number value, const FieldRule<Number>& rule) {
    if (!rule.has_default || value != rule.default_value) out_[field] = value;
  }
  void rope_scaling(const char* field, const RopeScaling& scaling) {
    ordered_json nested;
    nested["kind"] = scaling_name(scaling.kind);
    visit_rope_scaling(scaling, JsonWriter(nested));
    out_[field] = std::move(nested);
  }

 private:
  ordered_json& out_;
};

ordered_json model_json(const ModelHeader& model) {
  ordered_json out = {{"name", as_utf8(model.name)}};
  visit_hyperparameters(model.hyperparameters, JsonWriter(out));
  return out;
}

ordered_json generation_json(const GenerationDefaults& generation) {
  ordered_json out = ordered_json::object();
  const auto add = [&out](const char* name, const auto& value) {
    if (value) out[name] = *value;
  };
  add("temperature", generation.temperature);
  add("top_k", generation.top_k);
  add("top_p", generation.top_p);
  add("min_p", generation.min_p);
  add("repeat_penalty", generation.repeat_penalty);
  add("do_sample", generation.do_sample);
  return out;
}

// Types only: check_hyperparameters knows the ranges, with all values read.
class JsonReader {
 public:
  explicit JsonReader(const JsonFields& fields) : fields_(fields) {}

  void operator()(const char* field, std::string& value) { value = fields_.text(field, kMostNameBytes); }
  void operator()(const char* field, bool& value) { value = fields_.boolean(field); }
  void operator()(const char* field, bool& value, OffByDefault) { value = fields_.boolean_or(field, false); }
  void operator()(const char* field, uint64_t& value, const FieldRule<uint64_t>& rule) {
    constexpr uint64_t most = std::numeric_limits<uint64_t>::max();
    value = rule.has_default ? fields_.optional_integer(field, 0, most).value_or(rule.default_value)
                             : fields_.integer(field, 0, most);
  }
  void operator()(const char* field, double& value, const FieldRule<double>& rule) {
    constexpr double most = std::numeric_limits<double>::max();
    value = rule.has_default ? fields_.optional_number(field, -most, most).value_or(rule.default_value)
                             : fields_.number(field, -most, most);
  }
  void rope_scaling(const char* field, RopeScaling& scaling) {
    const JsonFields nested = fields_.object(field);
    const std::string name = nested.text("kind", kMostNameBytes);
    const auto* entry = std::find_if(std::begin(kScalingNames), std::end(kScalingNames),
                                     [&name](const ScalingName& each) { return each.name == name; });
    if (entry == std::end(kScalingNames))
      nested.refuse_value("kind", "\"none\", \"linear\", \"llama3\" or \"yarn\"");
    scaling.kind = entry->kind;
    visit_rope_scaling(scaling, JsonReader(nested));
  }

 private:
  const JsonFields& fields_;
};

void read_model(const JsonFields& fields, ModelHeader& model) {
  model.name = fields.text("name", kMostCommandBytes);
  visit_hyperparameters(model.hyperparameters, JsonReader(fields));
}

void read_quantization(const JsonFields& fields, QuantizationInfo& quantization) {
  quantization.scheme = fields.text("scheme", kMostNameBytes);
  const bool kept = quantization.scheme == kKeptScheme || quantization.scheme == kKeptInt8Scheme;
  if (!kept && !parse_scheme(quantization.scheme))
    fields.refuse_value("scheme", "a scheme this program knows");
  quantization.head_scheme = fields.text("head_scheme", kMostNameBytes);
  if (!parse_scheme(quantization.head_scheme))
    fields.refuse_value("head_scheme", "a scheme this program knows");
  const uint64_t group = group_columns_of(quantization.scheme);
  if (fields.integer("group_columns", 0, std::numeric_limits<uint64_t>::max()) != group)
    fields.refuse_value("group_columns", fmt::format("{} for {}", group, quantization.scheme));
  quantization.kv_bits = fields.integer("kv_bits", 4, 16);
  if (quantization.kv_bits != 4 && quantization.kv_bits != 8 && quantization.kv_bits != 16)
    fields.refuse_value("kv_bits", "4, 8 or 16");
  quantization.calibration_hash = fields.text("calibration_hash", kMostNameBytes);
  quantization.tool_version = fields.text("tool_version", kMostNameBytes);
  quantization.command = fields.text("command", kMostCommandBytes);
}

void read_chat(const JsonFields& fields, uint64_t vocabulary, ChatSettings& chat) {
  chat.chat_template = fields.text("template", header_limits::kMostTextBytes);
  const json& stops = fields.array("stop_tokens");
  if (stops.size() > header_limits::kMostStopTokens)
    fields.refuse("stop_tokens", fmt::format("at most {} ids", header_limits::kMostStopTokens),
                  std::to_string(stops.size()));
  for (size_t i = 0; i < stops.size(); ++i)
    chat.stop_tokens.push_back(static_cast<uint32_t>(
        fields.element(stops[i], fmt::format("{}[{}]", fields.label("stop_tokens"), i), 0, vocabulary - 1)));
}

void read_generation(const JsonFields& fields, GenerationDefaults& generation) {
  generation.temperature = fields.optional_number("temperature", 0.0, 1000.0);
  generation.top_k = fields.optional_integer("top_k", 0, std::numeric_limits<uint32_t>::max());
  generation.top_p = fields.optional_number("top_p", 0.0, 1.0);
  generation.min_p = fields.optional_number("min_p", 0.0, 1.0);
  generation.repeat_penalty = fields.optional_number("repeat_penalty", 1e-6, 1000.0);
  if (fields.find("do_sample") != nullptr) generation.do_sample = fields.boolean("do_sample");
}

bool good_tensor_name(std::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '.' || c == '-';
  });
}

uint64_t read_hash(const JsonFields& fields, std::string_view field) {
  const std::string text = fields.text(field, kMostNameBytes);
  const bool digits = std::all_of(text.begin(), text.end(),
                                  [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
  if (text.size() != 16 || !digits) fields.refuse_value(field, "16 lower-case hexadecimal digits");
  uint64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value, 16);
  return value;
}

TensorRecord read_tensor(const json& value, size_t index, const std::string& file) {
  const JsonFields fields(value, file, fmt::format("tensors[{}]", index));
  TensorRecord record;
  record.name = fields.text("name", kMostNameBytes);
  if (!good_tensor_name(record.name)) fields.refuse_value("name", "letters, digits, \"_\", \".\" and \"-\"");
  // From here on the tensor's name says more than its place in the table.
  const JsonFields named(value, file, fmt::format("tensor {}", printable(record.name)));
  const std::string scheme = named.text("scheme", kMostNameBytes);
  const std::optional<Scheme> known = parse_scheme(scheme);
  if (!known) named.refuse_value("scheme", "a scheme this program knows");
  record.scheme = *known;
  const json& shape = named.array("shape");
  if (shape.empty() || shape.size() > 2)
    named.refuse("shape", "one or two dimensions", std::to_string(shape.size()));
  for (size_t i = 0; i < shape.size(); ++i)
    record.shape.push_back(named.element(shape[i], fmt::format("{}[{}]", named.label("shape"), i), 1,
                                         std::numeric_limits<int64_t>::max()));
  const std::optional<uint64_t> bytes = stored_bytes(record.scheme, record.shape);
  if (!bytes)
    named.refuse("shape", fmt::format("a shape that scheme {} can store in fewer than 2^63 bytes", scheme),
                 shape.dump());
  constexpr uint64_t most = std::numeric_limits<int64_t>::max();
  record.offset = named.integer("offset", 0, most);
  record.bytes = named.integer("bytes", 0, most);
  if (record.bytes != *bytes)
    named.refuse_value("bytes", fmt::format("{} for scheme {} and shape {}", *bytes, scheme, shape.dump()));
  record.xxh64 = read_hash(named, "xxh64");
  return record;
}

}  // namespace

std::string write_tess_header(const ModelHeader& model, std::span<const TensorRecord> tensors,
                              const std::string& file) {
  ordered_json table = ordered_json::array();
  for (const TensorRecord& record : tensors)
    table.push_back({{"name", record.name},
                     {"scheme", scheme_name(record.scheme)},
                     {"shape", record.shape},
                     {"offset", record.offset},
                     {"bytes", record.bytes},
                     {"xxh64", fmt::format("{:016x}", record.xxh64)}});
  const json settings = parse_strict_json(
      model.tokenizer.settings_json.empty() ? "{}" : std::string_view(model.tokenizer.settings_json),
      file + ": tokenizer.settings", {header_limits::kMostSettingsBytes, kHeaderDepth - 2});
  try {
    const ordered_json header = {
        {"model", model_json(model)},
        {"quantization",
         {{"scheme", model.quantization.scheme},
          {"head_scheme", model.quantization.head_scheme},
          {"group_columns", group_columns_of(model.quantization.scheme)},
          {"kv_bits", model.quantization.kv_bits},
          {"calibration_hash", model.quantization.calibration_hash},
          {"tool_version", model.quantization.tool_version},
          {"command", as_utf8(model.quantization.command)}}},
        {"tokenizer", {{"kind", model.tokenizer.kind}, {"settings", settings}}},
        {"chat", {{"template", model.chat.chat_template}, {"stop_tokens", model.chat.stop_tokens}}},
        {"generation", generation_json(model.generation)},
        {"tensors", std::move(table)}};
    return header.dump();
  } catch (const json::exception&) {
    throw FileError(fmt::format("{}: header: expected text in UTF-8, found other bytes", file));
  }
}

TessHeader read_tess_header(std::string_view text, const std::string& file) {
  const json document = parse_strict_json(text, file + ": header", {kMostTessHeaderBytes, kHeaderDepth});
  const JsonFields fields(document, file, "");
  TessHeader header;
  read_model(fields.object("model"), header.model);
  check_hyperparameters(header.model.hyperparameters, file, "model");
  read_quantization(fields.object("quantization"), header.model.quantization);
  const JsonFields tokenizer = fields.object("tokenizer");
  header.model.tokenizer.kind = tokenizer.text("kind", kMostNameBytes);
  const json& settings = tokenizer.require("settings");
  if (!settings.is_object()) tokenizer.refuse_value("settings", "an object");
  header.model.tokenizer.settings_json = settings.dump();
  read_chat(fields.object("chat"), header.model.hyperparameters.vocabulary, header.model.chat);
  read_generation(fields.object("generation"), header.model.generation);
  const json& table = fields.array("tensors");
  for (size_t i = 0; i < table.size(); ++i) header.tensors.push_back(read_tensor(table[i], i, file));
  return header;
}

}  // namespace tessera
