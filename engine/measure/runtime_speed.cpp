#include "engine/measure/runtime_speed.h"

#include <optional>
#include <stdexcept>

#include "backends/cpu/cpu_features.h"
#include "backends/cpu/machine_limits.h"
#include "engine/model.h"
#include "engine/value_or_throw.h"

namespace tessera {

SpeedLimits measure_limits(Runtime& runtime, size_t place, size_t threads) {
  const std::optional<DeviceLimits> device =
      value_or_throw(runtime.parts().at(place).backend.measure_limits());
  if (device) return {device->copy_gbps, device->int8_gops};
  const MachineLimits machine = measure_machine_limits(threads_used(threads));
  return {machine.read_gbps, machine.int8_gops};
}

std::vector<ProductSpeed> measure_products(Runtime& runtime, size_t place, size_t tokens) {
  const ProgramPart part = runtime.parts().at(place);
  const auto stored_bytes = [&](const Weight& weight) { return runtime.model().stored_bytes(weight); };
  return measure_products(part.backend, part.graph, part.weights, part.kv, stored_bytes, tokens);
}

double measure_attention(Session& session, size_t position) {
  Runtime& runtime = session.runtime();
  if (session.pages_in_use() != 0 || position >= session.context() || runtime.memory().places.size() != 1)
    throw std::invalid_argument("attention is measured in an empty cache, in one place");
  return measure_attention(runtime.backend(), runtime.model().graph(), runtime.weights(), runtime.kv(),
                           position);
}

bool measures_ops(const Runtime& runtime) { return !runtime.program().op_seconds().empty(); }

double op_seconds(const Runtime& runtime, std::string_view kind) {
  const std::vector<double> seconds = runtime.program().op_seconds();
  const std::vector<Op>& ops = runtime.model().graph().ops;
  double total = 0;
  for (size_t i = 0; i < seconds.size(); ++i) {
    if (op_name(ops[i].kind) == kind) total += seconds[i];
  }
  return total;
}

size_t threads_used(size_t threads) { return threads != 0 ? threads : cpu::usable_threads(); }

std::string processor_name() { return cpu::processor_name(); }

}  // namespace tessera
