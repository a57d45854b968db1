// How well models predict a text, and how far they are from a reference model: perplexity and KL divergence
// over windows, for one file, for several, or for the parts of one.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <list>
#include <optional>
#include <string>
#include <vector>

#include "commands/commands.h"
#include "commands/files/text_file.h"
#include "commands/load_model.h"
#include "commands/perplexity/perplexity_report.h"
#include "commands/terminal/terminal.h"
#include "engine/measure/layer_costs.h"
#include "engine/measure/perplexity_windows.h"
#include "engine/measure/side_by_side.h"
#include "gguf-like-format/temporary_file.h"

namespace tessera {

namespace {

constexpr size_t kDefaultWindow = 2048;
constexpr size_t kLeastWindow = 2;  // one token is only read, one is predicted

bool same_file(const std::string& a, const std::string& b) {
  std::error_code error;
  return a == b || std::filesystem::equivalent(a, b, error);
}

// The files of one command line, each opened once however often it is named.
class OpenModels {
 public:
  explicit OpenModels(const Arguments& arguments) : arguments_(arguments) {}

  const Model& open(const std::string& path) {
    for (const Model& model : models_) {
      if (same_file(model.file().path(), path)) return model;
    }
    return models_.emplace_back(open_model(path, arguments_));
  }
  const std::list<Model>& all() const { return models_; }

 private:
  const Arguments& arguments_;
  std::list<Model> models_;  // a list: models do not move when another is added
};

// The text that the windows are cut from.
struct TextSource {
  std::string name;
  std::string text;
  bool lines = false;
  bool parse_special = false;

