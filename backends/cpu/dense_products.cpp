#include "backends/cpu/dense_products.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <vector>

#include "backends/cpu/cpu_features.h"
#include "backends/cpu/instruction_sets.h"
#include "backends/cpu/kernels/kernels.h"
#include "backends/cpu/thread_pool.h"
#include "gguf-like-format/float_types.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera {

namespace cpu {

namespace {

using Precision = DenseProduct::Precision;

constexpr size_t kPanelRows = tile::kPanelRows;

// Columns multiplied at a time: the longer, the less often results are fetched and stored, until rows of a no
// longer fit L1. Sums go over whole chunks in order, which fixes every result whatever the number of threads.
constexpr size_t kDepth = 1024;
// Rows of a and panels of b that one task multiplies: 256 KiB and at most 512 KiB, together within a 1 MiB
// L2.
constexpr size_t kTaskRows = 64;
constexpr size_t kTaskPanels = 8;
// Panels packed before a round of tasks: at most 4 MiB shared by all threads.
constexpr size_t kRoundPanels = 64;
// Distance of copied rows of a: no multiple of half a page.
constexpr size_t kCopyStride = kDepth + 16;
constexpr size_t kPairStride = kDepth / 2 + 16;
constexpr size_t kACopyBytes = kTaskRows * kCopyStride * sizeof(float);
constexpr size_t kTasksPerThread = 4;  // at least: then threads finish at about the same time

// Memory that starts on a cache line, so that no vector load crosses two.
class Lines {
 public:
  // Contents are lost when it grows.
  std::byte* reserve(size_t bytes) {
    if (memory_.size() < bytes + kLine) memory_.resize(bytes + kLine);
    const auto address = reinterpret_cast<uintptr_t>(memory_.data());
    return memory_.data() + (kLine - address % kLine) % kLine;
  }

 private:
  static constexpr size_t kLine = 64;
  std::vector<std::byte> memory_;
};

// 16 rows of b (fewer in the last panel; the rest become zero) as one f32 panel of `depth` columns.
void pack_f32(const float* b, size_t stride, size_t rows, size_t depth, float* panel) {
  if (rows < kPanelRows) std::fill(panel, panel + depth * kPanelRows, 0.0f);
  size_t row = 0;
  // Four rows at a time: rows a power of two apart share a set of the cache, which holds few of them.
  for (; row + 4 <= rows; row += 4) {
    const float* first = b + row * stride;
    float* out = panel + row;
    for (size_t k = 0; k < depth; ++k) {
      for (size_t r = 0; r < 4; ++r) out[k * kPanelRows + r] = first[r * stride + k];
    }
  }
  for (; row < rows; ++row) {
    for (size_t k = 0; k < depth; ++k) panel[k * kPanelRows + row] = b[row * stride + k];
  }
}

// The same as a bf16 panel; an odd number of columns gets one more of zeros.
void pack_bf16(const float* b, size_t stride, size_t rows, size_t depth, uint32_t* panel) {
  const size_t pairs = (depth + 1) / 2;
  if (rows < kPanelRows) std::fill(panel, panel + pairs * kPanelRows, 0u);
  for (size_t row = 0; row < rows; ++row) {
    const float* from = b + row * stride;
    for (size_t i = 0; i < depth / 2; ++i) {
      panel[i * kPanelRows + row] =
          uint32_t{f32_to_bf16(from[2 * i])} | (uint32_t{f32_to_bf16(from[2 * i + 1])} << 16);
    }
    if (depth % 2 != 0) panel[(pairs - 1) * kPanelRows + row] = f32_to_bf16(from[depth - 1]);
  }
}

static_assert(tile::element_in_panel(3, 5) == 5 * kPanelRows + 3 &&
                  tile::bf16_in_panel(3, 5) == 2 * (2 * kPanelRows + 3) + 1,
              "panels are packed as the kernels read them");

class CpuDenseProducts : public DenseProducts {
 public:
  CpuDenseProducts(const Kernels& kernels, size_t threads)
      : kernels_(kernels.floats),
        pairs_(kernels.floats.bf16_pairs),
        pool_(threads),
        a_copies_(pool_.size()) {}

