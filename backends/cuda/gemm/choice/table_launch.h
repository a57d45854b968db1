// Starts the chosen kernel of a product with table weights; the source file of each kind of codes
// instantiates it.
#pragma once

#include "backends/cuda/gemm/choice/table_choice.h"
#include "backends/cuda/gemm/kernels/sm80_table_few_tokens.h"
#include "backends/cuda/gemm/kernels/sm80_table_many_tokens.h"
#include "backends/cuda/gemm/kernels/sm90_table_launch.h"

namespace tessera::cuda::tables {

// Queues the products of the jobs. Table: a class of table_codes.h.
template <class Table>
void launch_table(Queue& queue, const TableLinearJobs& jobs) {
  using Few16 = FewShape<Table, true, 2, 2>;
  using Few32 = FewShape<Table, true, 2, 4>;
  // Nested groups have 32 columns, and bytes with bfloat16 activations would not fit in registers.
  constexpr bool kHasFew16 = !Table::kNested;
  constexpr bool kHasFew32 = kHasFew16 && Table::kBits * Table::kElementBytes <= 8;
  const Grouping grouping(jobs.items[0].weights.group);
  const bool wide = jobs.items[0].weights.group >= table_layout::kBlockColumns;
  const auto fits = [&](uint32_t bytes) { return wide && bytes <= queue.facts().shared_bytes; };
  const TableChoices choices{queue.facts().processors, queue.features().warpgroups,
                             kHasFew16 && fits(Few16::shared_bytes(grouping)),
                             kHasFew32 && fits(Few32::shared_bytes(grouping))};
  switch (choose_table_kernel(choices, jobs)) {
    case TableKernel::few8:
      if constexpr (kHasFew16) {
        if (wide) return launch_few_tokens<FewShape<Table, true, 1, 1>>(queue, jobs);
      }
      return launch_few_tokens<FewShape<Table, false, 1, 1>>(queue, jobs);
    case TableKernel::few16:
      if constexpr (kHasFew16) launch_few_tokens<Few16>(queue, jobs);
      return;
    case TableKernel::few32:
      if constexpr (kHasFew32) launch_few_tokens<Few32>(queue, jobs);
      return;
    case TableKernel::many:
      return launch_many_tokens<Table>(queue, jobs);
    case TableKernel::tiles64:
      return launch_tiles<Table, 64>(queue, jobs);
    case TableKernel::tiles128:
      return launch_tiles<Table, 128>(queue, jobs);
  }
}

// The same, with the class for the type of activations.
template <class Int8, class Bf16>
void launch_by_activations(Queue& queue, const TableLinearJobs& jobs) {
  if (jobs.items[0].weights.int8_activations) {
    launch_table<Int8>(queue, jobs);
  } else {
    launch_table<Bf16>(queue, jobs);
  }
}

}  // namespace tessera::cuda::tables