  std::vector<uint32_t> encode(const Tokenizer& tokenizer) const {
    return tokenizer.encode(text, parse_special);
  }
};

std::optional<uint32_t> begin_token(const Tokenizer& tokenizer) {
  return tokenizer.adds_bos() ? tokenizer.bos() : std::nullopt;
}

// Distributions can only be compared when every id means the same and the text is the same ids.
void check_same_tokens(const Model& first, const Model& other, const TextSource& source) {
  const auto refuse = [&](const std::string& why) {
    throw std::runtime_error(
        fmt::format("{} and {} cannot be compared: {}", first.file().path(), other.file().path(), why));
  };
  const uint64_t vocabulary = first.hyperparameters().vocabulary;
  if (vocabulary != other.hyperparameters().vocabulary) {
    refuse(fmt::format("their vocabularies have {} and {} tokens", vocabulary,
                       other.hyperparameters().vocabulary));
  }
  const Tokenizer& a = first.tokenizer();
  const Tokenizer& b = other.tokenizer();
  if (a.vocabulary() != b.vocabulary()) {
    refuse(fmt::format("their tokenizers have {} and {} tokens", a.vocabulary(), b.vocabulary()));
  }
  for (uint32_t id = 0; id < a.vocabulary(); ++id) {
    const std::string text = a.token_bytes(id, true);
    const std::string there = b.token_bytes(id, true);
    if (text != there) {
      refuse(
          fmt::format("token {} is '{}' in one and '{}' in the other", id, one_line(text), one_line(there)));
    }
  }
  if (begin_token(a) != begin_token(b)) refuse("only one of them begins a text with that begin token");
  if (source.encode(a) != source.encode(b)) refuse("their tokenizers cut the text into other tokens");
}

struct WindowChoice {
  WindowPlan plan;
  size_t window = 0;
};

WindowChoice choose_windows(const Arguments& arguments, const std::list<Model>& models,
                            const TextSource& source, std::optional<uint64_t> window_given,
                            std::optional<uint64_t> stride_given) {
  const Model& shortest = *std::min_element(models.begin(), models.end(), [](const Model& a, const Model& b) {
    return a.hyperparameters().context < b.hyperparameters().context;
  });
  const auto context = static_cast<size_t>(shortest.hyperparameters().context);
  if (context < kLeastWindow) {
    throw std::runtime_error(
        fmt::format("{}: expected a model whose context holds at least {} tokens, found {}",
                    shortest.file().path(), kLeastWindow, context));
  }
  const size_t window = window_given ? static_cast<size_t>(*window_given) : std::min(kDefaultWindow, context);
  if (window > context) {
    throw UsageError(
        fmt::format("--window: expected at most the model's context of {}, found {}", context, window));
  }
  const Tokenizer& tokenizer = models.front().tokenizer();
  const std::optional<uint32_t> bos = begin_token(tokenizer);
  const size_t room = window - (bos ? 1 : 0);
  const size_t stride = stride_given ? static_cast<size_t>(*stride_given) : room;
  if (stride > room) {
    throw UsageError(
        fmt::format("--stride: expected at most the {} text tokens of a window, found {}", room, stride));
  }
  WindowChoice choice;
  choice.window = window;
  choice.plan = arguments.has("lines") ? plan_lines(source.text, tokenizer, source.parse_special, bos, window)
                                       : plan_windows(source.encode(tokenizer), bos, window, stride);
  if (choice.plan.windows.empty() || choice.plan.scored() == 0) {
    throw std::runtime_error(fmt::format("{}: expected a text of at least 2 tokens, found {}", source.name,
                                         choice.plan.text_tokens));
  }
  return choice;
}

double bits_per_weight(const Model& model) {
  double weights = 0;
  for (const Weight& weight : model.graph().weights) {
    weights += static_cast<double>(weight.rows) * static_cast<double>(weight.columns);
  }
  return static_cast<double>(model.weight_bytes()) * 8 / weights;
}

QualityRow row_of(const Model& model, const std::string& name, const SessionOptions& options,
                  unsigned kv_bits) {
  QualityRow row;
  row.name = name;
  row.file = one_line(model.file().path());
  row.scheme = one_line(model.header().quantization.scheme);
  row.kv_bits = kv_bits;
  row.kv_first_layers = options.kv_first_layers;
  row.file_bytes = model.file().mapped_bytes().size();
  row.weight_bytes = model.weight_bytes();
  row.bits_per_weight = bits_per_weight(model);
  return row;
}

// The file's name without its ending, or the whole path where two files would be called the same.
std::string short_name(const Model& model, const std::list<Model>& all) {
  const auto stem = [](const Model& each) {
    const std::filesystem::path path(each.file().path());
    return path.extension() == ".tess" ? path.stem().string() : path.filename().string();
  };
  const auto same =
      std::count_if(all.begin(), all.end(), [&](const Model& other) { return stem(other) == stem(model); });
  return one_line(same > 1 ? model.file().path() : stem(model));
}

QualityReport describe(const WindowPlan& plan, const TextSource& source) {
  QualityReport report;
  report.text = one_line(source.name);
  report.description = plan.description();
  report.windows = plan.windows.size();
  report.text_tokens = plan.text_tokens;
  report.scored_tokens = plan.scored();
  return report;
}

// The options that choose what is measured, checked against each other before any file is opened.
struct Request {
  std::vector<std::string> files;
  std::optional<std::string> reference;
  bool compare = false;
  bool layers = false;
  bool by_matrix = false;
  std::vector<unsigned> kv_bits;  // empty: each file's own
  unsigned reference_kv = 16;
  std::string form;
  std::optional<std::string> plot;
};

Request read_request(const Arguments& arguments) {
  Request request;
  request.files = arguments.operands();
  request.reference = arguments.text("kl");
  request.compare = arguments.has("compare");
  request.by_matrix = arguments.has("matrices");
  request.layers = arguments.has("layers") || request.by_matrix;
  for (const std::string& bits : arguments.choices("kv")) {
    request.kv_bits.push_back(static_cast<unsigned>(std::stoul(bits)));
  }
  request.reference_kv = static_cast<unsigned>(std::stoul(arguments.choice("reference-kv")));
  request.form = arguments.choice("output");
  request.plot = arguments.text("plot");

  if (request.layers && request.compare) throw UsageError("--layers and --compare: expected one of them");
  if (request.layers && !request.reference) {
    throw UsageError("--layers: needs --kl with the file that is taken as unquantized");
  }
  if (request.layers && (!request.kv_bits.empty() || arguments.has("kv-first-layers"))) {
    throw UsageError("--layers: judges weights; the KV cache has the precision of --reference-kv throughout");
  }
  if (request.files.size() > 1 && !request.compare) {
    throw UsageError(fmt::format("unexpected '{}'; several files need --compare", request.files[1]));
  }
  if (request.kv_bits.size() > 1 && !request.compare) {
    throw UsageError("--kv: several precisions need --compare");
  }
  const bool has_reference = request.reference || request.compare;
  if (!has_reference && arguments.has("reference-kv")) {
    throw UsageError("--reference-kv: needs --kl or --compare");
  }
  if (request.plot && (!has_reference || request.layers)) {
    throw UsageError("--plot: needs --compare, or --kl without --layers");
  }
  return request;
}

// Measures with the memory plan and a progress bar on stderr.
SideBySide measure_with_progress(const WindowChoice& windows, const std::optional<Contender>& reference,
                                 const std::vector<Contender>& contenders) {
  const bool alone = !reference && contenders.size() == 1;
  ProgressBar bar(alone ? "perplexity" : "comparing");
  SideBySideEvents events;
  events.memory = say_memory;
  events.shared_memory = [](const std::string& line) { say(line, Style::dim); };
  events.passes = [](const std::string& line) { say(line); };
  events.progress = [&](size_t done, size_t total, const SampleMean& nats) {
    if (alone && nats.count() > 0) bar.rename(fmt::format("perplexity {:.3f}", std::exp(nats.mean())));
    bar.update(done, total);
  };
  return measure_side_by_side(windows.plan, windows.window, reference, contenders, events);
}

QualityReport compare_files(const Request& request, const SessionOptions& options, OpenModels& models,
                            const TextSource& source, const WindowChoice& windows) {
  QualityReport report = describe(windows.plan, source);
  std::optional<Contender> reference;
  if (request.reference || request.compare) {
    const Model& model = models.open(request.reference.value_or(request.files.front()));
    SessionOptions reference_options = options;
    reference_options.kv_bits = request.reference_kv;
    reference_options.kv_first_layers = 0;
    reference = Contender{&model, reference_options, short_name(model, models.all())};
  }
  std::vector<Contender> contenders;
  for (const std::string& path : request.files) {
    const Model& model = models.open(path);
    std::vector<unsigned> precisions = request.kv_bits;
    if (precisions.empty()) {
      precisions.push_back(static_cast<unsigned>(model.header().quantization.kv_bits));
    }
    for (const unsigned bits : precisions) {
      SessionOptions each = options;
      each.kv_bits = bits;
      if (bits == 16) each.kv_first_layers = 0;  // all layers have 16 bits
      const auto is_same = [&](const Contender& other) {
        return other.model == &model && other.options.kv_bits == bits &&
               other.options.kv_first_layers == each.kv_first_layers;
      };
      // The reference has its row already, and a file named twice needs only one.
      const bool known = std::any_of(contenders.begin(), contenders.end(), is_same);
      if (request.compare && (known || (reference && is_same(*reference)))) continue;
      contenders.push_back({&model, each, short_name(model, models.all())});
    }
  }
  if (contenders.empty()) {
    throw UsageError("--compare: expected another file or KV precision beside the reference");
  }
  SideBySide measured = measure_with_progress(windows, reference, contenders);
  report.backend = measured.backend;
  if (reference) {
    report.reference =
        row_of(*reference->model, reference->name, reference->options, measured.reference_kv_bits);
    report.reference->quality = std::move(*measured.reference);
  }
  for (size_t i = 0; i < contenders.size(); ++i) {
    QualityRow row =
        row_of(*contenders[i].model, contenders[i].name, contenders[i].options, measured.kv_bits[i]);
    row.quality = std::move(measured.models[i]);
    report.models.push_back(std::move(row));
  }
  return report;
}

LayerReport judge_layers(const Request& request, const SessionOptions& options, OpenModels& models,
                         const TextSource& source, const WindowChoice& windows) {
  const Model& quantized = models.open(request.files.front());
  const Model& reference_model = models.open(*request.reference);
  SessionOptions each = options;
  each.kv_bits = request.reference_kv;
  each.kv_first_layers = 0;
  const Contender reference{&reference_model, each, short_name(reference_model, models.all())};
  const std::vector<MixedPart> parts = mix_parts(quantized, reference_model, request.by_matrix);
  std::vector<Contender> contenders = {{&quantized, each, short_name(quantized, models.all())}};
  for (const MixedPart& part : parts) contenders.push_back({&part.model, each, part.name});
  SideBySide measured = measure_with_progress(windows, reference, contenders);

  LayerReport report;
  report.whole = describe(windows.plan, source);
  report.whole.backend = measured.backend;
  report.whole.reference = row_of(reference_model, reference.name, each, measured.reference_kv_bits);
  report.whole.reference->quality = std::move(*measured.reference);
  report.whole.models.push_back(row_of(quantized, contenders.front().name, each, measured.kv_bits.front()));
  report.whole.models.front().quality = std::move(measured.models.front());
  double sum = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    ModelQuality& quality = measured.models[i + 1];
    sum += quality.divergence->kl().mean();
    report.parts.push_back({parts[i].name, parts[i].scheme, parts[i].weight_bytes, parts[i].bits_per_weight,
                            std::move(quality), 0});
  }
  for (PartCost& part : report.parts) {
    part.share = sum > 0 ? part.quality.divergence->kl().mean() / sum : 0;
  }
  std::stable_sort(report.parts.begin(), report.parts.end(),
                   [](const PartCost& a, const PartCost& b) { return a.share > b.share; });
  return report;
}

}  // namespace

