#include "commands/command_line/escapes.h"

#include <charconv>

namespace tessera {

std::string without_escapes(std::string_view text) {
  constexpr std::string_view kLetters = "nrt'\"\\";
  constexpr std::string_view kMeanings = "\n\r\t'\"\\";
  constexpr size_t kByteEscape = 4;  // \xNN
  std::string plain;
  plain.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const char next = text[i] == '\\' && i + 1 < text.size() ? text[i + 1] : '\0';
    const size_t letter = next == '\0' ? std::string_view::npos : kLetters.find(next);
    if (letter != std::string_view::npos) {
      plain += kMeanings[letter];
      ++i;
      continue;
    }
    if (next == 'x' && i + kByteEscape <= text.size()) {
      const char* const end = text.data() + i + kByteEscape;
      unsigned char byte = 0;
      const auto [stopped, error] = std::from_chars(text.data() + i + 2, end, byte, 16);
      if (error == std::errc{} && stopped == end) {
        plain += static_cast<char>(byte);
        i += kByteEscape - 1;
        continue;
      }
    }
    plain += text[i];
  }
  return plain;
}

}  // namespace tessera