  void multiply(const DenseProduct& job) override {
    if (job.m == 0 || job.n == 0) return;
    if (job.k == 0) {
      for (size_t row = 0; row < job.m && !job.accumulate; ++row)
        std::fill_n(job.out + row * job.out_stride, job.n, 0.0f);
      return;
    }
    const size_t panels = (job.n + kPanelRows - 1) / kPanelRows;
    for (size_t first_k = 0; first_k < job.k; first_k += kDepth) {
      for (size_t first = 0; first < panels; first += kRoundPanels)
        run_round(job, first_k, first, std::min(kRoundPanels, panels - first));
    }
  }

  void for_each(size_t count, const std::function<void(size_t, size_t)>& work) override {
    std::atomic<size_t> next{0};
    pool_.run([&](size_t thread) {
      for (size_t task = next.fetch_add(1); task < count; task = next.fetch_add(1)) work(task, thread);
    });
  }

  size_t threads() const override { return pool_.size(); }

 private:
  // One chunk of columns times some panels of b: all threads pack, then all multiply.
  struct Round {
    const DenseProduct* job;
    size_t first_k;
    size_t depth;
    size_t first_panel;
    size_t panels;
    size_t task_rows;
    size_t task_panels;
    size_t panel_stride;  // bytes
    std::byte* packed;
  };

  void run_round(const DenseProduct& job, size_t first_k, size_t first_panel, size_t panels) {
    Round round{&job,      first_k,     std::min(kDepth, job.k - first_k),   first_panel, panels,
                kTaskRows, kTaskPanels, kDepth * kPanelRows * sizeof(float), nullptr};
    const auto tasks = [&] { return row_blocks(round) * panel_blocks(round); };
    while (round.task_panels > 1 && tasks() < kTasksPerThread * pool_.size()) round.task_panels /= 2;
    while (round.task_rows > 8 && tasks() < kTasksPerThread * pool_.size()) round.task_rows /= 2;
    round.packed = packed_.reserve(panels * round.panel_stride);
    std::atomic<size_t> next_panel{0};
    std::atomic<size_t> next_task{0};
    const size_t count = tasks();
    pool_.run([&](size_t thread) {
      for (size_t p = next_panel.fetch_add(1); p < panels; p = next_panel.fetch_add(1))
        pack(round, p, thread);
      pool_.barrier();
      for (size_t t = next_task.fetch_add(1); t < count; t = next_task.fetch_add(1))
        run_task(round, t, thread);
    });
  }

  static size_t row_blocks(const Round& round) {
    return (round.job->m + round.task_rows - 1) / round.task_rows;
  }
  static size_t panel_blocks(const Round& round) {
    return (round.panels + round.task_panels - 1) / round.task_panels;
  }

  void pack(const Round& round, size_t panel, size_t thread) {
    const DenseProduct& job = *round.job;
    const size_t row = (round.first_panel + panel) * kPanelRows;
    const size_t rows = std::min(kPanelRows, job.n - row);
    const float* b = job.b + row * job.b_stride + round.first_k;
    std::byte* to = round.packed + panel * round.panel_stride;
    if (job.precision == Precision::f32) {
      pack_f32(b, job.b_stride, rows, round.depth, reinterpret_cast<float*>(to));
    } else if (pairs_.product != nullptr) {
      auto* panel_pairs = reinterpret_cast<uint32_t*>(to);
      const size_t pairs = (round.depth + 1) / 2;
      if (rows < kPanelRows) std::fill_n(panel_pairs, pairs * kPanelRows, 0u);
      auto* row_pairs = reinterpret_cast<uint32_t*>(a_copies_[thread].reserve(kACopyBytes));
      for (size_t r = 0; r < rows; ++r) {
        pairs_.round_row(b + r * job.b_stride, round.depth, row_pairs);
        for (size_t i = 0; i < pairs; ++i) panel_pairs[i * kPanelRows + r] = row_pairs[i];
      }
    } else {
      pack_bf16(b, job.b_stride, rows, round.depth, reinterpret_cast<uint32_t*>(to));
    }
  }

