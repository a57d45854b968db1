#include "gguf-like-format/tess/tess_header.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <utility>

#include "gguf-like-format/strict_json.h"

namespace tessera {

namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr size_t kMostNameBytes = 256;
constexpr size_t kMostCommandBytes = size_t{64} << 10;
constexpr size_t kHeaderDepth = 16;

struct ScalingName {
  RopeScalingKind kind;
  std::string_view name;
};
constexpr ScalingName kScalingNames[] = {{RopeScalingKind::none, "none"},
                                         {RopeScalingKind::linear, "linear"},
                                         {RopeScalingKind::llama3, "llama3"}};

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

ordered_json model_json(const ModelHeader& model) {
  const Hyperparameters& h = model.hyperparameters;
  ordered_json scaling;
  for (const ScalingName& entry : kScalingNames)
    if (entry.kind == h.rope_scaling.kind) scaling["kind"] = entry.name;
  if (h.rope_scaling.kind != RopeScalingKind::none) scaling["factor"] = h.rope_scaling.factor;
  if (h.rope_scaling.kind == RopeScalingKind::llama3) {
    scaling["low_freq_factor"] = h.rope_scaling.low_freq_factor;
    scaling["high_freq_factor"] = h.rope_scaling.high_freq_factor;
    scaling["original_context"] = h.rope_scaling.original_context;
  }
  return {{"name", as_utf8(model.name)},
          {"family", h.family},
          {"vocabulary", h.vocabulary},
          {"hidden", h.hidden},
          {"layers", h.layers},
          {"query_heads", h.query_heads},
          {"kv_heads", h.kv_heads},
          {"head_dim", h.head_dim},
          {"ffn", h.ffn},
          {"context", h.context},
          {"norm_epsilon", h.norm_epsilon},
          {"rope_theta", h.rope_theta},
          {"rope_scaling", std::move(scaling)},
          {"tied_head", h.tied_head},
          {"qkv_bias", h.qkv_bias},
          {"output_bias", h.output_bias}};
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

RopeScaling read_rope_scaling(const JsonFields& fields) {
  RopeScaling scaling;
  const std::string name = fields.text("kind", kMostNameBytes);
  const auto* entry = std::find_if(std::begin(kScalingNames), std::end(kScalingNames),
                                   [&name](const ScalingName& s) { return s.name == name; });
  if (entry == std::end(kScalingNames)) fields.refuse_value("kind", "\"none\", \"linear\" or \"llama3\"");
  scaling.kind = entry->kind;
  constexpr double any = std::numeric_limits<double>::max();  // ranges are checked with all the others
  if (scaling.kind != RopeScalingKind::none) scaling.factor = fields.number("factor", -any, any);
  if (scaling.kind == RopeScalingKind::llama3) {
    scaling.low_freq_factor = fields.number("low_freq_factor", -any, any);
    scaling.high_freq_factor = fields.number("high_freq_factor", -any, any);
    scaling.original_context = fields.integer("original_context", 0, header_limits::kMostContext);
  }
  return scaling;
}

void read_model(const JsonFields& fields, ModelHeader& model) {
  constexpr uint64_t most = std::numeric_limits<uint64_t>::max();
  constexpr double any = std::numeric_limits<double>::max();
  model.name = fields.text("name", kMostCommandBytes);
  Hyperparameters& h = model.hyperparameters;
  h.family = fields.text("family", kMostNameBytes);
  h.vocabulary = fields.integer("vocabulary", 0, most);
  h.hidden = fields.integer("hidden", 0, most);
  h.layers = fields.integer("layers", 0, most);
  h.query_heads = fields.integer("query_heads", 0, most);
  h.kv_heads = fields.integer("kv_heads", 0, most);
  h.head_dim = fields.integer("head_dim", 0, most);
  h.ffn = fields.integer("ffn", 0, most);
  h.context = fields.integer("context", 0, most);
  h.norm_epsilon = fields.number("norm_epsilon", -any, any);
  h.rope_theta = fields.number("rope_theta", -any, any);
  h.rope_scaling = read_rope_scaling(fields.object("rope_scaling"));
  h.tied_head = fields.boolean("tied_head");
  h.qkv_bias = fields.boolean("qkv_bias");
  h.output_bias = fields.boolean("output_bias");
}

void read_quantization(const JsonFields& fields, QuantizationInfo& quantization) {
  quantization.scheme = fields.text("scheme", kMostNameBytes);
  if (!parse_scheme(quantization.scheme)) fields.refuse_value("scheme", "a scheme this program knows");
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

// The checks of check_hyperparameters share the wording of JsonFields.
class RangeCheck {
 public:
  RangeCheck(const std::string& file, const std::string& prefix) : file_(file), prefix_(prefix) {}

  void integer(std::string_view field, uint64_t value, uint64_t low, uint64_t high) const {
    if (value < low || value > high)
      refuse(field, fmt::format("an integer from {} to {}", low, high), fmt::format("{}", value));
  }
  void number(std::string_view field, double value, double low, double high) const {
    if (!(value >= low && value <= high))
      refuse(field, fmt::format("a number from {} to {}", low, high), fmt::format("{}", value));
  }
  [[noreturn]] void refuse(std::string_view field, std::string_view expected, std::string_view found) const {
    throw FileError(fmt::format("{}: {}.{}: expected {}, found {}", file_, prefix_, field, expected, found));
  }

 private:
  const std::string& file_;
  const std::string& prefix_;
};

}  // namespace

void check_hyperparameters(const Hyperparameters& h, const std::string& file, const std::string& prefix) {
  using namespace header_limits;
  const RangeCheck check(file, prefix);
  const bool good_family =
      !h.family.empty() && h.family.size() <= 32 && std::all_of(h.family.begin(), h.family.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
      });
  if (!good_family)
    check.refuse("family", "1 to 32 lower-case letters, digits, \"_\" and \"-\"",
                 fmt::format("\"{}\"", printable(h.family)));
  check.integer("vocabulary", h.vocabulary, 1, kMostVocabulary);
  check.integer("hidden", h.hidden, 1, kMostHidden);
  check.integer("layers", h.layers, 1, kMostLayers);
  check.integer("query_heads", h.query_heads, 1, kMostHeads);
  check.integer("kv_heads", h.kv_heads, 1, kMostHeads);
  if (h.query_heads % h.kv_heads != 0)
    check.refuse("kv_heads", fmt::format("a divisor of query_heads ({})", h.query_heads),
                 fmt::format("{}", h.kv_heads));
  check.integer("head_dim", h.head_dim, kHeadDimStep, kMostHeadDim);
  if (h.head_dim % kHeadDimStep != 0)
    check.refuse("head_dim", fmt::format("a multiple of {}", kHeadDimStep), fmt::format("{}", h.head_dim));
  check.integer("ffn", h.ffn, 1, kMostFfn);
  check.integer("context", h.context, 1, kMostContext);
  check.number("norm_epsilon", h.norm_epsilon, kLeastNormEpsilon, kMostNormEpsilon);
  check.number("rope_theta", h.rope_theta, kLeastRopeTheta, kMostRopeTheta);
  const RopeScaling& scaling = h.rope_scaling;
  if (scaling.kind == RopeScalingKind::none) return;
  check.number("rope_scaling.factor", scaling.factor, 1.0, kMostFactor);
  if (scaling.kind != RopeScalingKind::llama3) return;
  check.number("rope_scaling.low_freq_factor", scaling.low_freq_factor, 1.0 / kMostFactor, kMostFactor);
  check.number("rope_scaling.high_freq_factor", scaling.high_freq_factor, 1.0 / kMostFactor, kMostFactor);
  if (scaling.high_freq_factor <= scaling.low_freq_factor)
    check.refuse("rope_scaling.high_freq_factor",
                 fmt::format("more than low_freq_factor ({})", scaling.low_freq_factor),
                 fmt::format("{}", scaling.high_freq_factor));
  check.integer("rope_scaling.original_context", scaling.original_context, 1, kMostContext);
}

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
