#include "engine/hub/url.h"

#include <fmt/format.h>

namespace tessera::hub {

std::string_view origin_of(std::string_view url) {
  for (const std::string_view scheme : {"https://", "http://"}) {
    if (url.substr(0, scheme.size()) != scheme) continue;
    const size_t end = url.find_first_of("/?#\\ \t\r\n", scheme.size());
    return end == scheme.size() ? std::string_view{} : url.substr(0, end);
  }
  return {};
}

std::string percent_encoded(std::string_view text, bool keep_slashes) {
  constexpr std::string_view kPlain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~";
  std::string out;
  for (const char c : text) {
    if (kPlain.find(c) != std::string_view::npos || (keep_slashes && c == '/'))
      out += c;
    else
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
}

}  // namespace tessera::hub
