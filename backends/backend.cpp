#include "backends/backend.h"

#include <fmt/format.h>

#include <atomic>
#include <new>
#include <stdexcept>
#include <utility>

#include "backends/check_program.h"

namespace tessera {

namespace {

BackendId next_backend_id() {
  static std::atomic<BackendId> last{0};
  return ++last;
}

// What work() returns, or failure() where it finds no memory.
template <class Work, class Failure>
auto with_memory_or(Work work, Failure failure) -> decltype(work()) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
  } catch (const std::length_error&) {
  }
  return decltype(work())::failure(failure());
}

std::string no_memory_for_batch() { return "batch: no memory to run it"; }

}  // namespace

Backend::Backend() : id_(next_backend_id()) {}

Result<std::unique_ptr<KvStorage>> Backend::create_kv(const KvGeometry& geometry, size_t pages) {
  using Outcome = Result<std::unique_ptr<KvStorage>>;
  if (std::string fault = kv_fault(geometry); !fault.empty()) return Outcome::failure(std::move(fault));
  const KvPageBytes page_bytes = kv_page_bytes(geometry);
  for (const auto& [bytes, count] :
       {std::pair(page_bytes.full, pages), std::pair(page_bytes.window, geometry.window_pages)}) {
    if (std::string fault = kv_size_fault(bytes, count); !fault.empty())
      return Outcome::failure(std::move(fault));
  }
  Outcome made = with_memory_or(
      [&] { return make_kv(geometry, pages); },
      [&] { return fmt::format("kv cache: no memory for {} pages of {} bytes", pages, page_bytes.full); });
  if (made.ok()) made.value()->backend_ = id_;
  return made;
}

Result<WeightHandle> Backend::adopt(const StoredTensor& tensor) {
  using Outcome = Result<WeightHandle>;
  if (std::string fault = tensor_fault(tensor); !fault.empty()) return Outcome::failure(std::move(fault));
  Outcome made = with_memory_or([&] { return make_weight(tensor); },
                                [&] { return fmt::format("tensor \"{}\": no memory", tensor.name); });
  if (made.ok()) made.value()->backend_ = id_;
  return made;
}

Result<std::unique_ptr<Program>> Backend::compile(const Graph& graph, const MemoryPlan& plan,
                                                  std::span<const WeightHandle> weights, KvStorage& kv) {
  using Outcome = Result<std::unique_ptr<Program>>;
  if (std::string fault = program_fault(id_, graph, plan, weights, kv); !fault.empty())
    return Outcome::failure(std::move(fault));
  Outcome made =
      with_memory_or([&] { return make_program(graph, plan, weights, kv); },
                     [&] { return fmt::format("no memory for {} bytes of activations", plan.arena_bytes); });
  if (made.ok()) made.value()->limits_ = batch_limits(graph, plan.limits, kv);
  return made;
}

Status Program::run(const Batch& batch, std::span<float> logits) {
  std::string fault = batch_fault(batch, limits_);
  if (fault.empty()) fault = logits_fault(batch, limits_, logits.size());
  if (!fault.empty()) return Status::failure(std::move(fault));
  if (batch.tokens.empty()) return Status::success();
  const size_t values = batch.output_rows.size() * limits_.logits_columns;
  return with_memory_or([&] { return execute(batch, logits.first(values)); }, no_memory_for_batch);
}

Status Program::run_best(const Batch& batch, size_t count, std::span<TokenLogit> best) {
  std::string fault = batch_fault(batch, limits_);
  if (fault.empty()) fault = best_fault(batch, count, most_best(), best.size());
  if (!fault.empty()) return Status::failure(std::move(fault));
  if (batch.tokens.empty()) return Status::success();
  const size_t entries = batch.output_rows.size() * count;
  return with_memory_or([&] { return execute_best(batch, count, best.first(entries)); }, no_memory_for_batch);
}

}  // namespace tessera
