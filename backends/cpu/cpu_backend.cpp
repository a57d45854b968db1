#include "backends/cpu/cpu_backend.h"

#include <fmt/format.h>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <functional>
#include <variant>

#include "backends/cpu/cpu_features.h"
#include "backends/cpu/instruction_sets.h"
#include "backends/cpu/kernels/kernels.h"
#include "backends/cpu/node.h"
#include "backends/cpu/thread_pool.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera {

namespace cpu {

namespace {

class CpuProgram : public Program {
 public:
  CpuProgram(const Graph& graph, const MemoryPlan& plan, std::span<const WeightHandle> weights, PagedKv& kv,
             const Kernels& kernels, ThreadPool& pool, const Placement& placement, ReservedMemory arena)
      : pool_(pool), kv_(kv), arena_(std::move(arena)) {
    NodeContext context;
    context.graph = &graph;
    context.kernels = &kernels;
    context.threads = pool.size();
    context.kv = &kv;
    context.split_attention = &split_attention_;
    if (placement.mode != NumaMode::off) context.placement = &placement;
    context.weights = weights;
    context.run = &run_;
    for (size_t i = 0; i < graph.tensors.size(); ++i) {
      const Tensor& tensor = graph.tensors[i];
      std::byte* base = i == graph.logits ? nullptr : arena_.base() + plan.offset[i];
      context.views.push_back({base, plan.stride[i], tensor.columns, tensor.rows, tensor.type});
    }
    for (size_t number = 0; number < graph.ops.size(); ++number) {
      const Op& op = graph.ops[number];
      std::visit([&](const auto& kind) { add_nodes(context, op, kind); }, op.kind);
      node_op_.resize(nodes_.size(), number);
    }
    op_seconds_.resize(graph.ops.size());
    size_t scratch = 64;
    for (const auto& node : nodes_) scratch = std::max(scratch, node->scratch_bytes());
    scratch = tile::round_up(scratch, 4096) + 4096;
    scratch_.resize(pool.size());
    for (std::vector<std::byte>& memory : scratch_) memory.resize(scratch);
    job_ = [this](size_t thread) { run_nodes(thread); };
    ready_ = split_attention_.allocate();
  }

  bool ready() const { return ready_; }

  std::vector<double> op_seconds() const override { return op_seconds_; }

 protected:
  Status execute(const Batch& batch, std::span<float> logits) override {
    run_.batch = &batch;
    run_.logits = logits.data();
    set_positions(batch);
    for (const BatchSequence& sequence : batch.sequences)
      kv_.expect_tokens(sequence.position + sequence.token_count);
    for (const auto& node : nodes_) node->prepare(run_);
    pool_.run(job_);
    return Status::success();
  }

 private:
  // Attention stores the new keys and values before it reads them; every other op is one node.
  void add_nodes(const NodeContext& context, const Op& op, const Attention& attention) {
    nodes_.push_back(make_kv_store_node(context, op, attention));
    nodes_.push_back(make_attend_node(context, op, attention));
  }
  template <class Kind>
  void add_nodes(const NodeContext& context, const Op& op, const Kind& kind) {
    nodes_.push_back(make_node(context, op, kind));
  }

  void run_nodes(size_t thread) {
    // A line-aligned view of this thread's scratch.
    std::vector<std::byte>& memory = scratch_[thread];
    const size_t skip = (4096 - reinterpret_cast<uintptr_t>(memory.data()) % 4096) % 4096;
    const std::span<std::byte> scratch(memory.data() + skip, memory.size() - skip);
    auto begun = std::chrono::steady_clock::now();
    for (size_t i = 0; i < nodes_.size(); ++i) {
      nodes_[i]->execute(run_, thread, scratch);
      pool_.barrier();
      if (thread != 0) continue;
      const auto now = std::chrono::steady_clock::now();
      op_seconds_[node_op_[i]] += std::chrono::duration<double>(now - begun).count();
      begun = now;
    }
  }

  // Positions of all rows, and cosines and sines for them.
  void set_positions(const Batch& batch) {
    run_.position.resize(batch.tokens.size());
    for (const BatchSequence& sequence : batch.sequences) {
      for (size_t i = 0; i < sequence.token_count; ++i) {
        run_.position[sequence.first_row + i] = sequence.position + i;
      }
    }
    for (RopeTable& table : run_.rope) {
      const size_t half = table.half();
      table.cosines.resize(batch.tokens.size() * half);
      table.sines.resize(batch.tokens.size() * half);
      for (size_t row = 0; row < batch.tokens.size(); ++row) {
        for (size_t i = 0; i < half; ++i) {
          const double angle = static_cast<double>(run_.position[row]) * table.inverse_frequency[i];
          table.cosines[row * half + i] = static_cast<float>(std::cos(angle));
          table.sines[row * half + i] = static_cast<float>(std::sin(angle));
        }
      }
    }
  }

