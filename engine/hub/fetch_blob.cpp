#include "engine/hub/fetch_blob.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <utility>
#include <vector>

#include "engine/hub/file_hash.h"
#include "engine/hub/hub_error.h"
#include "engine/hub/url.h"
#include "gguf-like-format/file_error.h"

namespace tessera::hub {

namespace {

constexpr long kDone = 200, kPartial = 206, kNotInRange = 416;
constexpr uint64_t kProgressBytes = uint64_t{1} << 20;  // fewer new bytes count as none
constexpr size_t kReadBytes = size_t{1} << 20;

std::string incomplete_path(const RepositoryCache& cache, const HubFile& file) {
  return cache.blob(file.hash) + ".incomplete";
}

// The bytes of a file that have come so far and their hash.
class PartialFile {
 public:
  PartialFile(std::string path, const HubFile& file)
      : path_(std::move(path)),
        file_(file),
        hash_(file.hash, file.bytes),
        descriptor_(::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666)) {
    if (descriptor_ < 0) fail("cannot be opened");
    read_present();
    resumed_ = have_ > 0;
  }
  ~PartialFile() { ::close(descriptor_); }
  PartialFile(const PartialFile&) = delete;
  PartialFile& operator=(const PartialFile&) = delete;

  uint64_t have() const { return have_; }
  bool complete() const { return have_ == file_.bytes; }
  // Whether the bytes came in more than one piece.
  bool resumed() const { return resumed_; }
  void note_resumed() { resumed_ = true; }

  void restart() {
    if (::ftruncate(descriptor_, 0) != 0) fail("cannot be emptied");
    have_ = 0;
    resumed_ = false;
    hash_ = ContentHash(file_.hash, file_.bytes);
  }

  void add(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t wrote = ::pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(have_));
      if (wrote < 0 && errno == EINTR) continue;
      if (wrote <= 0) fail("cannot be written");
      const auto count = static_cast<size_t>(wrote);
      hash_.add(bytes.first(count));
      have_ += count;
      bytes = bytes.subspan(count);
    }
  }

  std::string finish_hash() { return hash_.finish(); }

  void become(const std::string& name) {
    if (::fsync(descriptor_) != 0) fail("cannot be written");
    if (::rename(path_.c_str(), name.c_str()) != 0) fail("cannot be renamed");
  }

  void remove() { ::unlink(path_.c_str()); }

 private:
  void read_present() {
    struct stat info {};
    if (::fstat(descriptor_, &info) != 0) fail("cannot be examined");
    if (static_cast<uint64_t>(info.st_size) > file_.bytes) {
      restart();
      return;
    }
    std::vector<std::byte> buffer(kReadBytes);
    for (;;) {
      const ssize_t count = ::pread(descriptor_, buffer.data(), buffer.size(), static_cast<off_t>(have_));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) fail("cannot be read");
      if (count == 0) return;
      hash_.add(std::span(buffer).first(static_cast<size_t>(count)));
      have_ += static_cast<uint64_t>(count);
    }
  }

  [[noreturn]] void fail(std::string_view what) const {
    throw HubError(fmt::format("{}: {}: {}", path_, what, std::strerror(errno)));
  }

  std::string path_;
  const HubFile& file_;
  ContentHash hash_;
  int descriptor_;
  uint64_t have_ = 0;
  bool resumed_ = false;
};

// "bytes 100-199/200": where the answer begins and how long the whole is, where that is said.
struct ContentRange {
  uint64_t first = 0;
  std::optional<uint64_t> total;
};

std::optional<ContentRange> content_range(std::string_view text) {
  constexpr std::string_view kUnit = "bytes ";
  const size_t dash = text.find('-'), slash = text.find('/');
  if (text.substr(0, kUnit.size()) != kUnit || dash == std::string_view::npos ||
      slash == std::string_view::npos || slash < dash)
    return std::nullopt;
  const auto number = [](std::string_view digits) {
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    return error == std::errc{} && end == digits.data() + digits.size() ? std::optional(value) : std::nullopt;
  };
  const std::optional<uint64_t> first = number(text.substr(kUnit.size(), dash - kUnit.size()));
  if (!first) return std::nullopt;
  return ContentRange{*first, number(text.substr(slash + 1))};
}

// The hub says on its way which contents it leads to; they must be those it listed.
void check_names_same_contents(const HubClient& client, const HubFile& file, const HttpHead& head) {
  std::string_view tag = head.header("x-linked-etag");
  if (tag.empty()) tag = head.header("etag");
  if (tag.substr(0, 2) == "W/") tag.remove_prefix(2);
  if (tag.size() >= 2 && tag.front() == '"' && tag.back() == '"') tag = tag.substr(1, tag.size() - 2);
  if (is_content_hash(tag) && tag.size() == file.hash.size() && tag != file.hash)
    throw HubError(fmt::format("{}: {}: expected contents {}, the hub offers {}", client.repository(),
                               printable(file.path), file.hash, tag));
  const std::string_view size = head.header("x-linked-size");
  if (!size.empty() && size != std::to_string(file.bytes))
    throw HubError(fmt::format("{}: {}: expected {} bytes, the hub offers {}", client.repository(),
                               printable(file.path), file.bytes, printable(size)));
}

