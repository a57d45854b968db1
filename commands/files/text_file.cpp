#include "commands/files/text_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <span>
#include <stdexcept>

#include "gguf-like-format/temporary_file.h"

namespace tessera {

namespace {

constexpr size_t kMostBytes = size_t{1} << 30;

[[noreturn]] void fail(const std::string& name, const char* what) {
  throw std::runtime_error(fmt::format("{}: {}: {}", name, what, std::strerror(errno)));
}

class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  ~Descriptor() {
    if (value_ > STDERR_FILENO) close(value_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return value_; }

 private:
  int value_;
};

// Without the marks of other systems: a byte order mark at the start, a carriage return before a newline.
std::string plain_text(std::string text) {
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
  if (text.starts_with(kByteOrderMark)) text.erase(0, kByteOrderMark.size());
  if (text.find("\r\n") == std::string::npos) return text;
  std::string plain;
  plain.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i)
    if (text[i] != '\r' || i + 1 == text.size() || text[i + 1] != '\n') plain += text[i];
  return plain;
}

}  // namespace

std::string read_text(const std::string& path) {
  const std::string name = path == "-" ? "stdin" : path;
  const Descriptor file(path == "-" ? STDIN_FILENO : open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) fail(name, "cannot be opened");
  std::string text;
  std::array<char, 65536> buffer;
  for (;;) {
    const ssize_t count = read(file.get(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) {  // another program may have made a pipe that they share non-blocking
      pollfd input{file.get(), POLLIN, 0};
      poll(&input, 1, -1);
      continue;
    }
    if (count < 0) fail(name, "cannot be read");
    if (count == 0) return plain_text(std::move(text));
    if (text.size() + static_cast<size_t>(count) > kMostBytes) {
      throw std::runtime_error(fmt::format("{}: text of more than {} bytes", name, kMostBytes));
    }
    text.append(buffer.data(), static_cast<size_t>(count));
  }
}

std::string read_prompt(const std::string& path) {
  std::string text = read_text(path);
  if (!text.empty() && text.back() == '\n') text.pop_back();
  if (!text.empty() && text.back() == '\r') text.pop_back();
  return text;
}

void write_text(const std::string& path, std::string_view text) {
  TemporaryFile file(path);
  write_text(file, text);
}

void write_text(TemporaryFile& file, std::string_view text) {
  file.write(std::as_bytes(std::span(text)), 0);
  file.commit();
}

}  // namespace tessera
