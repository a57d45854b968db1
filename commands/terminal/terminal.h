// Output for people: colours where they are supported, safe text, and progress bars for slow work.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tessera {

bool is_terminal(int descriptor);
// Whether it is a terminal that has colours and NO_COLOR is unset or empty.
bool shows_colour(int descriptor);

enum class Style { plain, dim, bold, warning };
// The text in that style, for that descriptor: unchanged where colours are not shown.
std::string styled(std::string_view text, Style style, int descriptor);

// One line on stderr, like write_stderr.
void say(std::string_view line, Style style = Style::plain);

// Text for a terminal without the control characters that could move its cursor or change its state; newlines
// and tabs stay. A model's words must not steer the terminal.
std::string terminal_text(std::string_view text);

// The text as a single line that is safe to show: newlines and other control characters as escapes.
std::string one_line(std::string_view text);

// Writes all of the text to stdout and flushes it; throws when it cannot be written.
void write_stdout(std::string_view text);

// Writes the text to stderr; that this fails is no error.
void write_stderr(std::string_view text) noexcept;

// Opens /dev/null for standard descriptors that are closed, so that no file opened later gets the number of
// stderr and the messages written there. Reading stdin and writing stdout still fail. Throws when /dev/null
// cannot be opened.
void occupy_closed_descriptors();

// A bar on stderr that appears once the work turns out to take more than two seconds; nothing where stderr is
// no terminal.
class ProgressBar {
 public:
  explicit ProgressBar(std::string what);
  ~ProgressBar();  // removes the bar
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;
  // done out of total. The time left is estimated from what was done since the first call, so that work may
  // begin half done.
  void update(uint64_t done, uint64_t total);
  void rename(std::string what) { what_ = std::move(what); }
  void hide();  // until the next update: makes room for a line

 private:
  std::string what_;
  bool terminal_;
  bool shown_ = false;
  std::optional<uint64_t> first_done_;
  std::chrono::steady_clock::time_point start_;
  std::chrono::steady_clock::time_point drawn_;
};

}  // namespace tessera