  void run_task(const Round& round, size_t task, size_t thread) {
    const DenseProduct& job = *round.job;
    const size_t row = task / panel_blocks(round) * round.task_rows;
    const size_t panel = task % panel_blocks(round) * round.task_panels;
    const size_t rows = std::min(round.task_rows, job.m - row);
    const size_t panels = std::min(round.task_panels, round.panels - panel);
    const size_t column = (round.first_panel + panel) * kPanelRows;
    const float* a = job.a + row * job.a_stride + round.first_k;
    if (job.precision == Precision::bf16 && pairs_.product != nullptr) {
      auto* pairs = reinterpret_cast<uint32_t*>(a_copies_[thread].reserve(kACopyBytes));
      for (size_t r = 0; r < rows; ++r)
        pairs_.round_row(a + r * job.a_stride, round.depth, pairs + r * kPairStride);
      const Bf16PairProduct product{
          .panels = reinterpret_cast<const uint32_t*>(round.packed + panel * round.panel_stride),
          .panel_stride = round.panel_stride / sizeof(uint32_t),
          .rows = std::min(panels * kPanelRows, job.n - column),
          .pairs = (round.depth + 1) / 2,
          .x = pairs,
          .x_stride = kPairStride,
          .tokens = rows,
          .y = job.out + row * job.out_stride + column,
          .y_stride = job.out_stride,
          .accumulate = job.accumulate || round.first_k > 0,
      };
      pairs_.product(product);
      return;
    }
    size_t a_stride = job.a_stride;
    // The kernels read eight rows at once: rows whose distance is a multiple of half a page crowd into a few
    // sets of the cache.
    if (job.precision == Precision::bf16 || a_stride * sizeof(float) % 2048 == 0) {
      auto* copy = reinterpret_cast<float*>(a_copies_[thread].reserve(kACopyBytes));
      for (size_t r = 0; r < rows; ++r) {
        const float* from = a + r * job.a_stride;
        float* to = copy + r * kCopyStride;
        if (job.precision == Precision::f32) {
          std::copy_n(from, round.depth, to);
        } else {
          for (size_t k = 0; k < round.depth; ++k) to[k] = bf16_to_f32(f32_to_bf16(from[k]));
        }
      }
      a = copy;
      a_stride = kCopyStride;
    }
    const FloatProduct product{
        .panels = round.packed + panel * round.panel_stride,
        .panel_stride = round.panel_stride,
        .rows = std::min(panels * kPanelRows, job.n - column),
        .columns = round.depth,
        .x = a,
        .x_stride = a_stride,
        .tokens = rows,
        .bias = nullptr,
        .y = job.out + row * job.out_stride + column,
        .y_stride = job.out_stride,
        .accumulate = job.accumulate || round.first_k > 0,
    };
    (job.precision == Precision::f32 ? kernels_.product_f32 : kernels_.product_bf16)(product);
  }

  const FloatKernels& kernels_;
  const Bf16PairKernels& pairs_;
  ThreadPool pool_;
  Lines packed_;
  std::vector<Lines> a_copies_;  // one for each thread
};

}  // namespace

std::unique_ptr<DenseProducts> make_dense_products(const Kernels& kernels, size_t threads) {
  return std::make_unique<CpuDenseProducts>(kernels, threads);
}

}  // namespace cpu

std::unique_ptr<DenseProducts> make_cpu_dense_products(size_t threads) {
  return cpu::make_dense_products(cpu::best_kernels(), threads == 0 ? cpu::usable_threads() : threads);
}

}  // namespace tessera
