// Escapes in texts of the command line.
#pragma once

#include <string>
#include <string_view>

namespace tessera {

// The text with \n, \r, \t, \', \", \\ and \xNN, a byte of two hexadecimal digits, replaced by what they
// stand for. Any other backslash stays.
std::string without_escapes(std::string_view text);

}  // namespace tessera
