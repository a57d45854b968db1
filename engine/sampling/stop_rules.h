// Ends a reply at a stop string: text that could be the beginning of one is held back until it is certain.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace tessera {

class StopRules {
 public:
  explicit StopRules(std::vector<std::string> stop_strings);  // empty strings are ignored
  struct Outcome {
    std::string text;      // what may be shown now
    bool stopped = false;  // a stop string was completed; it and everything after it is dropped
  };
  Outcome push(std::string_view text);
  std::string finish();  // what was held back when the reply ended otherwise
  void reset();

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace tessera
