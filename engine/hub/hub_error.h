// What goes wrong with a hub, as one line that says what to do.
#pragma once

#include <stdexcept>
#include <string>

namespace tessera::hub {

class HubError : public std::runtime_error {
 public:
  explicit HubError(const std::string& line) : std::runtime_error(line) {}
};

// The hub did not answer at all; what is in the cache may still do.
class NoConnection : public HubError {
 public:
  using HubError::HubError;
};

// The repository is not there, or not for this user.
class MissingRepository : public HubError {
 public:
  using HubError::HubError;
};

}  // namespace tessera::hub
