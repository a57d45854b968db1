#include "gguf-like-format/file_error.h"

#include <fmt/format.h>

namespace tessera {

std::string printable(std::string_view text) {
  constexpr size_t most = 80;
  std::string out;
  for (const char c : text) {
    if (out.size() >= most) return out + "...";
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7f)
      out += fmt::format("\\x{:02x}", byte);
    else
      out += c;
  }
  return out;
}

}  // namespace tessera
