#include "commands/terminal/prompt_history.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <string_view>
#include <system_error>

#include "commands/files/text_file.h"
#include "commands/terminal/terminal.h"

namespace tessera {

namespace {

constexpr size_t kMostEntries = 1000;
constexpr size_t kMostEntryBytes = size_t{1} << 16;  // a longer message is not worth recalling

std::string history_path() {
  const char* state = std::getenv("XDG_STATE_HOME");
  if (state != nullptr && state[0] == '/') return fmt::format("{}/tessera/history", state);
  const char* home = std::getenv("HOME");
  if (home != nullptr && home[0] == '/') return fmt::format("{}/.local/state/tessera/history", home);
  return "";
}

// Newlines and backslashes are escaped, so that a message is a line.
std::string escaped(std::string_view message) {
  std::string line;
  for (const char c : message) {
    if (c == '\n') {
      line += "\\n";
    } else if (c == '\\') {
      line += "\\\\";
    } else {
      line += c;
    }
  }
  return line;
}

std::string unescaped(std::string_view line) {
  std::string message;
  for (size_t i = 0; i < line.size(); ++i) {
    if (line[i] != '\\' || i + 1 == line.size()) {
      message += line[i];
    } else {
      ++i;
      message += line[i] == 'n' ? '\n' : line[i];
    }
  }
  return message;
}

}  // namespace

PromptHistory::PromptHistory() : path_(history_path()) {
  std::error_code none;
  if (path_.empty() || !std::filesystem::is_regular_file(path_, none)) return;
  std::string text;
  try {
    text = read_text(path_);
  } catch (const std::exception&) {
    return;
  }
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    if (end > begin && end - begin <= 2 * kMostEntryBytes) {
      entries_.push_back(unescaped(std::string_view(text).substr(begin, end - begin)));
    }
    begin = end + 1;
  }
  if (entries_.size() <= kMostEntries) return;
  const bool overgrown = entries_.size() > 2 * kMostEntries;
  entries_.erase(entries_.begin(), entries_.end() - static_cast<std::ptrdiff_t>(kMostEntries));
  if (!overgrown) return;
  std::string kept;
  for (const std::string& entry : entries_) kept += escaped(entry) + '\n';
  try {
    chmod(path_.c_str(), S_IRUSR | S_IWUSR);  // which what takes its place inherits
    write_text(path_, kept);
  } catch (const std::exception&) {  // it stays long
  }
}

void PromptHistory::add(const std::string& message) {
  if (message.empty() || message.size() > kMostEntryBytes) return;
  if (!entries_.empty() && entries_.back() == message) return;
  entries_.push_back(message);
  if (path_.empty()) return;

  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(path_).parent_path(), error);
  const int file = open(path_.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, S_IRUSR | S_IWUSR);
  const std::string line = escaped(message) + '\n';
  const bool kept = file >= 0 && write(file, line.data(), line.size()) == static_cast<ssize_t>(line.size());
  const int why = errno;
  if (file >= 0) close(file);
  if (!kept && !complained_) {
    complained_ = true;
    say(fmt::format("{}: the history is not kept: {}", path_, std::strerror(why)), Style::warning);
  }
}

}  // namespace tessera
