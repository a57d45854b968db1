// Measures a loaded model from outside: the limits of what computes it, its matrix products and its
// attention.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "engine/measure/product_speed.h"
#include "engine/runtime.h"
#include "engine/session.h"

namespace tessera {

// What computes at most: the machine, or a device.
struct SpeedLimits {
  double read_gbps = 0;  // 10^9 bytes a second: read from memory, or on a device read and written by a copy
  double int8_gops = 0;  // 10^9 8-bit operations (a multiply or an add) a second
};

// Limits of what computes that one of memory().places, measured now (takes about a third of a second).
// threads: of the machine, where the place is in its memory; 0: the cores this process may use.
SpeedLimits measure_limits(Runtime& runtime, size_t place, size_t threads);

// Speed of every kind of matrix product of a place with this number of tokens.
std::vector<ProductSpeed> measure_products(Runtime& runtime, size_t place, size_t tokens);

// Seconds that the attention of all layers takes for one token at this position, which must lie within the
// context. Throws std::invalid_argument unless the session's cache is empty and all layers are in one place.
double measure_attention(Session& session, size_t position);

// Whether the backend measures its ops while they run.
bool measures_ops(const Runtime& runtime);
// Seconds that all ops of one kind ("attention", "linear", …) took so far; 0 where they are not measured.
double op_seconds(const Runtime& runtime, std::string_view kind);

// Threads that a session with this option uses; 0: the cores this process may use.
size_t threads_used(size_t threads);
std::string processor_name();

}  // namespace tessera