  ThreadPool& pool_;
  PagedKv& kv_;
  ReservedMemory arena_;
  SplitAttention split_attention_;
  NodeList nodes_;
  std::vector<size_t> node_op_;     // the op that a node belongs to
  std::vector<double> op_seconds_;  // written by thread 0
  RunState run_;
  std::vector<std::vector<std::byte>> scratch_;
  std::function<void(size_t)> job_;
  bool ready_ = false;
};

class CpuBackend : public Backend {
 public:
  CpuBackend(const Kernels& kernels, size_t threads, NumaMode mode, const std::string& node_folder)
      : kernels_(kernels),
        pool_(threads, mode == NumaMode::local ? Pinning::enough_cores : Pinning::every_core) {
    if (mode == NumaMode::off) return;
    const MemoryNodes nodes = MemoryNodes::detect(node_folder);
    nodes_ = nodes.count();
    if (nodes_ == 1) return;
    placement_.mode = mode;
    placement_.nodes = nodes.nodes();
    for (size_t i = 0; i < pool_.size(); ++i) {
      const std::optional<size_t> core = pool_.core_of(i);
      // A thread that is not pinned has no node of its own, so its weights are interleaved.
      if (!core && mode == NumaMode::local) placement_.mode = NumaMode::interleave;
      placement_.node_of_thread.push_back(core ? nodes.node_of(*core) : nodes.nodes().front());
    }
  }

  std::string describe() const override {
    std::string text =
        fmt::format("cpu {}, {} {}", kernels_.name, pool_.size(), pool_.size() == 1 ? "thread" : "threads");
    if (nodes_ == 1) text += ", one memory node: nothing to place";
    if (nodes_ > 1)
      text += fmt::format(
          ", weights {} {} memory nodes",
          placement_.mode == NumaMode::local ? "local to their threads on" : "interleaved over", nodes_);
    return text;
  }

  KvPageBytes kv_page_bytes(const KvGeometry& geometry) const override {
    return PagedKv::page_bytes(geometry);
  }

 protected:
  Result<std::unique_ptr<KvStorage>> make_kv(const KvGeometry& geometry, size_t pages) override {
    return PagedKv::create(geometry, pages);
  }

  Result<WeightHandle> make_weight(const StoredTensor& tensor) override {
    return Result<WeightHandle>(std::make_unique<CpuWeight>(tensor));
  }

  Result<std::unique_ptr<Program>> make_program(const Graph& graph, const MemoryPlan& plan,
                                                std::span<const WeightHandle> weights,
                                                KvStorage& kv) override {
    using Made = Result<std::unique_ptr<Program>>;
    ReservedMemory arena(plan.arena_bytes);
    if (arena.size() != plan.arena_bytes)
      return Made::failure(fmt::format("{} bytes of working memory are not available", plan.arena_bytes));
    auto program = std::make_unique<CpuProgram>(graph, plan, weights, static_cast<PagedKv&>(kv), kernels_,
                                                pool_, placement_, std::move(arena));
    if (!program->ready()) return Made::failure("working memory for attention is not available");
    return Made(std::move(program));
  }

 private:
  const Kernels& kernels_;
  ThreadPool pool_;
  size_t nodes_ = 0;  // memory nodes; 0 where weights are not placed
  Placement placement_;
};

}  // namespace

}  // namespace cpu

std::vector<std::string_view> usable_instruction_sets() { return cpu::usable_instruction_set_names(); }

Result<std::unique_ptr<Backend>> make_cpu_backend(const CpuBackendOptions& options) {
  using Made = Result<std::unique_ptr<Backend>>;
  const std::vector<std::string_view> usable = usable_instruction_sets();
  const std::string_view isa = options.isa == "auto" ? usable.front() : std::string_view(options.isa);
  const cpu::Kernels* kernels = cpu::find_kernels(isa);
  if (kernels == nullptr) {
    return Made::failure(
        fmt::format("instruction set {}: this machine offers {}", isa, fmt::join(usable, ", ")));
  }
  const size_t threads = options.threads == 0 ? cpu::usable_threads() : options.threads;
  const cpu::NumaMode mode = options.numa == "local"        ? cpu::NumaMode::local
                             : options.numa == "interleave" ? cpu::NumaMode::interleave
                                                            : cpu::NumaMode::off;
  return Made(std::make_unique<cpu::CpuBackend>(*kernels, threads, mode, options.node_folder));
}

}  // namespace tessera
