// The interface of a machine that runs graphs. Public functions check everything that they are given, once
// for all backends; what a backend implements is protected and relies on that. No function throws, and one
// thread drives a backend at a time.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backends/check_batch.h"
#include "backends/status.h"
#include "gguf-like-format/stored_tensor.h"
#include "graph/batch.h"
#include "graph/graph.h"
#include "graph/memory_plan.h"

namespace tessera {

// Different for every backend object of a process; 0 is none.
using BackendId = uint64_t;

// A stored tensor in the form that a backend computes with: a view of the mapped file on the CPU, an uploaded
// copy on a device. Only the backend that adopted it can use it.
class AdoptedWeight {
 public:
  explicit AdoptedWeight(const StoredTensor& tensor) : scheme_(tensor.scheme), shape_(tensor.shape) {}
  virtual ~AdoptedWeight() = default;
  AdoptedWeight(const AdoptedWeight&) = delete;
  AdoptedWeight& operator=(const AdoptedWeight&) = delete;

  Scheme scheme() const { return scheme_; }
  std::span<const uint64_t> shape() const { return shape_; }  // [length] or [rows, columns]
  size_t rows() const { return shape_.size() == 2 ? static_cast<size_t>(shape_[0]) : 1; }
  size_t columns() const { return static_cast<size_t>(shape_.back()); }
  BackendId backend() const { return backend_; }

 private:
  friend class Backend;
  Scheme scheme_;
  std::vector<uint64_t> shape_;
  BackendId backend_ = 0;
};
using WeightHandle = std::unique_ptr<AdoptedWeight>;

struct KvGeometry {
  size_t layers = 0;
  size_t kv_heads = 0;
  size_t head_dim = 0;            // a multiple of 8
  unsigned bits = 16;             // 16, 8 or 4
  size_t first_layers_16bit = 0;  // number of leading layers that stay at 16 bits
  // Layers whose attention has a window take their pages from a pool of their own, which has window_pages
  // pages: a page that no later token sees is used again. Layers beyond the end of slides do not.
  std::vector<bool> slides = {};
  size_t window_pages = 0;

  unsigned layer_bits(size_t layer) const { return layer < first_layers_16bit ? 16 : bits; }
  bool layer_slides(size_t layer) const { return layer < slides.size() && slides[layer]; }
  bool any_slides() const { return std::find(slides.begin(), slides.end(), true) != slides.end(); }
  // Pages of a layer, where layers without a window have `pages`.
  size_t layer_pages(size_t layer, size_t pages) const { return layer_slides(layer) ? window_pages : pages; }
};

// Bytes of one KV page: over the layers that see every token, and over those with a window.
struct KvPageBytes {
  size_t full = 0;
  size_t window = 0;
};

// The memory of a KV cache; its layout is the backend's own. Page ids are 0 … pages - 1, or 0 … window_pages
// - 1 in layers with a window; engine/kv_cache decides which sequence holds which page.
class KvStorage {
 public:
  KvStorage(const KvGeometry& geometry, size_t pages) : geometry_(geometry), pages_(pages) {}
  virtual ~KvStorage() = default;
  KvStorage(const KvStorage&) = delete;
  KvStorage& operator=(const KvStorage&) = delete;

  const KvGeometry& geometry() const { return geometry_; }
  size_t pages() const { return pages_; }
  BackendId backend() const { return backend_; }

 private:
  friend class Backend;
  KvGeometry geometry_;
  size_t pages_;
  BackendId backend_ = 0;
};

// A compiled graph: every choice is made, run only executes.
class Program {
 public:
  virtual ~Program() = default;

  // Runs one batch within the plan's limits and writes logits [output_rows, vocabulary] at the beginning of
  // the span. Fails with one line for a batch that cannot run (check_batch.h); nothing has been computed
  // then, and the program can be used further. A batch without tokens does nothing.
  Status run(const Batch& batch, std::span<float> logits);

  // The largest count that run_best accepts; 0 where a backend only gives all logits.
  virtual size_t most_best() const { return 0; }

  // As run, but writes only the count largest finite logits of every output row, largest first: best
  // [output_rows, count]. A row with fewer finite logits ends in entries of -infinity. 1 <= count <=
  // most_best().
  Status run_best(const Batch& batch, size_t count, std::span<TokenLogit> best);

  // Seconds spent so far in each op of the graph, including waiting for the slowest thread; empty where a
  // backend does not measure.
  virtual std::vector<double> op_seconds() const { return {}; }

 protected:
  // What run and run_best do, for a batch without faults that has at least one token. logits is
  // [output_rows, vocabulary] and best is [output_rows, count], exactly.
  virtual Status execute(const Batch& batch, std::span<float> logits) = 0;
  virtual Status execute_best(const Batch& batch, size_t count, std::span<TokenLogit> best) {
    (void)batch, (void)count, (void)best;
    return Status::failure("this backend gives all logits or none");
  }

 private:
  friend class Backend;
  BatchLimits limits_;  // set by Backend::compile
};

// Measured limits of a device: bytes that a copy reads and writes, and 8-bit operations, in 10^9 a second.
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
  Backend(const Backend&) = delete;
  Backend& operator=(const Backend&) = delete;

  virtual std::string describe() const = 0;  // "cpu avx512-vnni, 2 threads"

  // Free bytes of the device memory that weights, cache and activations are put into; nothing where that is
  // the machine's own memory.
  virtual std::optional<size_t> available_memory() const { return std::nullopt; }

  // What the device can do, measured now; nothing where the machine's own limits apply.
  virtual Result<std::optional<DeviceLimits>> measure_limits() { return std::optional<DeviceLimits>(); }

  // Seconds that the device's standard library takes for a dense product of 16- or 8-bit numbers, for
  // comparison; nothing where there is no such library.
  virtual std::optional<double> library_seconds(const ProductShape& shape, unsigned bits) {
    (void)shape, (void)bits;
    return std::nullopt;
  }

  virtual KvPageBytes kv_page_bytes(const KvGeometry& geometry) const = 0;

  // A cache of this many pages. Fails with one line for a geometry that cannot be, or without memory.
  Result<std::unique_ptr<KvStorage>> create_kv(const KvGeometry& geometry, size_t pages);

  // The tensor's bytes must stay valid for as long as the handle lives. Fails with one line that names the
  // tensor: no weights, bytes that do not fit its shape, or what the backend has no kernels or memory for.
  Result<WeightHandle> adopt(const StoredTensor& tensor);

  // A program that runs the graph. weights[i] belongs to graph.weights[i]. The backend, graph, weights and kv
  // must outlive the program. Fails with one line where any of these do not fit together (check_program.h),
  // or for what the backend has no kernels or memory for.
  Result<std::unique_ptr<Program>> compile(const Graph& graph, const MemoryPlan& plan,
                                           std::span<const WeightHandle> weights, KvStorage& kv);

 protected:
  Backend();

  // The work behind create_kv, adopt and compile, with arguments that have passed all checks: weights and kv
  // were made by this very object, so they may be cast to its own types. May throw std::bad_alloc and
  // std::length_error, which become a failure.
  virtual Result<std::unique_ptr<KvStorage>> make_kv(const KvGeometry& geometry, size_t pages) = 0;
  virtual Result<WeightHandle> make_weight(const StoredTensor& tensor) = 0;
  virtual Result<std::unique_ptr<Program>> make_program(const Graph& graph, const MemoryPlan& plan,
                                                        std::span<const WeightHandle> weights,
                                                        KvStorage& kv) = 0;

 private:
  const BackendId id_;
};

}  // namespace tessera
