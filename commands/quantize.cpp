// A checkpoint folder becomes a .tess file, with a bar while it works and a table of what came out.
#include "engine/quantize/quantize_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "commands/commands.h"
#include "commands/load_model.h"
#include "commands/terminal.h"
#include "engine/tokenizer/chat_template.h"
#include "gguf-like-format/huggingface_config.h"

namespace tessera {

namespace {

double bits_per_weight(const QuantizeSummary& line) {
  return line.weights > 0 ? 8.0 * static_cast<double>(line.bytes) / static_cast<double>(line.weights) : 0;
}

std::string table(const std::vector<QuantizeSummary>& lines) {
  std::string text = fmt::format("{:<12} {:<10} {:>7} {:>14} {:>10} {:>12} {:>10}\n", "kind", "scheme",
                                 "tensors", "weights", "size", "bits/weight", "error");
  QuantizeSummary all;
  for (const QuantizeSummary& line : lines) {
    text += fmt::format("{:<12} {:<10} {:>7} {:>14} {:>10} {:>12.3f} {:>9.3f}%\n", line.kind, line.scheme,
                        line.tensors, line.weights, readable_bytes(line.bytes), bits_per_weight(line),
                        line.relative_error * 100);
    all.tensors += line.tensors;
    all.weights += line.weights;
    all.bytes += line.bytes;
  }
  text += fmt::format("{:<12} {:<10} {:>7} {:>14} {:>10} {:>12.3f}\n", "all", "", all.tensors, all.weights,
                      readable_bytes(all.bytes), bits_per_weight(all));
  return text;
}

// A template that cannot be used would make a file that cannot be loaded: better to say so before the work.
void check_chat_template(const std::string& source) {
  const std::string text = read_huggingface_folder(source).chat.chat_template;
  if (text.empty()) return;
  try {
    const ChatTemplate parsed(text);
  } catch (const TemplateError& error) {
    throw FileError(fmt::format("{}: {}", source, error.what()));
  }
}

}  // namespace

int run_quantize(const Arguments& arguments, const std::string& command_line) {
  const auto target = arguments.text("output");
  if (!target) throw UsageError("-o: the .tess file to write is missing");
  QuantizeOptions options;
  options.source = arguments.operands().front();
  options.target = *target;
  options.scheme = *parse_scheme(arguments.choice("scheme"));
  options.keep_head = arguments.choice("head") == "keep";
  options.kv_bits = static_cast<unsigned>(std::stoul(arguments.choice("kv")));
  if (const auto threads = arguments.integer("threads", 1, 1024)) options.threads = *threads;
  options.command = command_line;
  check_chat_template(options.source);

  std::vector<QuantizeSummary> summary;
  {
    ProgressBar bar("quantizing");
    options.progress = [&](uint64_t done, uint64_t total) { bar.update(done, total); };
    summary = quantize_model(options);
  }
  write_stdout(table(summary));
  write_stdout(
      fmt::format("{}: {}\n", options.target, readable_bytes(std::filesystem::file_size(options.target))));
  return kExitDone;
}

}  // namespace tessera
