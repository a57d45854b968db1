// The messages typed in earlier chats, kept in $XDG_STATE_HOME/tessera/history or
// ~/.local/state/tessera/history, one message a line.
#pragma once

#include <string>
#include <vector>

namespace tessera {

class PromptHistory {
 public:
  PromptHistory();  // reads what is there; a history that cannot be read is an empty one
  const std::vector<std::string>& entries() const { return entries_; }  // oldest first
  // Appends the message to the file in a single write, so that several chats can share it. When that fails,
  // the first time, says why on stderr.
  void add(const std::string& message);

 private:
  std::string path_;  // empty: nowhere to keep it
  std::vector<std::string> entries_;
  bool complained_ = false;
};

}  // namespace tessera
