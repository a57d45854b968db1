// Quantizes a checkpoint folder to a .tess file, with a progress bar and a table of the result.
#include "engine/quantize/quantize_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>

#include "commands/commands.h"
#include "commands/files/text_file.h"
#include "commands/load_model.h"
#include "commands/terminal/interrupt.h"
#include "commands/terminal/terminal.h"
#include "engine/dense_products.h"
#include "engine/readable_bytes.h"

namespace tessera {

namespace {

double bits_per_weight(const QuantizeSummary& line) {
  return line.weights > 0 ? 8.0 * static_cast<double>(line.bytes) / static_cast<double>(line.weights) : 0;
}

// Beside the scheme, where the checkpoint's types are told apart: what it came from and whether it was kept.
std::string origin(const QuantizeSummary& line) {
  return line.source.empty() ? ""
                             : fmt::format("{:<8} {:<10}", line.source, line.kept ? "kept" : "converted");
}

std::string error(const QuantizeSummary& line) {
  const bool exact = line.kept && line.relative_error == 0;
  return exact ? "exact" : fmt::format("{:.3f}%", line.relative_error * 100);
}

std::string table(const std::vector<QuantizeSummary>& lines) {
  const bool origins = !lines.empty() && !lines.front().source.empty();
  const int width = origins ? 19 : 0;
  const auto text_line = [&](const auto&... cells) {
    return fmt::format("{:<12} {:<12} {:<{}}{:>7} {:>14} {:>10} {:>12} {:>10}\n", cells...);
  };
  std::string text = text_line("kind", "scheme", origins ? "from     codes" : "", width, "tensors", "weights",
                               "size", "bits/weight", "error");
  QuantizeSummary all;
  for (const QuantizeSummary& line : lines) {
    text += text_line(line.kind, line.scheme, origin(line), width, line.tensors, line.weights,
                      readable_bytes(line.bytes), fmt::format("{:.3f}", bits_per_weight(line)), error(line));
    all.tensors += line.tensors;
    all.weights += line.weights;
    all.bytes += line.bytes;
  }
  const std::string end = text_line("all", "", "", width, all.tensors, all.weights, readable_bytes(all.bytes),
                                    fmt::format("{:.3f}", bits_per_weight(all)), "");
  return text + end.substr(0, end.find_last_not_of(" \n") + 1) + "\n";
}

// What of kept codes' levels is not stored as the checkpoint has it, a line for every such pair of types.
std::string roundings(const std::vector<QuantizeSummary>& lines) {
  std::vector<std::string> texts;
  for (const QuantizeSummary& line : lines) {
    const keep::Roundings& rounds = line.rounds;
    if (!rounds.any()) continue;
    std::vector<std::string> what;
    if (rounds.scales) what.emplace_back("scales to f16");
    if (rounds.offsets) what.emplace_back("zero points or minimums to f16");
    if (rounds.table) what.emplace_back("the table to what the scheme stores");
    const std::string text = fmt::format("{} in {}: the codes are kept; rounded: {}\n", line.source,
                                         line.scheme, fmt::join(what, ", "));
    if (std::find(texts.begin(), texts.end(), text) == texts.end()) texts.push_back(text);
  }
  return fmt::format("{}", fmt::join(texts, ""));
}

constexpr std::array kTextFlags = {"parse-special", "lines", "calibration-windows", "calibration-window"};
// Flags of steps that need a calibration text, by the schemes that have them.
constexpr std::array kRotation = {"no-rotate"};
constexpr std::array kCommonSteps = {"no-smooth-attention", "no-feedback", "attention-alpha"};
constexpr std::array kRowScaleSteps = {"no-reorder", "no-smooth-outputs", "no-clip", "output-alpha"};
constexpr std::array kTableSteps = {"rotate", "awq", "no-train-scales"};
constexpr std::array kTableChoices = {"table", "no-scale-search"};

std::optional<double> exponent(const Arguments& arguments, std::string_view name) {
  const auto given = arguments.text(name);
  if (!given) return std::nullopt;
  return parse_real(fmt::format("--{}", name), *given, 0, 1);
}

template <size_t kCount>
void refuse(const Arguments& arguments, const std::array<const char*, kCount>& flags,
            std::string_view beside) {
  for (const char* flag : flags)
    if (arguments.has(flag)) throw UsageError(fmt::format("--{}: has no meaning with {}", flag, beside));
}

// Flags that ask for a way of rounding.
template <class Visit>
void for_rounding_flags(Visit visit) {
  constexpr std::array kWhole = {"recipe", "calibration"};
  visit(kWhole);
  visit(kTextFlags);
  visit(kRotation);
  visit(kCommonSteps);
  visit(kRowScaleSteps);
  visit(kTableSteps);
  visit(kTableChoices);
}

void refuse_rounding(const Arguments& arguments, std::string_view beside) {
  for_rounding_flags([&](const auto& flags) { refuse(arguments, flags, beside); });
}

bool asks_for_rounding(const Arguments& arguments) {
  bool asks = false;
  for_rounding_flags([&](const auto& flags) {
    for (const char* flag : flags) asks = asks || arguments.has(flag);
  });
  return asks;
}

quantize::TableKind table_kind(const Arguments& arguments) {
  return arguments.choice("table") == "kmeans" ? quantize::TableKind::kmeans
                                               : quantize::TableKind::normal_float;
}

// The recipe without a calibration text, which --recipe rtn makes plain rounding; nothing for that.
std::optional<quantize::Recipe> recipe_without_text(const Arguments& arguments, Scheme scheme) {
  constexpr std::array kCalibration = {"calibration"};
  constexpr std::string_view kBeside = "--recipe rtn";
  quantize::Recipe recipe = quantize::Recipe::without_text(scheme);
  refuse(arguments, kCalibration, kBeside);
  if (!recipe.rotate || arguments.has("recipe")) refuse(arguments, kRotation, kBeside);
  refuse(arguments, kCommonSteps, kBeside);
  refuse(arguments, kRowScaleSteps, kBeside);
  refuse(arguments, kTableSteps, kBeside);
  refuse(arguments, kTextFlags, kBeside);
  if (arguments.has("recipe") || arguments.has("no-rotate")) recipe.rotate = false;
  if (!table_format(scheme)) return recipe.rotate ? std::optional(recipe) : std::nullopt;
  recipe.table = table_kind(arguments);
  recipe.scale_search = !arguments.has("no-scale-search");
  if (recipe.table == quantize::TableKind::normal_float && !recipe.scale_search && !recipe.rotate)
    return std::nullopt;
  return recipe;
}

// The recipe that the flags choose, or nothing for plain rounding. The calibration text is read later.
std::optional<quantize::Recipe> recipe_of(const Arguments& arguments, Scheme scheme) {
  const std::optional<TableFormat> format = table_format(scheme);
  const std::string named = fmt::format("--scheme {}", scheme_name(scheme));
  if (format) {
    refuse(arguments, kRowScaleSteps, named);
    if (format->zero_points && arguments.has("table"))
      throw UsageError(fmt::format("--table: has no meaning with {}", named));
  } else {
    if (scheme_facts(scheme).group_scales()) refuse(arguments, kRowScaleSteps, named);
    refuse(arguments, kTableSteps, named);
    refuse(arguments, kTableChoices, named);
  }
  const bool text = arguments.has("calibration");
  const bool qoq = arguments.has("recipe") ? arguments.choice("recipe") == "qoq" : text;
  if (!qoq) return recipe_without_text(arguments, scheme);
  if (arguments.has("rotate") && arguments.has("no-rotate"))
    throw UsageError("--rotate and --no-rotate: expected one of them, found both");
  quantize::Recipe recipe = quantize::Recipe::for_scheme(scheme);
  if (arguments.has("rotate")) recipe.rotate = true;
  if (arguments.has("awq")) recipe.awq = true;
  const auto leave_out = [&](const char* flag, bool& step) {
    if (arguments.has(flag)) step = false;
  };
  leave_out("no-rotate", recipe.rotate);
  leave_out("no-reorder", recipe.reorder);
  leave_out("no-smooth-attention", recipe.smooth_attention);
  leave_out("no-smooth-outputs", recipe.smooth_outputs);
  leave_out("no-clip", recipe.clip);
  leave_out("no-feedback", recipe.feedback);
  leave_out("no-train-scales", recipe.train_scales);
  leave_out("no-scale-search", recipe.scale_search);
  if (arguments.has("table")) recipe.table = table_kind(arguments);
  recipe.attention_alpha = exponent(arguments, "attention-alpha");
  recipe.output_alpha = exponent(arguments, "output-alpha");
  if (recipe.attention_alpha && !recipe.smooth_attention)
    throw UsageError("--attention-alpha: has no meaning with --no-smooth-attention");
  if (recipe.output_alpha && !recipe.smooth_outputs)
    throw UsageError("--output-alpha: has no meaning with --no-smooth-outputs");
  if (!text) {
    if (recipe.needs_text()) throw UsageError("--calibration: the text that --recipe qoq needs is missing");
    for (const char* flag : kTextFlags)
      if (arguments.has(flag)) throw UsageError(fmt::format("--{}: needs --calibration", flag));
    return recipe;
  }
  quantize::CalibrationText& calibration = recipe.calibration.emplace();
  calibration.parse_special = arguments.has("parse-special");
  calibration.lines = arguments.has("lines");
  if (const auto windows = arguments.integer("calibration-windows", 1, 1 << 20))
    calibration.windows = static_cast<size_t>(*windows);
  if (const auto window = arguments.integer("calibration-window", 2, 1 << 24))
    calibration.window = static_cast<size_t>(*window);
  return recipe;
}

// What --scheme says. Without it a checkpoint's codes are kept, unless a flag asks for a way of rounding.
void choose_scheme(const Arguments& arguments, QuantizeOptions& options) {
  const auto given = arguments.text("scheme");
  const std::string name = given ? arguments.choice("scheme") : std::string(kKeptScheme);
  const bool keep = name == kKeptScheme || name == kKeptInt8Scheme;
  if (!keep) {
    options.scheme = *parse_scheme(name);
  } else if (given) {
    options.keep = Keep::everything;
    options.keep_for_int8 = name == kKeptInt8Scheme;
    refuse_rounding(arguments, fmt::format("--scheme {}", name));
  } else if (!asks_for_rounding(arguments)) {
    options.keep = Keep::where_quantized;
  }
}

// How long the work took, also per billion parameters. done_before: what an earlier run had finished of
// total.
std::string speed(double seconds, uint64_t done_before, uint64_t total,
                  const std::vector<QuantizeSummary>& lines) {
  uint64_t weights = 0;
  for (const QuantizeSummary& line : lines) weights += line.weights;
  const double share = 1.0 - static_cast<double>(done_before) / static_cast<double>(total);
  const double billions = static_cast<double>(weights) * share / 1e9;
  return fmt::format(
      "{:.1f} s, {:.0f} s per billion parameters{}\n", seconds, seconds / billions,
      done_before > 0 ? fmt::format(", {:.0f} % of the work taken over", 100 * (1 - share)) : "");
}

}  // namespace

int run_quantize(const Arguments& arguments) {
  const auto target = arguments.text("output");
  if (!target) throw UsageError("-o: the .tess file to write is missing");
  QuantizeOptions options;
  options.source = arguments.operands().front();
  options.target = *target;
  choose_scheme(arguments, options);
  if (arguments.has("head")) options.keep_head = arguments.choice("head") == "keep";
  options.kv_bits = static_cast<unsigned>(std::stoul(arguments.choice("kv")));
  options.threads = thread_count(arguments);
  options.command = arguments.command_line();
  if (const auto file = arguments.text("chat-template")) options.chat_template = read_chat_template(*file);
  options.import_note = [](const std::string& line) { say(line); };
  if (options.keep == Keep::nothing) options.recipe = recipe_of(arguments, options.scheme);
  if (!options.recipe && arguments.has("verbose"))
    throw UsageError("--verbose: says what a recipe chose; plain rounding (--recipe rtn) chooses nothing");

  std::unique_ptr<DenseProducts> products;
  std::string resumable;
  if (options.recipe) {
    products = make_dense_products(options.threads);
    options.products = products.get();
    if (options.recipe->calibration) {
      options.recipe->calibration->text = read_text(*arguments.text("calibration"));
      resumable = fmt::format(
          "tessera: finished layers are kept in {}.calibration: the same command goes on from there",
          terminal_text(*target));
      say_on_interrupt(resumable.c_str());
    }
  }
  // What the scheme does by default without a text.
  std::string rotation;
  if (options.recipe && options.recipe->rotate && !options.recipe->calibration && !arguments.has("recipe"))
    rotation =
        "rotated: the residual stream and the values of heads, so that 8-bit activations lose less; "
        "--no-rotate leaves that out\n";
  const auto start = std::chrono::steady_clock::now();
  std::vector<QuantizeSummary> summary;
  std::optional<uint64_t> done_before;
  uint64_t work = 0;
  {
    ProgressBar bar("quantizing");
    options.progress = [&](uint64_t done, uint64_t total) {
      if (!done_before) done_before = done;
      work = total;
      bar.update(done, total);
    };
    options.note = [&](const std::string& line) {
      // That a default step was left out is said without --verbose, too.
      if (!rotation.empty() && line.starts_with("rotation ")) rotation = line + '\n';
      if (!arguments.has("verbose")) return;
      bar.hide();
      say(line, Style::dim);
    };
    summary = quantize_model(options);
  }
  say_on_interrupt(nullptr);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  write_stdout(table(summary) + roundings(summary));
  write_stdout(rotation);
  if (options.recipe) write_stdout(speed(seconds, done_before.value_or(0), work, summary));
  write_stdout(
      fmt::format("{}: {}\n", options.target, readable_bytes(std::filesystem::file_size(options.target))));
  return kExitDone;
}

}  // namespace tessera
