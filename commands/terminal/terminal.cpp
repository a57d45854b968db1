#include "commands/terminal/terminal.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

namespace tessera {

namespace {

constexpr double kSlowSeconds = 2.0;
constexpr double kGuessAfterSeconds = 0.5;  // the share done by then tells whether the work will be slow
constexpr double kRedrawSeconds = 0.1;

size_t terminal_columns() {
  struct winsize size = {};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 80;
}

std::string duration(double seconds) {
  const auto whole = static_cast<uint64_t>(seconds + 0.5);
  return whole >= 3600 ? fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60)
                       : fmt::format("{}:{:02}", whole / 60, whole % 60);
}

}  // namespace

bool is_terminal(int descriptor) { return isatty(descriptor) == 1; }

bool shows_colour(int descriptor) {
  const char* refused = std::getenv("NO_COLOR");
  if (refused != nullptr && refused[0] != '\0') return false;
  const char* terminal = std::getenv("TERM");
  if (terminal == nullptr || std::strcmp(terminal, "dumb") == 0) return false;
  return is_terminal(descriptor);
}

std::string styled(std::string_view text, Style style, int descriptor) {
  if (style == Style::plain || !shows_colour(descriptor)) return std::string(text);
  const char* code = style == Style::dim ? "2" : style == Style::bold ? "1" : "33";
  return fmt::format("\x1b[{}m{}\x1b[0m", code, text);
}

void say(std::string_view line, Style style) { write_stderr(styled(line, style, STDERR_FILENO) + '\n'); }

std::string terminal_text(std::string_view text) {
  std::string safe;
  safe.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if ((byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7F) continue;
    if (byte == 0xC2 && i + 1 < text.size()) {  // U+0080 … U+009F are control characters too
      const auto next = static_cast<unsigned char>(text[i + 1]);
      if (next >= 0x80 && next <= 0x9F) {
        ++i;
        continue;
      }
    }
    safe += text[i];
  }
  return safe;
}

std::string one_line(std::string_view text) {
  std::string line;
  line.reserve(text.size());
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\n') {
      line += "\\n";
    } else if (byte < 0x20 || byte == 0x7F) {
      line += fmt::format("\\x{:02x}", byte);
    } else {
      line += c;
    }
  }
  return terminal_text(line);
}

void write_stdout(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    throw std::runtime_error(fmt::format("stdout: could not be written: {}", std::strerror(errno)));
  }
}

void write_stderr(std::string_view text) noexcept {
  std::fwrite(text.data(), 1, text.size(), stderr);
  std::fflush(stderr);
}

void occupy_closed_descriptors() {
  // Opened the wrong way round, stdin and stdout still fail when they are used.
  constexpr std::array kModes = {O_WRONLY, O_RDONLY, O_WRONLY};
  for (int descriptor = 0; descriptor < static_cast<int>(kModes.size()); ++descriptor) {
    if (fcntl(descriptor, F_GETFD) >= 0) continue;
    // The lowest free descriptor is this one.
    if (open("/dev/null", kModes[static_cast<size_t>(descriptor)]) < 0) {
      throw std::runtime_error(
          fmt::format("/dev/null: cannot be opened in place of the closed descriptor {}: {}", descriptor,
                      std::strerror(errno)));
    }
  }
}

ProgressBar::ProgressBar(std::string what)
    : what_(std::move(what)),
      terminal_(is_terminal(STDERR_FILENO)),
      start_(std::chrono::steady_clock::now()) {}

ProgressBar::~ProgressBar() { hide(); }

void ProgressBar::hide() {
  if (!shown_) return;
  write_stderr("\r\x1b[K");
  shown_ = false;
}

void ProgressBar::update(uint64_t done, uint64_t total) {
  if (!terminal_ || total == 0) return;
  const auto now = std::chrono::steady_clock::now();
  const double elapsed = std::chrono::duration<double>(now - start_).count();
  if (!first_done_) first_done_ = done;
  const double share = static_cast<double>(std::min(done, total)) / static_cast<double>(total);
  // What was done before this bar began has not cost any of its time.
  const double own = share - static_cast<double>(std::min(*first_done_, total)) / static_cast<double>(total);
  const double rest = own > 0 ? elapsed / own * (1 - share) : 0;
  const double whole = own > 0 ? elapsed + rest : 0;
  if (!shown_ && elapsed < kSlowSeconds && (elapsed < kGuessAfterSeconds || whole < kSlowSeconds)) return;
  if (shown_ && done < total && std::chrono::duration<double>(now - drawn_).count() < kRedrawSeconds) return;

  const std::string left = own > 0 ? duration(rest) : "?";
  const std::string after = fmt::format(" {:3.0f} %  {} left", share * 100, left);
  const size_t columns = terminal_columns();
  const size_t taken = what_.size() + after.size() + 4;
  const size_t width = columns > taken + 4 ? std::min<size_t>(columns - taken, 40) : 0;
  const auto filled = static_cast<size_t>(share * static_cast<double>(width));
  const std::string bar = width > 0 ? fmt::format(" [{:#<{}}{:.<{}}]", "", filled, "", width - filled) : "";
  write_stderr(fmt::format("\r\x1b[K{}{}{}", what_, bar, after));
  shown_ = true;
  drawn_ = now;
}

}  // namespace tessera
