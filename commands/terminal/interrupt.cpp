#include "commands/terminal/interrupt.h"

#include <fcntl.h>
#include <signal.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <stdexcept>
#include <string_view>

namespace tessera {

namespace {

constexpr int kInterruptedExit = 130;
constexpr int kMostUnseenPresses = 3;  // of Ctrl-C; then the process ends after all

volatile sig_atomic_t presses = 0;
std::array<int, 2> wake_pipe = {-1, -1};
struct sigaction former_interrupt;
struct sigaction former_resize;
struct sigaction former_continue;
constexpr std::array kEndings = {SIGTERM, SIGHUP};
std::array<struct sigaction, kEndings.size()> former_endings;
bool terminal_known = false;
struct termios terminal_before;

void wake(char what) {
  const int saved = errno;
  // A pipe that is full already wakes the reader.
  [[maybe_unused]] const ssize_t written = write(wake_pipe[1], &what, 1);
  errno = saved;
}

void on_interrupt(int) {
  presses = presses + 1;
  if (presses >= kMostUnseenPresses) _exit(kInterruptedExit);
  wake('I');
}

void on_resize(int) { wake('W'); }

void on_continue(int) { wake('C'); }

// Ends the process by the signal, as if nobody had caught it, but leaves the terminal as it was found: a line
// editor may have switched its echo off, and brackets around pastes on.
void on_ending(int signal) {
  constexpr std::string_view kNoPasteBrackets = "\x1b[?2004l\r\n";
  tcsetattr(STDIN_FILENO, TCSANOW, &terminal_before);
  if (isatty(STDERR_FILENO) == 1) {
    [[maybe_unused]] const ssize_t written =
        write(STDERR_FILENO, kNoPasteBrackets.data(), kNoPasteBrackets.size());
  }
  struct sigaction standard = {};
  standard.sa_handler = SIG_DFL;
  sigaction(signal, &standard, nullptr);
  raise(signal);  // arrives when this handler returns
}

bool leave_with_newline = false;  // a progress bar may hold the line
std::atomic<const char*> leaving_line = nullptr;
static_assert(std::atomic<const char*>::is_always_lock_free, "a signal handler reads it");

void on_interrupt_leave(int) {
  if (leave_with_newline) {
    [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, "\n", 1);
  }
  if (const char* line = leaving_line.load()) {
    size_t length = 0;
    while (line[length] != '\0') ++length;
    [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, line, length);
    [[maybe_unused]] const ssize_t ended = write(STDERR_FILENO, "\n", 1);
  }
  _exit(kInterruptedExit);
}

void handle(int signal, void (*handler)(int), struct sigaction* former) {
  struct sigaction action = {};
  action.sa_handler = handler;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  sigaction(signal, &action, former);
}

}  // namespace

InterruptScope::InterruptScope() {
  if (wake_pipe[0] < 0 && pipe2(wake_pipe.data(), O_CLOEXEC | O_NONBLOCK) != 0) {
    throw std::runtime_error("no pipe for signals could be had: too many open files");
  }
  presses = 0;
  handle(SIGINT, on_interrupt, &former_interrupt);
  handle(SIGWINCH, on_resize, &former_resize);
  handle(SIGCONT, on_continue, &former_continue);
  terminal_known = tcgetattr(STDIN_FILENO, &terminal_before) == 0;
  for (size_t i = 0; terminal_known && i < kEndings.size(); ++i) {
    handle(kEndings[i], on_ending, &former_endings[i]);
    // What is ignored (SIGHUP under nohup) must stay so.
    if (former_endings[i].sa_handler == SIG_IGN) sigaction(kEndings[i], &former_endings[i], nullptr);
  }
}

InterruptScope::~InterruptScope() {
  sigaction(SIGINT, &former_interrupt, nullptr);
  sigaction(SIGWINCH, &former_resize, nullptr);
  sigaction(SIGCONT, &former_continue, nullptr);
  for (size_t i = 0; terminal_known && i < kEndings.size(); ++i)
    sigaction(kEndings[i], &former_endings[i], nullptr);
}

bool InterruptScope::requested() { return presses != 0; }

void InterruptScope::clear() {
  presses = 0;
  std::array<char, 64> stale = {};
  while (read(wake_pipe[0], stale.data(), stale.size()) > 0) {
  }
}

int InterruptScope::wake_descriptor() { return wake_pipe[0]; }

void leave_on_interrupt() {
  leave_with_newline = isatty(STDERR_FILENO) == 1;
  handle(SIGINT, on_interrupt_leave, nullptr);
}

void say_on_interrupt(const char* line) { leaving_line = line; }

void ignore_write_signals() {
  handle(SIGPIPE, SIG_IGN, nullptr);
  handle(SIGXFSZ, SIG_IGN, nullptr);
}

}  // namespace tessera
