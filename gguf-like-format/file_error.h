// The error every reader and writer throws: one line that names the file, the field, what was expected and
// found.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace tessera {

class FileError : public std::runtime_error {
 public:
  explicit FileError(const std::string& line) : std::runtime_error(line) {}
};

// A file that could not be written: no room, no right, a device that failed. What was to be written is not at
// fault.
class FileWriteError : public FileError {
 public:
  using FileError::FileError;
};

// Text from a file made safe for a one-line message: control bytes and bytes outside ASCII become \xNN, and
// anything over 80 characters is cut with "...".
std::string printable(std::string_view text);

}  // namespace tessera