int run_perplexity(const Arguments& arguments) {
  const SessionOptions options = session_options(arguments);
  const Request request = read_request(arguments);
  const auto window = arguments.integer("window", kLeastWindow, 1 << 24);
  const auto stride = arguments.integer("stride", 1, 1 << 24);
  if (arguments.has("lines") && stride) throw UsageError("--stride: has no meaning with --lines");
  const auto file = arguments.text("text");
  if (!file && is_terminal(STDIN_FILENO)) throw UsageError("--text: the text to measure on is missing");

  OpenModels models(arguments);
  if (request.reference) models.open(*request.reference);
  for (const std::string& path : request.files) models.open(path);
  const TextSource source{file.value_or("stdin"), read_text(file.value_or("-")), arguments.has("lines"),
                          arguments.has("parse-special")};
  for (const Model& model : models.all()) {
    if (&model != &models.all().front()) check_same_tokens(models.all().front(), model, source);
  }
  const WindowChoice windows = choose_windows(arguments, models.all(), source, window, stride);
  if (request.layers) {
    write_stdout(layer_text(judge_layers(request, options, models, source, windows), request.form));
    return kExitDone;
  }
  std::optional<TemporaryFile> plot;
  if (request.plot) plot.emplace(*request.plot);  // before the work: it may not be writable
  const QualityReport report = compare_files(request, options, models, source, windows);
  write_stdout(quality_text(report, request.form));
  if (plot) write_text(*plot, quality_svg(report));
  return kExitDone;
}

}  // namespace tessera
