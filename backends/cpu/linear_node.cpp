// Matrix products: cuts the panels of all parts into tasks and feeds them to the kernels. Few tokens read
// 4-bit codes directly; many tokens expand a block of panels to bytes once, in cache, and reuse it for every
// token.
#include <algorithm>

#include "backends/cpu/node.h"
#include "engine/graph/q8_row.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera::cpu {

namespace {

// An expanded block stays in a 1 MiB L2 beside the activations that stream past it.
constexpr size_t kExpandedBlockBytes = size_t{512} * 1024;
constexpr size_t kExpandedBlockPanels = 4;
// Up to this many tokens a product is bound by reading the weights, and tasks are cut for streaming.
constexpr size_t kStreamedTokens = 8;

struct Part {
  Scheme scheme = Scheme::f32;
  const uint8_t* panels = nullptr;
  size_t panel_bytes = 0;
  size_t rows = 0;
  size_t stored_columns = 0;
  const float* scales = nullptr;
  const uint8_t* zeros = nullptr;
  const float* bias = nullptr;
  size_t first_column = 0;  // of y
};

struct Task {
  size_t part = 0;
  size_t first_panel = 0;
  size_t panels = 0;
};

bool has_codes(Scheme scheme) { return scheme == Scheme::w4a8 || scheme == Scheme::w4a8_g128; }

class LinearNode : public Node {
 public:
  LinearNode(const NodeContext& context, const Op& op, const Linear& linear)
      : kernels_(*context.kernels),
        x_(context.views[op.inputs[0]]),
        y_(context.views[op.outputs[0]]),
        threads_(context.threads),
        ranges_(std::make_unique<Range[]>(context.threads)) {
    size_t column = 0;
    size_t bytes = 0;
    for (const LinearPart& source : linear.parts) {
      const StoredTensor& weight = context.weight(source.weight);
      const auto* base = reinterpret_cast<const uint8_t*>(weight.bytes.data());
      Part part;
      part.scheme = weight.scheme;
      part.panels = base;
      part.panel_bytes = panel_bytes(weight.scheme, weight.columns());
      part.rows = weight.rows();
      part.stored_columns = padded_columns(weight.scheme, weight.columns());
      if (activation_type(weight.scheme) == ActivationType::int8) {
        const RowTail tail = row_tail(weight.scheme, weight.rows(), weight.columns());
        part.scales = reinterpret_cast<const float*>(base + tail.scales);
        if (weight.scheme == Scheme::w4a8) part.zeros = base + tail.zeros;
      }
      if (source.bias) part.bias = context.vector(*source.bias);
      part.first_column = column;
      column += part.rows;
      bytes += part.panel_bytes * panels_of(part);
      parts_.push_back(part);
    }
    // Streaming tasks: small enough to balance, large enough that hardware prefetch keeps its stride.
    const size_t target = std::clamp(bytes / (context.threads * 32), size_t{16} * 1024, size_t{128} * 1024);
    for (size_t p = 0; p < parts_.size(); ++p) {
      cut(p, std::max<size_t>(1, target / parts_[p].panel_bytes), few_);
      const size_t expanded = parts_[p].stored_columns * tile::kPanelRows;
      const size_t fit = std::max<size_t>(2, kExpandedBlockBytes / expanded);
      const size_t panels =
          has_codes(parts_[p].scheme) ? std::min(fit, kExpandedBlockPanels) : kExpandedBlockPanels;
      cut(p, panels, many_);
      if (has_codes(parts_[p].scheme)) scratch_ = std::max(scratch_, panels * expanded);
    }
  }

  void prepare(const RunState& run) override {
    const size_t tokens = y_.rows(run);
    const size_t tasks = tokens == 0 ? 0 : (tokens <= kStreamedTokens ? few_ : many_).size();
    for (size_t t = 0; t < threads_; ++t) {
      ranges_[t].next.store(tasks * t / threads_, std::memory_order_relaxed);
      ranges_[t].end = tasks * (t + 1) / threads_;
    }
  }

  void execute(const RunState& run, size_t thread, std::span<std::byte> scratch) override {
    const size_t tokens = y_.rows(run);
    if (tokens == 0) return;
    const std::vector<Task>& tasks = tokens <= kStreamedTokens ? few_ : many_;
    for (size_t i = 0; i < threads_; ++i) {
      Range& range = ranges_[(thread + i) % threads_];  // its own first, then what others have left
      for (size_t task = range.take(); task < range.end; task = range.take()) {
        const Part& part = parts_[tasks[task].part];
        if (activation_type(part.scheme) == ActivationType::int8) {
          run_integer(run, part, tasks[task], tokens, reinterpret_cast<uint8_t*>(scratch.data()));
        } else {
          run_float(run, part, tasks[task], tokens);
        }
      }
    }
  }