// One file on its way.
class Download {
 public:
  Download(HubClient& client, std::string url, const HubFile& file, PartialFile& partial,
           const std::function<void(uint64_t)>& done)
      : client_(client), url_(std::move(url)), file_(file), partial_(partial), done_(done) {}

  // Tries until all bytes are there.
  void run() {
    Retries retries(client_, printable(file_.path));
    uint64_t before = partial_.have();
    while (!partial_.complete()) {
      const HttpResult result = attempt();
      const long status = result.head.status;
      if (result.end == HttpEnd::complete && status == kNotInRange && partial_.have() > 0 &&
          !std::exchange(restarted_, true)) {
        partial_.restart();
        before = 0;
        continue;
      }
      const bool sends = status == kDone || status == kPartial;
      if (!sends && !Retries::may_help(result)) client_.refuse(result.head, printable(file_.path));
      if (partial_.complete()) return;
      if (partial_.have() >= before + kProgressBytes) {
        retries.made_progress();
        before = partial_.have();
      }
      retries.wait_after(result);
    }
  }

 private:
  HttpResult attempt() {
    std::vector<std::string> headers;
    if (partial_.have() > 0) headers.push_back(fmt::format("Range: bytes={}-", partial_.have()));
    bool good = false;
    const HubClient::Answer answer = client_.get(
        url_, headers,
        [&](const HttpHead& head) {
          good = head.status == kDone || head.status == kPartial;
          if (good) begin(head);
          return true;
        },
        [&](std::span<const std::byte> bytes) {
          if (good) add(bytes);
          return true;
        });
    // Only the hub's own words count: another server's tags mean something else.
    for (const HttpHead& head : answer.redirects) check_names_same_contents(client_, file_, head);
    if (good && answer.redirects.empty()) check_names_same_contents(client_, file_, answer.result.head);
    return answer.result;
  }

  // Makes the partial file end where the answer begins.
  void begin(const HttpHead& head) {
    if (head.status == kPartial) {
      const std::optional<ContentRange> range = content_range(head.header("content-range"));
      if (!range || range->first != partial_.have())
        throw HubError(fmt::format("{}: {}: asked for bytes from {}, the server sends '{}'",
                                   client_.repository(), printable(file_.path), partial_.have(),
                                   printable(head.header("content-range"))));
      if (range->total) check_size(*range->total);
      partial_.note_resumed();
      return;
    }
    if (partial_.have() > 0) partial_.restart();  // the server does not send parts
    const std::string_view length = head.header("content-length");
    uint64_t bytes = 0;
    const auto [end, error] = std::from_chars(length.data(), length.data() + length.size(), bytes);
    if (error == std::errc{} && end == length.data() + length.size()) check_size(bytes);
  }

  void check_size(uint64_t bytes) const {
    if (bytes != file_.bytes) refuse_size(std::to_string(bytes));
  }

  [[noreturn]] void refuse_size(const std::string& found) const {
    partial_.remove();
    throw HubError(fmt::format("{}: {}: expected {} bytes, the server sends {}", client_.repository(),
                               printable(file_.path), file_.bytes, found));
  }

  void add(std::span<const std::byte> bytes) {
    if (bytes.size() > file_.bytes - partial_.have()) refuse_size("more");
    partial_.add(bytes);
    done_(partial_.have());
  }

  HubClient& client_;
  std::string url_;
  const HubFile& file_;
  PartialFile& partial_;
  const std::function<void(uint64_t)>& done_;
  bool restarted_ = false;
};

}  // namespace

uint64_t bytes_present(const RepositoryCache& cache, const HubFile& file) {
  if (const std::optional<uint64_t> whole = file_bytes(cache.blob(file.hash)); whole == file.bytes)
    return file.bytes;
  return std::min(file_bytes(incomplete_path(cache, file)).value_or(0), file.bytes);
}

void fetch_blob(HubClient& client, const RepositoryCache& cache, const std::string& commit,
                const HubFile& file, const std::function<void(uint64_t)>& done) {
  cache.prepare();
  const std::string blob = cache.blob(file.hash);
  if (file_bytes(blob) == file.bytes) return;
  const BlobLock lock(cache.lock_path(file.hash), [&] {
    client.events().note(
        fmt::format("{}: waiting for another process that downloads it", printable(file.path)));
  });
  if (file_bytes(blob) == file.bytes) return;  // it did
  PartialFile partial(incomplete_path(cache, file), file);
  const std::string url = fmt::format("{}/{}/resolve/{}/{}", client.settings().endpoint, client.repository(),
                                      commit, percent_encoded(file.path, true));
  for (;;) {
    Download(client, url, file, partial, done).run();
    const std::string hash = partial.finish_hash();
    if (hash == file.hash) break;
    // Pieces of two tries may not fit together; a whole one that is wrong stays wrong.
    if (!partial.resumed()) {
      partial.remove();
      throw HubError(fmt::format("{}: {}: expected the {} {}, found {}: the file was removed",
                                 client.repository(), printable(file.path),
                                 hash.size() == 40 ? "git hash" : "SHA-256", file.hash, hash));
    }
    client.events().note(
        fmt::format("{}: what was there before does not fit: downloading it anew", printable(file.path)));
    partial.restart();
  }
  partial.become(blob);
}

}  // namespace tessera::hub
