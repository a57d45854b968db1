#include "engine/session.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <optional>
#include <stdexcept>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/cpu_features.h"
#include "backends/reference/reference_backend.h"
#include "backends/split/split_backend.h"
#include "engine/model.h"
#if defined(TESSERA_WITH_CUDA)
#include "backends/cuda/cuda_backend.h"
#endif

namespace tessera {

namespace {

template <class Value>
Value take(Result<Value> result) {
  if (!result.ok()) throw std::runtime_error(result.error());
  return std::move(result.value());
}

std::unique_ptr<Backend> make_backend(const SessionOptions& options) {
  if (options.backend == "cpu")
    return take(make_cpu_backend({.isa = options.isa, .threads = options.threads, .numa = options.numa}));
  if (options.backend == "reference") return make_reference_backend();
#if defined(TESSERA_WITH_CUDA)
  if (options.backend == "cuda") return take(make_cuda_backend());
  constexpr const char* kBackends = "cpu, cuda and reference";
#else
  constexpr const char* kBackends = "cpu and reference";
#endif
  throw std::runtime_error(fmt::format("backend {}: this build has {}", options.backend, kBackends));
}

double gib(size_t bytes) { return static_cast<double>(bytes) / static_cast<double>(size_t{1} << 30); }

}  // namespace

struct Session::State {
  struct Sequence {
    bool alive = false;
    std::vector<uint32_t> tokens;
    std::vector<uint32_t> pages;
  };

  const Model* model = nullptr;
  SessionOptions options;
  std::unique_ptr<Backend> backend;
  MemoryFigures memory;
  KvGeometry geometry;
  std::unique_ptr<KvStorage> kv;
  std::vector<WeightHandle> weights;
  std::unique_ptr<Program> program;
  std::unique_ptr<PageAllocator> pages;
  std::vector<Sequence> sequences;
  std::vector<float> logits;
  std::vector<TokenLogit> best;
  size_t context = 0;

  Sequence& at(SequenceId id) {
    if (id >= sequences.size() || !sequences[id].alive) throw std::invalid_argument("no such sequence");
    return sequences[id];
  }

