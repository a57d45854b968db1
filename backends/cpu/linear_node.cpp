// Matrix products: the panels of all parts are cut into tasks for the threads.
#include <algorithm>

#include "backends/cpu/matrix_part.h"
#include "backends/cpu/node.h"
#include "backends/cpu/task_ranges.h"

namespace tessera::cpu {

namespace {

// An expanded block stays in a 1 MiB L2 beside the activations that stream past it.
constexpr size_t kExpandedBlockBytes = size_t{512} * 1024;
constexpr size_t kBlockPanels = 4;
// Up to this many tokens a product is bound by reading the weights, and tasks are cut for streaming.
constexpr size_t kStreamedTokens = 8;

struct Task {
  size_t part = 0;
  PanelRange panels;
};

class LinearNode : public Node {
 public:
  LinearNode(const NodeContext& context, const Op& op, const Linear& linear)
      : x_(context.views[op.inputs[0]]),
        y_(context.views[op.outputs[0]]),
        threads_(context.threads),
        ranges_(context.threads) {
    size_t column = 0;
    size_t bytes = 0;
    for (const LinearPart& source : linear.parts) {
      const float* bias = source.bias ? context.vector(*source.bias) : nullptr;
      parts_.emplace_back(*context.kernels, context.weight(source.weight), bias, column);
      column += parts_.back().rows();
      bytes += parts_.back().panels_bytes();
    }
    // Streaming tasks: small enough to balance, large enough that hardware prefetch keeps its stride.
    const size_t target = std::clamp(bytes / (context.threads * 32), size_t{16} * 1024, size_t{128} * 1024);
    for (size_t p = 0; p < parts_.size(); ++p) {
      cut(p, std::max<size_t>(1, target / parts_[p].panel_bytes()), few_);
      const size_t expanded = parts_[p].expanded_bytes();
      const size_t fit = expanded == 0 ? kBlockPanels : std::max<size_t>(2, kExpandedBlockBytes / expanded);
      const size_t panels = std::min(fit, kBlockPanels);
      cut(p, panels, many_);
      scratch_ = std::max(scratch_, panels * expanded);
    }
    if (context.placement != nullptr) place(*context.placement);
  }

  void prepare(const RunState& run) override {
    const size_t tokens = y_.rows(run);
    ranges_.deal(tokens == 0 ? 0 : (tokens <= kStreamedTokens ? few_ : many_).size());
  }

  void execute(const RunState& run, size_t thread, std::span<std::byte> scratch) override {
    const std::vector<Task>& tasks = y_.rows(run) <= kStreamedTokens ? few_ : many_;
    for (size_t task = ranges_.next_task(thread); task != TaskRanges::kNone; task = ranges_.next_task(thread))
      parts_[tasks[task].part].multiply(run, x_, y_, tasks[task].panels, scratch);
  }

  size_t scratch_bytes() const override { return scratch_; }

 private:
  // Copies every part to where the threads that begin with its rows have their memory; without memory for a
  // copy a part stays where it is.
  void place(const Placement& placement) {
    for (size_t p = 0; p < parts_.size(); ++p) {
      std::vector<ThreadShare> shares;
      for (size_t thread = 0; thread < threads_; ++thread) {
        const size_t end = TaskRanges::first(few_.size(), thread + 1, threads_);
        for (size_t task = TaskRanges::first(few_.size(), thread, threads_); task < end; ++task) {
          if (few_[task].part != p) continue;
          const size_t begin = few_[task].panels.first * parts_[p].panel_bytes();
          shares.push_back({begin, begin + few_[task].panels.count * parts_[p].panel_bytes(), thread});
        }
      }
      ReservedMemory copy = place_copy(placement, parts_[p].bytes(), shares);
      if (copy.base() == nullptr) continue;
      parts_[p].move_to(copy.base());
      copies_.push_back(std::move(copy));
    }
  }

  void cut(size_t part, size_t panels, std::vector<Task>& tasks) const {
    const size_t all = parts_[part].panels();
    for (size_t first = 0; first < all; first += panels)
      tasks.push_back({part, {first, std::min(panels, all - first)}});
  }

  View x_;
  View y_;
  size_t threads_;
  TaskRanges ranges_;
  std::vector<MatrixPart> parts_;
  std::vector<ReservedMemory> copies_;
  std::vector<Task> few_;  // up to kStreamedTokens tokens
  std::vector<Task> many_;
  size_t scratch_ = 0;
};

}  // namespace

std::unique_ptr<Node> make_node(const NodeContext& context, const Op& op, const Linear& linear) {
  return std::make_unique<LinearNode>(context, op, linear);
}

}  // namespace tessera::cpu
