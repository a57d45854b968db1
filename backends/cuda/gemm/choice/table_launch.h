// Starts the chosen kernel of a product with table weights; the source file of each number of bits
// instantiates it.
#pragma once

#include "backends/cuda/gemm/choice/table_choice.h"
#include "backends/cuda/gemm/kernels/sm80_table_few_tokens.h"
#include "backends/cuda/gemm/kernels/sm80_table_many_tokens.h"
#include "backends/cuda/gemm/kernels/sm90_table_launch.h"

namespace tessera::cuda::tables {

template <class Table>
void launch_table(Queue& queue, const TableLinearJobs& jobs) {
  using Few16 = FewShape<Table, true, 2, 2>;
  using Few32 = FewShape<Table, true, 2, 4>;
  const Grouping grouping(jobs.items[0].weights.group);
  const bool wide = jobs.items[0].weights.group >= table_layout::kBlockColumns;
  const auto fits = [&](uint32_t bytes) { return wide && bytes <= queue.facts().shared_bytes; };
  const TableChoices choices{queue.facts().processors, queue.features().warpgroups,
                             fits(Few16::shared_bytes(grouping)), fits(Few32::shared_bytes(grouping))};
  switch (choose_table_kernel(choices, jobs)) {
    case TableKernel::few8:
      return wide ? launch_few_tokens<FewShape<Table, true, 1, 1>>(queue, jobs)
                  : launch_few_tokens<FewShape<Table, false, 1, 1>>(queue, jobs);
    case TableKernel::few16:
      return launch_few_tokens<Few16>(queue, jobs);
    case TableKernel::few32:
      return launch_few_tokens<Few32>(queue, jobs);
    case TableKernel::many:
      return launch_many_tokens<Table>(queue, jobs);
    case TableKernel::tiles64:
      return launch_tiles<Table, 64>(queue, jobs);
    case TableKernel::tiles128:
      return launch_tiles<Table, 128>(queue, jobs);
  }
}

template <uint32_t kBits>
void launch_bits(Queue& queue, const TableLinearJobs& jobs) {
  if (jobs.items[0].weights.int8_activations) {
    launch_table<Int8Table<kBits>>(queue, jobs);
  } else if constexpr (kBits == 4) {
    launch_table<Bf16PairTable>(queue, jobs);
  } else {
    launch_table<Bf16Table<kBits>>(queue, jobs);
  }
}

}  // namespace tessera::cuda::tables