  std::function<size_t(const Weight&)> bytes_of_weights() const {
    return [this](const Weight& weight) { return model->file().require(weight.name).bytes.size(); };
  }
  void plan_memory_use();
  std::string choose_places(const PlacedModel& placed);
  PlacementRequest request() const {
    return {options.gpu_layers, options.context, static_cast<size_t>(model->hyperparameters().context)};
  }
  void reserve(std::span<const SequenceInput> inputs);
  void roll_back(std::span<const SequenceInput> inputs, std::span<const size_t> lengths);
  std::vector<ProgramPart> parts();
  size_t vocabulary() const { return model->graph().tensors[model->graph().logits].columns; }
  void run(std::span<const SequenceInput> inputs, size_t best_count);
  void run_chunks(std::span<const SequenceInput> inputs, size_t best_count);
};

void Session::State::plan_memory_use() {
  const Hyperparameters& hp = model->hyperparameters();
  memory.kv_bits =
      options.kv_bits != 0 ? options.kv_bits : static_cast<unsigned>(model->header().quantization.kv_bits);
  if (memory.kv_bits != 16 && memory.kv_bits != 8 && memory.kv_bits != 4) {
    throw std::runtime_error(fmt::format("KV precision {}: expected 16, 8 or 4", memory.kv_bits));
  }
  geometry = {hp.layers, hp.kv_heads, hp.head_dim, memory.kv_bits, options.kv_first_layers};
  const PlanLimits limits{std::max<size_t>(options.batch, 1), std::max<size_t>(options.max_outputs, 1)};
  const PlacedModel placed{model->graph(), bytes_of_weights(), geometry, limits};
  const std::string advice = choose_places(placed);

  for (const Place& place : memory.places) {
    memory.weight_bytes += place.weight_bytes;
    memory.activation_bytes += place.activation_bytes;
    memory.available_bytes += place.available_bytes;
  }
  const size_t tokens = choose_context(memory.places, request());
  memory.context = tokens;
  for (const Place& place : memory.places) memory.kv_bytes += place.kv_bytes(tokens);
  if (const std::string fault = memory_fault(memory.places, tokens, memory.kv_bits, advice); !fault.empty())
    throw std::runtime_error(fault);
  context = std::min<size_t>(tokens, hp.context);

  const size_t page_count = (tokens + kKvPageTokens - 1) / kKvPageTokens;
  kv = take(backend->create_kv(geometry, page_count));
  pages = std::make_unique<PageAllocator>(page_count);
  for (const Weight& weight : model->graph().weights) {
    weights.push_back(take(backend->adopt(model->file().require(weight.name))));
  }
  program = take(backend->compile(model->graph(), plan_memory(model->graph(), limits), weights, *kv));
}

// Decides which backend gets which layers. Returns what to do where that does not fit.
std::string Session::State::choose_places(const PlacedModel& placed) {
  const std::optional<size_t> device_bytes = backend->available_memory();
  const auto host_bytes = [&] {
    const size_t bytes = cpu::available_memory();
    // Weights that are in this memory already are no longer among what is available.
    return bytes != 0 && model->file().resident() ? bytes + model->weight_bytes() : bytes;
  };
  if (!device_bytes) {
    memory.places = {plan_place(placed, {options.backend, *backend, host_bytes()})};
    return kSmallerCacheAdvice;
  }
  const Memory device{options.backend, *backend, std::max<size_t>(*device_bytes, 1)};  // 0: nobody knows
  const DeviceLayers chosen = choose_device_layers(placed, device, request());
  if (chosen.count == placed.kv.layers) {
    memory.places = {plan_place(placed, device)};
    return chosen.advice;
  }
  SessionOptions on_host = options;
  on_host.backend = "cpu";
  std::unique_ptr<Backend> host = make_backend(on_host);
  const Memory rest{on_host.backend, *host, host_bytes()};
  if (chosen.count == 0) {
    memory.places = {plan_place(placed, rest)};
    backend = std::move(host);
    return chosen.advice;
  }
  memory.places = plan_places(placed, rest, device, chosen.count);
  if (memory.places.empty())
    throw std::runtime_error(fmt::format("--gpu-layers {}: the model cannot be split there", chosen.count));
  backend = make_split_backend(std::move(host), std::move(backend), placed.kv.layers - chosen.count);
  return chosen.advice;
}

Session::Session(const Model& model, const SessionOptions& options) : state_(std::make_unique<State>()) {
  state_->model = &model;
  state_->options = options;
  state_->options.batch = std::max<size_t>(options.batch, 1);
  state_->options.max_outputs = std::max<size_t>(options.max_outputs, 1);
  state_->backend = make_backend(options);
  state_->plan_memory_use();
}

Session::~Session() = default;

const Model& Session::model() const { return *state_->model; }
const MemoryFigures& Session::memory() const { return state_->memory; }
std::string Session::backend_description() const { return state_->backend->describe(); }
size_t Session::context() const { return state_->context; }
size_t Session::pages_in_use() const { return state_->pages->total() - state_->pages->free_pages(); }

SequenceId Session::create_sequence() {
  std::vector<State::Sequence>& sequences = state_->sequences;
  size_t id = 0;
  while (id < sequences.size() && sequences[id].alive) ++id;
  if (id == sequences.size()) sequences.emplace_back();
  sequences[id].alive = true;
  return id;
}

void Session::release(SequenceId sequence) {
  truncate(sequence, 0);
  state_->at(sequence).alive = false;
}

void Session::truncate(SequenceId sequence, size_t token_count) {
  State::Sequence& data = state_->at(sequence);
  if (token_count < data.tokens.size()) data.tokens.resize(token_count);
  state_->pages->shrink(data.pages, data.tokens.size());
}

size_t Session::length(SequenceId sequence) const { return state_->at(sequence).tokens.size(); }
const std::vector<uint32_t>& Session::tokens(SequenceId sequence) const {
  return state_->at(sequence).tokens;
}

double Session::op_seconds(std::string_view kind) const {
  const std::vector<double> seconds = state_->program->op_seconds();
  const std::vector<Op>& ops = state_->model->graph().ops;
  double total = 0;
  for (size_t i = 0; i < seconds.size(); ++i) {
    if (op_name(ops[i].kind) == kind) total += seconds[i];
  }
  return total;
}

bool Session::measures_ops() const { return !state_->program->op_seconds().empty(); }

// What runs in each place.
std::vector<ProgramPart> Session::State::parts() {
  std::vector<ProgramPart> split = parts_of(*backend, *program, *kv);
  if (!split.empty()) return split;
  return {{*backend, model->graph(), weights, *kv}};
}

std::optional<DeviceLimits> Session::measure_limits(size_t place) {
  return take(state_->parts().at(place).backend.measure_limits());
}

std::vector<ProductSpeed> Session::measure_products(size_t tokens, size_t place) {
  const ProgramPart part = state_->parts().at(place);
  return tessera::measure_products(part.backend, part.graph, part.weights, part.kv,
                                   state_->bytes_of_weights(), tokens);
}

double Session::measure_attention(size_t position) {
  if (pages_in_use() != 0 || position >= context() || state_->memory.places.size() != 1)
    throw std::invalid_argument("attention is measured in an empty cache, in one place");
  return tessera::measure_attention(*state_->backend, state_->model->graph(), state_->weights, *state_->kv,
                                    position);
}

// Takes pages for all inputs, or none.
void Session::State::reserve(std::span<const SequenceInput> inputs) {
  for (size_t i = 0; i < inputs.size(); ++i) {
    Sequence& sequence = at(inputs[i].sequence);
    if (inputs[i].tokens.empty()) throw std::invalid_argument("a sequence without new tokens");
    for (size_t j = 0; j < i; ++j) {
      if (inputs[j].sequence == inputs[i].sequence)
        throw std::invalid_argument("a sequence appears twice in one run");
    }
    const size_t wanted = sequence.tokens.size() + inputs[i].tokens.size();
    const bool fits = wanted <= context && pages->extend(sequence.pages, wanted);
    if (fits) continue;
    for (size_t j = 0; j < i; ++j) {
      Sequence& other = at(inputs[j].sequence);
      pages->shrink(other.pages, other.tokens.size());
    }
    if (wanted > context) {
      throw std::runtime_error(fmt::format("context is full: {} tokens wanted, {} fit", wanted, context));
    }
    throw std::runtime_error(fmt::format("KV cache is full: {} tokens wanted, {} pages of {} are free",
                                         wanted, pages->free_pages(), kKvPageTokens));
  }
}

void Session::State::roll_back(std::span<const SequenceInput> inputs, std::span<const size_t> lengths) {
  for (size_t i = 0; i < inputs.size(); ++i) {
    Sequence& sequence = at(inputs[i].sequence);
    sequence.tokens.resize(lengths[i]);
    pages->shrink(sequence.pages, lengths[i]);
  }
}

// Packs tokens of the inputs, in order, into batches within the plan's limits and runs them. Rows of the
// results go to logits, or to best where only the best_count best of each are wanted.
void Session::State::run_chunks(std::span<const SequenceInput> inputs, size_t best_count) {
  std::vector<uint32_t> tokens;
  std::vector<uint32_t> outputs;
  std::vector<BatchSequence> batch_sequences;
  size_t rows_done = 0;
  size_t input = 0;
  size_t offset = 0;  // tokens of the current input already run
  while (input < inputs.size()) {
    tokens.clear();
    outputs.clear();
    batch_sequences.clear();
    while (input < inputs.size() && tokens.size() < options.batch && outputs.size() < options.max_outputs) {
      const SequenceInput& source = inputs[input];
      size_t count = std::min(source.tokens.size() - offset, options.batch - tokens.size());
      if (source.want == SequenceInput::Want::all)
        count = std::min(count, options.max_outputs - outputs.size());
      Sequence& sequence = at(source.sequence);
      batch_sequences.push_back({tokens.size(), count, sequence.tokens.size(), sequence.pages});
      for (size_t i = 0; i < count; ++i) {
        const bool last = offset + i + 1 == source.tokens.size();
        if (source.want == SequenceInput::Want::all || (last && source.want == SequenceInput::Want::last)) {
          outputs.push_back(static_cast<uint32_t>(tokens.size()));
        }
        tokens.push_back(source.tokens[offset + i]);
        sequence.tokens.push_back(source.tokens[offset + i]);
      }
      offset += count;
      if (offset == source.tokens.size()) {
        ++input;
        offset = 0;
      }
    }
    const Batch batch{tokens, batch_sequences, outputs};
    const auto rows_of = [&](auto& results, size_t columns) {
      return std::span(results).subspan(rows_done * columns, outputs.size() * columns);
    };
    const Status status = best_count == 0 ? program->run(batch, rows_of(logits, vocabulary()))
                                          : program->run_best(batch, best_count, rows_of(best, best_count));
    if (!status.ok()) throw std::runtime_error(status.error());
    rows_done += outputs.size();
  }
}

void Session::State::run(std::span<const SequenceInput> inputs, size_t best_count) {
  reserve(inputs);
  std::vector<size_t> lengths;
  size_t rows = 0;
  for (const SequenceInput& input : inputs) {
    lengths.push_back(at(input.sequence).tokens.size());
    if (input.want == SequenceInput::Want::all) rows += input.tokens.size();
    if (input.want == SequenceInput::Want::last) rows += 1;
  }
  if (best_count == 0) {
    logits.resize(rows * vocabulary());
  } else {
    best.resize(rows * best_count);
  }
  try {
    run_chunks(inputs, best_count);
  } catch (...) {
    roll_back(inputs, lengths);
    throw;
  }
}

std::span<float> Session::run(std::span<const SequenceInput> inputs) {
  state_->run(inputs, 0);
  return state_->logits;
}

bool Session::gives_best(size_t count) const {
  return count > 0 && count <= state_->program->most_best() && count < state_->vocabulary();
}

std::span<const TokenLogit> Session::run_best(std::span<const SequenceInput> inputs, size_t count) {
  if (!gives_best(count)) throw std::invalid_argument("more of the best logits than the backend gives");
  state_->run(inputs, count);
  return state_->best;
}

std::string list_devices() {
  std::string text = fmt::format("cpu: {}, {} threads, instruction sets {}, {:.1f} GiB of memory available\n",
                                 cpu::processor_name(), cpu::usable_threads(),
                                 fmt::join(usable_instruction_sets(), ", "), gib(cpu::available_memory()));
#if defined(TESSERA_WITH_CUDA)
  text += list_cuda_devices();
#else
  text += "cuda: not in this build\n";
#endif
  text += "reference: plain loops in float64, one thread\n";
  return text;
}

}  // namespace tessera
