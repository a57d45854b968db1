#include "commands/load_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "commands/terminal/terminal.h"
#include "engine/backends.h"
#include "engine/checkpoint/checkpoint_source.h"
#include "engine/embedded_model.h"
#include "engine/model_cache/open_converted.h"
#include "engine/readable_bytes.h"
#include "gguf-like-format/hyperparameter_fields.h"
#include "gguf-like-format/strict_json.h"

namespace tessera {

namespace {

constexpr uint64_t kMostThreads = 1024;
constexpr uint64_t kMostContext = uint64_t{1} << 26;
constexpr uint64_t kMostBatch = 65536;
constexpr uint64_t kMostLayers = 10000;

// Faults of a stored tokenizer or chat template know their field but not the file they were found in.
template <class Action>
auto naming_file(const std::string& path, const Action& action) {
  try {
    return action();
  } catch (const UsageError&) {
    throw;
  } catch (const std::runtime_error& error) {
    const std::string_view line = error.what();
    if (line.substr(0, path.size()) == path) throw;
    throw FileError(fmt::format("{}: {}", path, line));
  }
}

}  // namespace

size_t thread_count(const Arguments& arguments) {
  if (arguments.text("threads") == "-1") return 0;
  return arguments.integer("threads", 1, kMostThreads).value_or(0);
}

SessionOptions session_options(const Arguments& arguments) {
  SessionOptions options;
  const Verb& verb = arguments.verb();
  const auto offers = [&](std::string_view name) {
    for (const Option& option : verb.options) {
      if (option.name == name) return true;
    }
    return false;
  };
  options.backend = arguments.choice("backend");
  if (offers("gpu-layers")) {
    if (const auto layers = arguments.integer("gpu-layers", 0, kMostLayers)) {
      options.gpu_layers = *layers;
      if (!arguments.has("backend")) options.backend = device_backend().name;
      const bool on_device = find_backend(options.backend).on_device;
      if (*layers != 0 && !on_device) {
        throw UsageError(fmt::format("--gpu-layers: needs --backend {}, found {}", device_backend().name,
                                     options.backend));
      }
      if (*layers == 0 && on_device) options.backend = kHostBackend;  // as where there is no device
    }
  }
  if (!find_backend(options.backend).uses_cpu_kernels) {
    for (const char* flag : {"isa", "numa"}) {
      if (arguments.has(flag))
        throw UsageError(fmt::format("--{}: has no meaning with --backend {}", flag, options.backend));
    }
  }
  options.isa = arguments.choice("isa");
  options.threads = thread_count(arguments);
  options.memory_check = arguments.choice("memory-check") == "on";
  if (offers("ctx")) {
    options.numa = arguments.choice("numa");
    if (const auto context = arguments.integer("ctx", 0, kMostContext)) options.context = *context;
    if (const auto batch = arguments.integer("batch", 1, kMostBatch)) options.batch = *batch;
  }
  // A verb that compares takes several and reads them itself.
  if (!offers("compare") && arguments.has("kv"))
    options.kv_bits = static_cast<unsigned>(std::stoul(arguments.choice("kv")));
  if (const auto layers = arguments.integer("kv-first-layers", 0, kMostLayers))
    options.kv_first_layers = *layers;
  return options;
}

std::optional<uint64_t> cache_limit(const Arguments& arguments) {
  if (const auto given = arguments.text("cache-size")) return parse_bytes("--cache-size", *given);
  const char* value = std::getenv("TESSERA_CACHE_SIZE");
  if (value == nullptr || value[0] == '\0') return std::nullopt;
  return parse_bytes("TESSERA_CACHE_SIZE", value);
}

OpenFile open_model_file(const std::string& path, const Arguments& arguments) {
  const bool use_mmap = !arguments.has("no-mmap");
  const std::optional<uint64_t> limit =
      cache_limit(arguments);  // a wrong one is an error for .tess files too
  if (!is_checkpoint(path)) return {TessFile::open(path, use_mmap), nullptr};
  model_cache::OpenOptions options;
  options.limit = limit;
  options.use_mmap = use_mmap;
  options.threads = thread_count(arguments);
  std::optional<ProgressBar> bar;
  const char* shown = nullptr;
  model_cache::OpenEvents events;
  events.note = [&](const std::string& line) {
    if (bar) bar->hide();
    say(one_line(line), Style::dim);
  };
  events.progress = [&](const char* what, uint64_t done, uint64_t total) {
    if (what != shown) bar.emplace(what);
    shown = what;
    bar->update(done, total);
  };
  model_cache::OpenedModel opened = model_cache::open_converted(path, options, events);
  return {std::move(opened.file), std::move(opened.needs)};
}

namespace {

// --rope-scaling and what belongs to it. Throws UsageError.
RopeRequest rope_request(const Arguments& arguments) {
  RopeRequest request;
  const auto real = [&](const char* name, double least, double most) -> std::optional<double> {
    const auto given = arguments.text(name);
    if (!given) return std::nullopt;
    return parse_real(fmt::format("--{}", name), *given, least, most);
  };
  if (const auto kind = arguments.text("rope-scaling")) {
    arguments.choice("rope-scaling");
    request.scaling = *kind == "none"     ? RopeScalingKind::none
                      : *kind == "linear" ? RopeScalingKind::linear
                                          : RopeScalingKind::yarn;
  }
  request.factor = real("rope-scale", 1, header_limits::kMostFactor);
  if (const auto inverse = real("rope-freq-scale", 1 / header_limits::kMostFactor, 1)) {
    if (request.factor)
      throw UsageError("--rope-scale and --rope-freq-scale: expected one of them, found both");
    request.factor = 1 / *inverse;
  }
  request.theta = real("rope-freq-base", 2, header_limits::kMostRopeTheta);
  request.original_context = arguments.integer("yarn-orig-ctx", 1, header_limits::kMostContext);
  if (const auto context = arguments.integer("ctx", 0, kMostContext); context && *context > 0)
    request.context = *context;
  return request;
}

void stretch(Model& model, const RopeRequest& request) {
  const uint64_t own = model.hyperparameters().context;
  try {
    model.stretch(request);
  } catch (const std::invalid_argument& error) {
    throw UsageError(error.what());
  }
  if (!request.any()) return;  // as the model's own code does it
  say(fmt::format(
          "positions are not scaled as the model was made ({} tokens of context instead of {}): its answers "
          "may be worse",
          model.hyperparameters().context, own),
      Style::warning);
}

}  // namespace

Model open_model(const std::optional<std::string>& path, const Arguments& arguments) {
  if (!path && embedded_model().empty()) {
    throw std::runtime_error("this build has no embedded model: name a file with -m");
  }
  if (!path && arguments.has("no-mmap"))
    throw UsageError("--no-mmap: needs -m; the embedded model is in memory as it is");
  if (!path && arguments.has("cache-size"))
    throw UsageError("--cache-size: needs -m; the embedded model is not converted");
  Model model = naming_file(path.value_or("embedded model"), [&] {
    if (!path) return Model::from_memory(embedded_model());
    OpenFile opened = open_model_file(*path, arguments);
    return Model::from_file(std::move(opened.file), std::move(opened.needs));
  });
  if (const RopeRequest request = rope_request(arguments); request.stretches(model.hyperparameters()))
    stretch(model, request);
  if (arguments.has("mlock")) lock_pages(model.file());
  if (const auto file = arguments.text("chat-template")) model.use_chat_template(read_chat_template(*file));
  return model;
}

std::string read_chat_template(const std::string& path) {
  std::string text = read_utf8_file(path, header_limits::kMostTextBytes);
  naming_file(path, [&] { return ChatTemplate(text); });
  return text;
}

Tokenizer stored_tokenizer(const TessFile& file) {
  return naming_file(file.path(),
                     [&] { return Tokenizer::from_stored(file.header().tokenizer, file.tensors()); });
}

std::unique_ptr<Session> open_session(const Model& model, SessionOptions options) {
  const auto longest = static_cast<size_t>(model.hyperparameters().context);
  if (options.context > longest) {
    say(fmt::format("--ctx {}: the model's context is {} tokens, more would never be used; --rope-scaling "
                    "stretches it",
                    options.context, longest),
        Style::warning);
    options.context = longest;
  }
  auto session = std::make_unique<Session>(model, options);
  say_memory(session->memory());
  if (options.context == 0 && session->context() < longest) {
    say(fmt::format("for lack of memory the context is {} of the model's {} tokens; --ctx N asks for more, "
                    "--memory-check off for all",
                    session->context(), longest),
        Style::warning);
  }
  const std::vector<Place>& places = session->memory().places;
  const bool uses_device =
      std::any_of(places.begin(), places.end(), [](const Place& place) { return place.on_device; });
  if (find_backend(options.backend).on_device && !uses_device)
    say("no layer fits the GPU's memory: all run on the CPU", Style::warning);
  return session;
}

void say_memory(const MemoryFigures& memory) {
  if (memory.places.size() > 1) {
    for (const Place& place : memory.places) {
      say(fmt::format(
              "memory: {} layers on {}: weights {}, KV cache {} ({} tokens at {} bits), activations {}; {} "
              "available",
              place.layers, place.name, readable_bytes(place.weight_bytes),
              readable_bytes(place.kv_bytes(memory.context)), memory.context, memory.kv_bits,
              readable_bytes(place.activation_bytes), readable_bytes(place.available_bytes)),
          Style::dim);
    }
    return;
  }
  say(fmt::format("memory: weights {}, KV cache {} ({} tokens at {} bits), activations {}; {} available",
                  readable_bytes(memory.weight_bytes), readable_bytes(memory.kv_bytes), memory.context,
                  memory.kv_bits, readable_bytes(memory.activation_bytes),
                  readable_bytes(memory.available_bytes)),
      Style::dim);
}

}  // namespace tessera
