#include "backends/cpu/instruction_sets.h"

#include <algorithm>

#include "backends/cpu/cpu_features.h"
#include "backends/cpu/portable/portable.h"
#if defined(TESSERA_X86_KERNELS)
#include "backends/cpu/avx2/avx2.h"
#include "backends/cpu/avx512/avx512.h"
#include "backends/cpu/avx512_bf16/avx512_bf16.h"
#include "backends/cpu/avx512_vbmi/avx512_vbmi.h"
#endif

namespace tessera::cpu {

namespace {

struct InstructionSet {
  std::string_view name;  // as --isa takes it; rows that differ in extensions share it
  bool (*usable)(const Features& machine);
  Kernels (*make)();
};

#if defined(TESSERA_X86_KERNELS)
Kernels avx512_with_vbmi() {
  Kernels kernels = avx512::kernels();
  avx512_vbmi::add_to(kernels);
  kernels.name = "avx512-vnni-vbmi";
  return kernels;
}

Kernels avx512_with_bf16() {
  Kernels kernels = avx512::kernels();
  avx512_bf16::add_to(kernels);
  kernels.name = "avx512-vnni-bf16";
  return kernels;
}

Kernels avx512_with_both() {
  Kernels kernels = avx512_with_bf16();
  avx512_vbmi::add_to(kernels);
  kernels.name = "avx512-vnni-vbmi-bf16";
  return kernels;
}
#endif

// Best first.
constexpr InstructionSet kInstructionSets[] = {
#if defined(TESSERA_X86_KERNELS)
    {"avx512", [](const Features& machine) { return machine.avx512_vbmi && machine.avx512_bf16; },
     avx512_with_both},
    {"avx512", [](const Features& machine) { return machine.avx512_bf16; }, avx512_with_bf16},
    {"avx512", [](const Features& machine) { return machine.avx512_vbmi; }, avx512_with_vbmi},
    {"avx512", [](const Features& machine) { return machine.avx512; }, avx512::kernels},
    {"avx2", [](const Features& machine) { return machine.avx2; }, avx2::kernels},
#endif
    {"portable", [](const Features&) { return true; }, portable::kernels},
};

struct UsableSet {
  std::string_view name;
  Kernels kernels;
};

// The rows that this machine can run. Kernels of other rows are not even made: the code that makes them is
// compiled for the instruction set too.
const std::vector<UsableSet>& usable_sets() {
  static const std::vector<UsableSet> sets = [] {
    const Features machine = detect_features();
    std::vector<UsableSet> found;
    for (const InstructionSet& set : kInstructionSets)
      if (set.usable(machine)) found.push_back({set.name, set.make()});
    return found;
  }();
  return sets;
}

}  // namespace

std::vector<std::string_view> usable_instruction_set_names() {
  std::vector<std::string_view> names;
  for (const UsableSet& set : usable_sets())
    if (names.empty() || names.back() != set.name) names.push_back(set.name);
  return names;
}

const Kernels* find_kernels(std::string_view name) {
  const std::vector<UsableSet>& sets = usable_sets();
  const auto found =
      std::find_if(sets.begin(), sets.end(), [&](const auto& set) { return set.name == name; });
  return found == sets.end() ? nullptr : &found->kernels;
}

const Kernels& best_kernels() { return usable_sets().front().kernels; }

std::vector<const Kernels*> usable_kernels() {
  std::vector<const Kernels*> kernels;
  for (const UsableSet& set : usable_sets()) kernels.push_back(&set.kernels);
  return kernels;
}

}  // namespace tessera::cpu
