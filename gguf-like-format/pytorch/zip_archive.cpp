#include "gguf-like-format/pytorch/zip_archive.h"

#include <fmt/format.h>

#include <cstdint>
#include <optional>

#include "gguf-like-format/pytorch/little_endian.h"

namespace tessera {

namespace {

using Bytes = std::span<const std::byte>;

constexpr uint32_t kEndMark = 0x06054b50, kEnd64Mark = 0x06064b50, kLocatorMark = 0x07064b50,
                   kEntryMark = 0x02014b50, kLocalMark = 0x04034b50;
constexpr size_t kEndBytes = 22, kEnd64Bytes = 56, kLocatorBytes = 20, kEntryBytes = 46, kLocalBytes = 30;
constexpr size_t kMostCommentBytes = 65535;
constexpr uint64_t kMostEntries = 1'000'000;
constexpr uint16_t kZip64Extra = 1;
constexpr uint32_t kIn64 = 0xffffffff;  // the value is in the zip64 part

class Parser {
 public:
  Parser(Bytes bytes, const std::string& file) : bytes_(bytes), file_(file) {}

  std::map<std::string_view, Bytes> parse() {
    find_directory();
    std::map<std::string_view, Bytes> files;
    Bytes rest = part(directory_, directory_bytes_, "directory");
    for (uint64_t i = 0; i < entries_; ++i) {
      if (rest.size() < kEntryBytes || little_endian<uint32_t>(rest) != kEntryMark)
        fail(fmt::format("entry {}", i), "an entry of the directory", "something else");
      const uint16_t name_bytes = at<uint16_t>(rest, 28), extra_bytes = at<uint16_t>(rest, 30),
                     comment_bytes = at<uint16_t>(rest, 32);
      const size_t size = kEntryBytes + size_t{name_bytes} + extra_bytes + comment_bytes;
      if (size > rest.size()) fail(fmt::format("entry {}", i), "an entry within the directory", "more");
      const Bytes name = rest.subspan(kEntryBytes, name_bytes);
      const std::string_view text(reinterpret_cast<const char*>(name.data()), name.size());
      const Bytes data = read_entry(rest, rest.subspan(kEntryBytes + name_bytes, extra_bytes), text);
      if (!files.emplace(text, data).second) fail(printable(text), "one file of this name", "two");
      rest = rest.subspan(size);
    }
    return files;
  }

 private:
  template <class Number>
  static Number at(Bytes bytes, size_t offset) {
    return little_endian<Number>(bytes.subspan(offset));
  }

  [[noreturn]] void fail(std::string_view field, std::string_view expected, std::string_view found) const {
    throw FileError(fmt::format("{}: zip archive: {}: expected {}, found {}", file_, field, expected, found));
  }

  Bytes part(uint64_t offset, uint64_t size, std::string_view what) const {
    if (offset > bytes_.size() || size > bytes_.size() - offset)
      fail(what, fmt::format("within the {} bytes of the file", bytes_.size()),
           fmt::format("{} bytes at {}", size, offset));
    return bytes_.subspan(static_cast<size_t>(offset), static_cast<size_t>(size));
  }

  // The end record is the last thing of the file, but for a comment whose length it has.
  void find_directory() {
    if (bytes_.size() < kEndBytes) fail("end", "at least 22 bytes", fmt::format("{}", bytes_.size()));
    for (size_t comment = 0; comment <= kMostCommentBytes && comment <= bytes_.size() - kEndBytes;
         ++comment) {
      const size_t offset = bytes_.size() - kEndBytes - comment;
      const Bytes end = bytes_.subspan(offset);
      if (little_endian<uint32_t>(end) != kEndMark || at<uint16_t>(end, 20) != comment) continue;
      entries_ = at<uint16_t>(end, 10);
      directory_bytes_ = at<uint32_t>(end, 12);
      directory_ = at<uint32_t>(end, 16);
      read_end64(offset);
      if (entries_ > kMostEntries)
        fail("entries", fmt::format("at most {}", kMostEntries), std::to_string(entries_));
      return;
    }
    fail("end", "the directory that ends an archive", "none: the file is cut off");
  }

  // Files beyond 4 GB have their numbers in a record of their own, which a locator before the end names.
  void read_end64(size_t end) {
    if (end < kLocatorBytes) return;
    const Bytes locator = bytes_.subspan(end - kLocatorBytes);
    if (little_endian<uint32_t>(locator) != kLocatorMark) return;
    const Bytes record = part(at<uint64_t>(locator, 8), kEnd64Bytes, "end of a 64-bit archive");
    if (little_endian<uint32_t>(record) != kEnd64Mark)
      fail("end of a 64-bit archive", "its mark", "something else");
    entries_ = at<uint64_t>(record, 32);
    directory_bytes_ = at<uint64_t>(record, 40);
    directory_ = at<uint64_t>(record, 48);
  }

  Bytes read_entry(Bytes entry, Bytes extra, std::string_view name) const {
    if ((at<uint16_t>(entry, 8) & 1) != 0) fail(printable(name), "no encryption", "an encrypted file");
    if (at<uint16_t>(entry, 10) != 0) fail(printable(name), "a stored file", "a compressed one");
    uint64_t packed = at<uint32_t>(entry, 20), size = at<uint32_t>(entry, 24),
             offset = at<uint32_t>(entry, 42);
    std::optional<Bytes> wide = find_zip64(extra);
    for (uint64_t* const number : {&size, &packed, &offset}) {
      if (*number != kIn64) continue;
      if (!wide || wide->size() < 8) fail(printable(name), "its 64-bit size and offset", "none");
      *number = little_endian<uint64_t>(*wide);
      wide = wide->subspan(8);
    }
    if (packed != size) fail(printable(name), fmt::format("{} stored bytes", size), std::to_string(packed));
    const Bytes local = part(offset, kLocalBytes, printable(name));
    if (little_endian<uint32_t>(local) != kLocalMark) fail(printable(name), "its header", "something else");
    const uint64_t skipped = kLocalBytes + uint64_t{at<uint16_t>(local, 26)} + at<uint16_t>(local, 28);
    if (offset > directory_ || skipped > directory_ - offset || size > directory_ - offset - skipped)
      fail(printable(name), "a file before the directory", fmt::format("{} bytes at {}", size, offset));
    return part(offset + skipped, size, printable(name));
  }

  static std::optional<Bytes> find_zip64(Bytes extra) {
    while (extra.size() >= 4) {
      const uint16_t kind = at<uint16_t>(extra, 0), size = at<uint16_t>(extra, 2);
      if (size > extra.size() - 4) return std::nullopt;
      if (kind == kZip64Extra) return extra.subspan(4, size);
      extra = extra.subspan(4 + size_t{size});
    }
    return std::nullopt;
  }

  Bytes bytes_;
  const std::string& file_;
  uint64_t entries_ = 0;
  uint64_t directory_ = 0;
  uint64_t directory_bytes_ = 0;
};

}  // namespace

std::map<std::string_view, std::span<const std::byte>> parse_zip(std::span<const std::byte> bytes,
                                                                 const std::string& file) {
  return Parser(bytes, file).parse();
}

}  // namespace tessera
