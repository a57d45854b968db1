// Ctrl-C: by default it ends the process with 130; while an InterruptScope lives it is only noted, so that a
// reply can stop where it is. One scope at a time.
#pragma once

namespace tessera {

class InterruptScope {
 public:
  // Takes over SIGINT, SIGWINCH and SIGCONT, which a line editor wants to know of, and where stdin is a
  // terminal SIGTERM and SIGHUP, which still end the process but put the terminal's settings back before.
  InterruptScope();
  ~InterruptScope();  // puts the former handling back
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;

  static bool requested();
  static void clear();
  // Becomes readable with a byte per signal: 'I' interrupt, 'W' window size, 'C' continued after a stop.
  static int wake_descriptor();
};

// Makes Ctrl-C end the process at once with exit code 130 where nothing needs tidying up.
void leave_on_interrupt();

// A line for stderr when Ctrl-C ends the process that way: what is left behind. It must stay where it is
// until the process ends or another one, or nullptr, takes its place.
void say_on_interrupt(const char* line);

// A reader that has gone away (a closed pipe) and a file that outgrows its limit (ulimit -f) become write
// errors instead of a silent death.
void ignore_write_signals();

}  // namespace tessera
