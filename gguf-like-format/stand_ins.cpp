#include "gguf-like-format/stand_ins.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <filesystem>

#include "gguf-like-format/file_error.h"

namespace tessera {

namespace {

// Whether a text begins with `wanted`, which is in lower case, in whatever case.
bool begins_with(std::string_view text, std::string_view wanted) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  return text.size() >= wanted.size() && std::equal(wanted.begin(), wanted.end(), text.begin(),
                                                    [&](char a, char b) { return a == lower(b); });
}

}  // namespace

std::string why_not_opened(const std::string& path, int error) {
  std::error_code ignored;
  if (error == ENOENT && std::filesystem::is_symlink(path, ignored))
    return fmt::format(
        "is a link to {}, which is not there: the download is unfinished or was cleaned up; fetch it again",
        printable(std::filesystem::read_symlink(path, ignored).string()));
  return fmt::format("cannot be opened: {}", std::strerror(error));
}

void refuse_stand_in(const std::string& path, std::string_view beginning) {
  // https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
  if (begins_with(beginning, "version https://git-lfs.github.com/spec/")) {
    constexpr std::string_view kSize = "\nsize ";
    const size_t at = beginning.find(kSize);
    uint64_t bytes = 0;
    if (at != std::string_view::npos)
      std::from_chars(beginning.data() + at + kSize.size(), beginning.data() + beginning.size(), bytes);
    throw FileError(fmt::format(
        "{}: is a Git LFS pointer to the file, which has {} bytes: fetch it with git lfs pull", path, bytes));
  }
  const size_t text = std::min(beginning.find_first_not_of(" \t\r\n"), beginning.size());
  for (const std::string_view tag : {"<!doctype html", "<html"})
    if (begins_with(beginning.substr(text), tag))
      throw FileError(fmt::format(
          "{}: is a web page, not the file: on Hugging Face its address has /resolve/ in place of /blob/",
          path));
}

}  // namespace tessera
