// A mistake in the command line itself: one line, exit code 2.
#pragma once

#include <stdexcept>
#include <string>

namespace tessera {

class UsageError : public std::runtime_error {
 public:
  explicit UsageError(const std::string& line) : std::runtime_error(line) {}
};

}  // namespace tessera
