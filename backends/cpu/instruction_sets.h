// The instruction sets that this program has kernels for, in one table: which a machine can run, and the
// choice among them.
#pragma once

#include <string_view>
#include <vector>

#include "backends/cpu/kernels/kernels.h"

namespace tessera::cpu {

// Names of the sets that this machine can run, best first, as --isa takes them; "portable" is the last.
std::vector<std::string_view> usable_instruction_set_names();

// The best kernels of a set by its name; null when the set is unknown or this machine cannot run it. The
// kernels stay valid.
const Kernels* find_kernels(std::string_view name);

// The best kernels of this machine.
const Kernels& best_kernels();

// All kernels that this machine can run, best first. A set may have several: with and without the extensions
// that the machine has.
std::vector<const Kernels*> usable_kernels();

}  // namespace tessera::cpu
