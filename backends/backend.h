// What a machine must offer to run a graph. Nothing here throws; one thread drives a backend at a time.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backends/status.h"
#include "gguf-like-format/stored_tensor.h"
#include "graph/batch.h"
#include "graph/graph.h"
#include "graph/memory_plan.h"

namespace tessera {

// A stored tensor as the backend wants it: a view of the mapped file on the CPU, an uploaded copy on a
// device.
class AdoptedWeight {
 public:
  virtual ~AdoptedWeight() = default;
};
using WeightHandle = std::unique_ptr<AdoptedWeight>;

struct KvGeometry {
  size_t layers = 0;
  size_t kv_heads = 0;
  size_t head_dim = 0;            // a multiple of 8
  unsigned bits = 16;             // 16, 8 or 4
  size_t first_layers_16bit = 0;  // this many leading layers stay at 16 bits
  unsigned layer_bits(size_t layer) const { return layer < first_layers_16bit ? 16 : bits; }
};

// The KV cache's memory; its layout is the backend's own. Page ids are handed out by engine/kv_cache.
class KvStorage {
 public:
  virtual ~KvStorage() = default;
};

// A compiled graph: every choice is made, run only executes.
class Program {
 public:
  virtual ~Program() = default;
  // Runs one batch within the plan's limits. logits [output_rows, vocabulary] is filled row by row.
  virtual Status run(const Batch& batch, std::span<float> logits) = 0;
  // The most logits of a row that run_best can give; 0 where a backend gives all of them only.
  virtual size_t most_best() const { return 0; }
  // As run, but of every output row only the count best finite logits, best first: best [output_rows, count].
  // A row that has fewer ends in -infinity. For 1 <= count <= most_best().
  virtual Status run_best(const Batch& batch, size_t count, std::span<TokenLogit> best) {
    (void)batch, (void)count, (void)best;
    return Status::failure("this backend gives all logits or none");
  }
  // Seconds spent so far in each op of the graph, waiting for the slowest thread included; empty where a
  // backend does not measure.
  virtual std::vector<double> op_seconds() const { return {}; }
};

// What a device can do at most: bytes that a copy reads and writes, and 8-bit operations, in 10^9 a second.
struct DeviceLimits {
  double copy_gbps = 0;
  double int8_gops = 0;
};

// tokens rows of activations times a matrix of weights [rows, columns].
struct ProductShape {
  size_t rows = 0;
  size_t columns = 0;
  size_t tokens = 0;
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string describe() const = 0;  // "cpu avx512-vnni, 2 threads"
  // Free bytes of the memory that weights, cache and activations go to, where that is not the machine's.
  virtual std::optional<size_t> available_memory() const { return std::nullopt; }
  // What the device of such memory can do, measured now; nothing where the machine's limits are meant.
  virtual Result<std::optional<DeviceLimits>> measure_limits() { return std::optional<DeviceLimits>(); }
  // Seconds that the device's usual library takes for a dense product of 16- or 8-bit numbers, as a
  // yardstick; nothing where there is none.
  virtual std::optional<double> library_seconds(const ProductShape& shape, unsigned bits) {
    (void)shape, (void)bits;
    return std::nullopt;
  }
  // The bytes one KV page takes over all layers.
  virtual size_t kv_page_bytes(const KvGeometry& geometry) const = 0;
  virtual Result<std::unique_ptr<KvStorage>> create_kv(const KvGeometry& geometry, size_t pages) = 0;
  // The tensor's bytes must stay valid for as long as the handle lives.
  virtual Result<WeightHandle> adopt(const StoredTensor& tensor) = 0;
  // weights[i] belongs to graph.weights[i]. The graph, weights and kv must outlive the program.
  virtual Result<std::unique_ptr<Program>> compile(const Graph& graph, const MemoryPlan& plan,
                                                   std::span<const WeightHandle> weights, KvStorage& kv) = 0;
};

}  // namespace tessera
