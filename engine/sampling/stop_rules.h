// Ends a reply at a stop string. Text that could be the beginning of one is held back until that is decided.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace tessera {

class StopRules {
 public:
  explicit StopRules(std::vector<std::string> stop_strings);  // empty strings are ignored
  struct Outcome {
    std::string text;      // the text that can be shown now
    bool stopped = false;  // whether a stop string is complete; it and everything after it is dropped
  };
  // Adds the next piece of the reply.
  Outcome push(std::string_view text);
  // The text that is still held back when the reply ends without a stop string.
  std::string finish();
  // Begins a new reply.
  void reset();

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace tessera
