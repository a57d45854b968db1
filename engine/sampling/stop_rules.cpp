#include "engine/sampling/stop_rules.h"

#include <algorithm>
#include <utility>

namespace tessera {

// The reply ends at the first byte that completes a stop string. When this byte completes several, the
// longest counts; the reply is the text before it. The result therefore does not depend on the pieces in
// which the text arrives.

StopRules::StopRules(std::vector<std::string> stop_strings) : stops_(std::move(stop_strings)) {
  std::erase_if(stops_, [](const std::string& stop) { return stop.empty(); });
  std::sort(stops_.begin(), stops_.end(),
            [](const std::string& a, const std::string& b) { return a.size() > b.size(); });
}

StopRules::Outcome StopRules::push(std::string_view text) {
  if (stopped_) return {"", true};
  const size_t first_new = held_.size();
  held_ += text;
  const std::string_view all = held_;
  // No stop string is complete in the text that was held back, so only ends after first_new are possible.
  for (size_t end = first_new + 1; end <= all.size(); ++end) {
    for (const std::string& stop : stops_) {
      if (stop.size() > end || all.substr(end - stop.size(), stop.size()) != stop) continue;
      stopped_ = true;
      Outcome outcome{std::string(all.substr(0, end - stop.size())), true};
      held_.clear();
      return outcome;
    }
  }
  size_t longest = 0;
  for (const std::string& stop : stops_) {
    for (size_t size = std::min(stop.size() - 1, all.size()); size > longest; --size) {
      if (all.substr(all.size() - size) == std::string_view(stop).substr(0, size)) longest = size;
    }
  }
  Outcome outcome{std::string(all.substr(0, all.size() - longest)), false};
  held_.erase(0, all.size() - longest);
  return outcome;
}

std::string StopRules::finish() { return std::exchange(held_, {}); }

void StopRules::reset() {
  held_.clear();
  stopped_ = false;
}

}  // namespace tessera
