// Tokens in, tokens out: what commands talk to. Owns the backend's program and the KV cache for one model.
// Everything here throws std::runtime_error with one line for what a user can cause. One thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backends/backend.h"
#include "engine/kv_cache/page_allocator.h"
#include "engine/measure/product_speed.h"
#include "engine/placement.h"
#include "graph/graph.h"

namespace tessera {

class Model;

struct SessionOptions {
  std::string backend = "cpu";  // "cpu", "reference", or "cuda" where the build has it
  std::string isa = "auto";     // "auto", "avx512", "avx2", "portable"
  std::optional<size_t>
      gpu_layers;              // of backend cuda: the last so many layers, the rest on cpu; all that fit
  size_t threads = 0;          // 0: the cores this process may use
  std::string numa = "off";    // "local", "interleave": where weights lie on machines of several memory nodes
  size_t context = 0;          // tokens of KV cache in all; 0: the model's own length, limited by free memory
  unsigned kv_bits = 0;        // 16, 8, 4; 0: what the file recommends
  size_t kv_first_layers = 0;  // this many leading layers keep a 16-bit KV cache
  size_t batch = 512;          // most tokens in one run: longer prompts go in chunks
  size_t max_outputs = 64;     // most logits rows in one run
};

struct MemoryFigures {
  size_t weight_bytes = 0;
  size_t kv_bytes = 0;
  size_t activation_bytes = 0;
  size_t context = 0;  // tokens the KV cache holds
  unsigned kv_bits = 0;
  size_t available_bytes = 0;      // what the machine (or cgroup), or the device, has left before loading
  std::vector<Place> places = {};  // one, or those that the sums above are over
};

using SequenceId = size_t;

// Some new tokens of one sequence and which of them should give logits.
struct SequenceInput {
  SequenceId sequence;
  std::span<const uint32_t> tokens;  // at least one
  enum class Want : uint8_t { none, last, all } want = Want::last;
};

class Session {
 public:
  // Plans memory first and throws, with the numbers, when it cannot fit. The model must outlive the session.
  Session(const Model& model, const SessionOptions& options);
  ~Session();

  const Model& model() const;
  const MemoryFigures& memory() const;
  std::string backend_description() const;
  size_t context() const;       // most tokens one sequence can hold: min(KV capacity, the model's context)
  size_t pages_in_use() const;  // KV pages held by living sequences

  SequenceId create_sequence();
  void release(SequenceId sequence);  // its pages go back
  void truncate(SequenceId sequence,
                size_t token_count);         // forgets everything after the first token_count tokens
  size_t length(SequenceId sequence) const;  // tokens in the cache
  const std::vector<uint32_t>& tokens(SequenceId sequence) const;

  // Seconds that all ops of one kind ("attention", "linear", …) took so far; 0 where the backend does not
  // measure.
  double op_seconds(std::string_view kind) const;

  bool measures_ops() const;
  // Limits of the device that has the weights of that one of memory().places, measured now; nothing where
  // they lie in the machine's memory.
  std::optional<DeviceLimits> measure_limits(size_t place);
  // How fast the kinds of matrix products in that place are with so many tokens.
  std::vector<ProductSpeed> measure_products(size_t tokens, size_t place);
  // Seconds that the attention of all layers takes for one token behind so many others, which must fit the
  // context. Only while no sequence holds tokens, and with one place.
  double measure_attention(size_t position);

  // Runs the inputs, in chunks when they exceed the batch size, and returns the wanted logits rows in the
  // order of the inputs, [rows, vocabulary] flat; the view stays valid until the next call. Throws when the
  // cache is full (then nothing is appended).
  std::span<float> run(std::span<const SequenceInput> inputs);

  // Whether run_best can be asked for the count best logits of a row, which is less than all of them.
  bool gives_best(size_t count) const;
  // As run, but of every wanted row only the count best finite logits, best first, [rows, count] flat; a row
  // that has fewer ends in -infinity. Only where gives_best(count).
  std::span<const TokenLogit> run_best(std::span<const SequenceInput> inputs, size_t count);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Names the devices and instruction sets this binary can use here, one per line, for --list-devices.
std::string list_devices();

}  // namespace tessera
