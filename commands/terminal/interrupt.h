// Ctrl-C: by default it ends the process with exit code 130; while an InterruptScope lives it is only noted,
// so that a reply can stop where it is. One scope at a time.
#pragma once

namespace tessera {

class InterruptScope {
 public:
  // Handles SIGINT, SIGWINCH and SIGCONT, which a line editor must know of, and where stdin is a terminal
  // SIGTERM and SIGHUP, which still end the process but restore the terminal's settings before.
  InterruptScope();
  ~InterruptScope();  // restores the former handling
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;

  static bool requested();  // Ctrl-C was pressed since the scope began or clear
  static void clear();
  // Becomes readable with a byte per signal: 'I' interrupt, 'W' window size, 'C' continued after a stop.
  static int wake_descriptor();
};

// Makes Ctrl-C end the process at once with exit code 130.
void leave_on_interrupt();

// Sets a line that is written to stderr when Ctrl-C ends the process that way: what was left unfinished. The
// text must live until the process ends or another line, or nullptr, is set.
void say_on_interrupt(const char* line);

// A closed pipe and a file that outgrows its limit (ulimit -f) become write errors instead of ending the
// process without a message.
void ignore_write_signals();

}  // namespace tessera
