// Options of llama.cpp's programs that Tessera has not, and what it has instead.
#pragma once

#include <span>
#include <string_view>

namespace tessera {

struct LlamaCppOption {
  const char* names;    // all spellings, dashes included, separated by spaces
  const char* instead;  // what to do, as the end of a line that refuses it
};

std::span<const LlamaCppOption> llama_cpp_options();

// What to do instead of the option of that name, dashes included; empty when llama.cpp has no such option
// either.
std::string_view instead_of_llama_cpp(std::string_view name);

}  // namespace tessera
