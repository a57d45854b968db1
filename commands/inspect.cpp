// What a .tess file holds: header, tensors, graph, and whether its bytes are intact.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>

#include "commands/commands.h"
#include "commands/load_model.h"
#include "commands/terminal/terminal.h"
#include "engine/chat_format/chat_format.h"
#include "engine/models/families.h"
#include "engine/models/model_graph.h"
#include "engine/readable_bytes.h"
#include "gguf-like-format/tess/tess_file.h"
#include "graph/graph.h"

namespace tessera {

namespace {

std::string rope_text(const Hyperparameters& h) {
  if (find_family(h.family, h.family).learned_positions) return "none, positions are learned";
  if (h.alibi != 0) return fmt::format("none, scores fall with distance (ALiBi, 2^-{})", h.alibi);
  const RopeScaling& scaling = h.rope_scaling;
  switch (scaling.kind) {
    case RopeScalingKind::none:
      return fmt::format("theta {}", h.rope_theta);
    case RopeScalingKind::linear:
      return fmt::format("theta {}, linear scaling by {}", h.rope_theta, scaling.factor);
    case RopeScalingKind::yarn:
      return fmt::format("theta {}, YaRN by {} beyond {} tokens (beta {} to {}, attention factor {:.4f})",
                         h.rope_theta, scaling.factor, scaling.original_context, scaling.beta_slow,
                         scaling.beta_fast, scaling.attention_factor);
    case RopeScalingKind::llama3:
      break;
  }
  return fmt::format("theta {}, llama3 scaling by {} beyond {} tokens (low {}, high {})", h.rope_theta,
                     scaling.factor, scaling.original_context, scaling.low_freq_factor,
                     scaling.high_freq_factor);
}

std::string generation_text(const GenerationDefaults& generation) {
  std::string text;
  const auto add = [&](const char* name, const auto& value) {
    if (value) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", name, *value);
  };
  add("sample", generation.do_sample);
  add("temperature", generation.temperature);
  add("top_k", generation.top_k);
  add("top_p", generation.top_p);
  add("min_p", generation.min_p);
  add("repeat_penalty", generation.repeat_penalty);
  return text.empty() ? "none" : text;
}

std::string shape_text(const std::vector<uint64_t>& shape) {
  return fmt::format("{}", fmt::join(shape, "×"));
}

// Every token that ends a reply, with what says so.
std::string ends_text(const ChatFormat& format) {
  std::string text;
  for (const EndToken& end : format.end_tokens())
    text += fmt::format("{}{} ({})", text.empty() ? "" : "; ", end.id, end.sources);
  return text.empty() ? "at no token" : "at token " + text;
}

std::string template_text(const std::string& source, const ChatFormat& format) {
  if (source.empty()) return "none";
  std::string text = fmt::format("{} bytes", source.size());
  for (const std::string& fault : {format.fault(), format.question_fault()})
    if (!fault.empty()) text += fmt::format(", which cannot be used: {}", fault);
  if (!format.takes_system()) text += ", without system messages: they go before the first message";
  return text;
}

std::string summary(const TessFile& file) {
  const ModelHeader& header = file.header();
  const Hyperparameters& h = header.hyperparameters;
  uint64_t weights = 0;
  uint64_t weight_bytes = 0;
  for (const StoredTensor& tensor : file.tensors()) {
    if (!scheme_facts(tensor.scheme).stores_matrices()) continue;  // vocabularies and other data
    weights += static_cast<uint64_t>(tensor.rows()) * tensor.columns();
    weight_bytes += tensor.bytes.size();
  }
  std::string text;
  const auto row = [&](const char* name, const std::string& value) {
    if (!value.empty()) text += fmt::format("{:<14} {}\n", name, one_line(value));
  };
  row("name", header.name);
  row("family", h.family);
  row("weights",
      fmt::format("{} in {} ({:.3f} bits each)", weights, readable_bytes(weight_bytes),
                  weights > 0 ? 8.0 * static_cast<double>(weight_bytes) / static_cast<double>(weights) : 0));
  row("shape", fmt::format("hidden {}, {} layers, {} query and {} KV heads of {}, ffn {}, vocabulary {}",
                           h.hidden, h.layers, h.query_heads, h.kv_heads, h.head_dim, h.ffn, h.vocabulary));
  row("details", fmt::format("{} head, {}q/k/v bias, {}output bias, norm epsilon {}",
                             h.rotated_table ? "tied and rotated"
                             : h.tied_head   ? "tied"
                                             : "own",
                             h.qkv_bias ? "" : "no ", h.output_bias ? "" : "no ", h.norm_epsilon));
  row("context", fmt::format("{}", h.context));
  row("rope", rope_text(h));
  row("scheme", fmt::format("{}, head {}", header.quantization.scheme, header.quantization.head_scheme));
  row("KV cache", fmt::format("{} bits recommended", header.quantization.kv_bits));
  row("calibration", header.quantization.calibration_hash);
  row("made by", fmt::format("{} ({})", header.quantization.command, header.quantization.tool_version));
  row("tokenizer", header.tokenizer.kind);
  const ChatFormat format(header.chat.chat_template, header.chat, stored_tokenizer(file));
  row("chat template", template_text(header.chat.chat_template, format));
  row("stop tokens", fmt::format("[{}]", fmt::join(header.chat.stop_tokens, ",")));
  row("replies end", ends_text(format));
  row("generation", generation_text(header.generation));
  row("tensors", fmt::format("{}", file.tensors().size()));
  row("file", readable_bytes(file.mapped_bytes().size()));
  return text;
}

std::string tensor_table(const TessFile& file) {
  size_t names = 4;
  for (const StoredTensor& tensor : file.tensors()) names = std::max(names, tensor.name.size());
  std::string text = fmt::format("\n{:<{}}  {:<10} {:>16} {:>14} {:>14}\n", "name", names, "scheme", "shape",
                                 "offset", "bytes");
  for (const StoredTensor& tensor : file.tensors()) {
    text += fmt::format("{:<{}}  {:<10} {:>16} {:>14} {:>14}\n", one_line(tensor.name), names,
                        scheme_name(tensor.scheme), shape_text(tensor.shape),
                        tensor.bytes.data() - file.mapped_bytes().data(), tensor.bytes.size());
  }
  return text;
}

}  // namespace

int run_inspect(const Arguments& arguments) {
  const bool graph = arguments.has("graph");
  if (graph) {
    arguments.choice("graph");
    if (arguments.has("tensors") || arguments.has("verify")) {
      throw UsageError("--graph: prints only the graph; leave --tensors and --verify out");
    }
  }
  const OpenFile opened = open_model_file(arguments.operands().front(), arguments);
  const TessFile* const file = opened.file.get();
  if (graph) {
    write_stdout(graph_to_dot(build_graph(*file)));
    return kExitDone;
  }
  write_stdout(summary(*file));
  if (arguments.has("tensors")) write_stdout(tensor_table(*file));
  if (!arguments.has("verify")) return kExitDone;
  const std::vector<std::string> faults = file->verify();
  for (const std::string& fault : faults) say(fmt::format("tessera: {}", one_line(fault)));
  if (!faults.empty()) return kExitFailed;
  write_stdout(fmt::format("{:<14} every hash and scale is right\n", "verified"));
  return kExitDone;
}

}  // namespace tessera
