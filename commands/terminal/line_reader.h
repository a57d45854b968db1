// Reads messages from the terminal: line editing, history, several lines (""" or a trailing backslash), and
// pastes that arrive whole. Needs a living InterruptScope.
#pragma once

#include <memory>
#include <string>

#include "commands/terminal/prompt_history.h"

namespace tessera {

struct TypedMessage {
  enum class Kind { message, interrupted, end } kind = Kind::end;
  std::string text;
  bool verbatim = false;   // written between """: never a command
  bool was_empty = false;  // interrupted at an empty prompt
};

class LineReader {
 public:
  LineReader();
  ~LineReader();
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  // Waits for a whole message. Ctrl-C gives interrupted (and clears the InterruptScope), Ctrl-D on an empty
  // line gives end.
  TypedMessage read();

 private:
  struct Editor;
  std::unique_ptr<Editor> editor_;
};

}  // namespace tessera
