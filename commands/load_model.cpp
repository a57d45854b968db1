#include "commands/load_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>
#include <string_view>

#include "commands/terminal/terminal.h"
#include "engine/backends.h"
#include "engine/embedded_model.h"
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
  } catch (const std::runtime_error& error) {
    const std::string_view line = error.what();
    if (line.substr(0, path.size()) == path) throw;
    throw FileError(fmt::format("{}: {}", path, line));
  }
}

}  // namespace

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
  if (const auto threads = arguments.integer("threads", 1, kMostThreads)) options.threads = *threads;
  if (offers("ctx")) {
    options.numa = arguments.choice("numa");
    if (const auto context = arguments.integer("ctx", 1, kMostContext)) options.context = *context;
    if (const auto batch = arguments.integer("batch", 1, kMostBatch)) options.batch = *batch;
  }
  // A verb that compares takes several and reads them itself.
  if (!offers("compare") && arguments.has("kv"))
    options.kv_bits = static_cast<unsigned>(std::stoul(arguments.choice("kv")));
  if (const auto layers = arguments.integer("kv-first-layers", 0, kMostLayers))
    options.kv_first_layers = *layers;
  return options;
}

Model open_model(const std::optional<std::string>& path, const Arguments& arguments) {
  if (!path && embedded_model().empty()) {
    throw std::runtime_error("this build has no embedded model: name a file with -m");
  }
  if (!path && arguments.has("no-mmap"))
    throw UsageError("--no-mmap: needs -m; the embedded model is in memory as it is");
  Model model = naming_file(path.value_or("embedded model"), [&] {
    return path ? Model::open(*path, !arguments.has("no-mmap")) : Model::from_memory(embedded_model());
  });
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
    say(fmt::format("--ctx {}: the model's context is {} tokens, more would never be used", options.context,
                    longest),
        Style::warning);
    options.context = longest;
  }
  auto session = std::make_unique<Session>(model, options);
  say_memory(session->memory());
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