  size_t scratch_bytes() const override { return scratch_; }

 private:
  static size_t panels_of(const Part& part) { return (part.rows + tile::kPanelRows - 1) / tile::kPanelRows; }

  void cut(size_t part, size_t panels, std::vector<Task>& tasks) const {
    for (size_t first = 0; first < panels_of(parts_[part]); first += panels) {
      tasks.push_back({part, first, std::min(panels, panels_of(parts_[part]) - first)});
    }
  }

  static size_t rows_of(const Part& part, const Task& task) {
    return std::min(task.panels * tile::kPanelRows, part.rows - task.first_panel * tile::kPanelRows);
  }

  void run_integer(const RunState& run, const Part& part, const Task& task, size_t tokens,
                   uint8_t* scratch) const {
    const size_t first_row = task.first_panel * tile::kPanelRows;
    const uint8_t* panels = part.panels + task.first_panel * part.panel_bytes;
    IntegerProduct job{
        .panels = panels,
        .panel_stride = part.panel_bytes,
        .rows = rows_of(part, task),
        .columns = part.stored_columns,
        .x = x_.bytes(0),
        .x_stride = x_.stride,
        .x_scale_offset = q8::scale_offset(x_.columns),
        .tokens = tokens,
        .row_scale = part.scales + first_row,
        .row_zero = part.zeros != nullptr ? part.zeros + first_row : nullptr,
        .bias = part.bias != nullptr ? part.bias + first_row : nullptr,
        .y = y_.floats(run, 0) + part.first_column + first_row,
        .y_stride = y_stride(),
    };
    if (has_codes(part.scheme) && tokens <= kernels_.code_tokens) {
      (part.scheme == Scheme::w4a8 ? kernels_.product_codes_w4 : kernels_.product_codes_g128)(job);
      return;
    }
    if (has_codes(part.scheme)) {
      const auto expand = part.scheme == Scheme::w4a8 ? kernels_.expand_w4 : kernels_.expand_g128;
      job.panel_stride = part.stored_columns * tile::kPanelRows;
      job.panels = scratch;
      for (size_t p = 0; p < task.panels; ++p) {
        expand(panels + p * part.panel_bytes, part.stored_columns, scratch + p * job.panel_stride);
      }
    }
    kernels_.product_bytes(job);
  }

  void run_float(const RunState& run, const Part& part, const Task& task, size_t tokens) const {
    const size_t first_row = task.first_panel * tile::kPanelRows;
    const FloatProduct job{
        .panels = part.panels + task.first_panel * part.panel_bytes,
        .panel_stride = part.panel_bytes,
        .rows = rows_of(part, task),
        .columns = x_.columns,
        .x = x_.floats(run, 0),
        .x_stride = x_.stride / sizeof(float),
        .tokens = tokens,
        .bias = part.bias != nullptr ? part.bias + first_row : nullptr,
        .y = y_.floats(run, 0) + part.first_column + first_row,
        .y_stride = y_stride(),
        .accumulate = false,
    };
    if (part.scheme == Scheme::f32) {
      kernels_.product_f32(job);
    } else {
      (part.scheme == Scheme::f16 ? kernels_.product_f16 : kernels_.product_bf16)(job);
    }
  }

  size_t y_stride() const { return y_.base == nullptr ? y_.columns : y_.stride / sizeof(float); }

  // Each thread begins with a share of neighbouring tasks, so that it reads one long stretch of memory, and
  // helps with the other shares when its own is done.
  struct alignas(64) Range {
    std::atomic<size_t> next{0};
    size_t end = 0;
    size_t take() { return next.fetch_add(1, std::memory_order_relaxed); }
  };

  const Kernels& kernels_;
  View x_;
  View y_;
  size_t threads_;
  std::unique_ptr<Range[]> ranges_;
  std::vector<Part> parts_;
  std::vector<Task> few_;  // up to kStreamedTokens tokens
  std::vector<Task> many_;
  size_t scratch_ = 0;
};

}  // namespace

std::unique_ptr<Node> make_node(const NodeContext& context, const Op& op, const Linear& linear) {
  return std::make_unique<LinearNode>(context, op, linear);
}

}  // namespace tessera::cpu
