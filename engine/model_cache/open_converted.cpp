#include "engine/model_cache/open_converted.h"

#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <stdexcept>
#include <utility>

#include "engine/backends.h"
#include "engine/model_cache/conversion.h"
#include "engine/readable_bytes.h"
#include "gguf-like-format/memory_file.h"
#include "gguf-like-format/temporary_file.h"

namespace tessera::model_cache {

namespace {

// A file of the cache under construction. Nothing is created or removed until it is known how large it will
// be.
class CacheTarget : public FileTarget {
 public:
  CacheTarget(const ModelCache& cache, const std::string& name, uint64_t limit, std::function<void()> begun)
      : cache_(cache), path_(cache.model_path(name)), limit_(limit), begun_(std::move(begun)) {}

  void reserve(uint64_t bytes) override {
    if (bytes > limit_)
      throw FileWriteError(
          fmt::format("it takes {}, and --cache-size is {}", readable_bytes(bytes), readable_bytes(limit_)));
    const uint64_t room = cache_.make_room(bytes, limit_);
    if (bytes > room)
      throw FileWriteError(fmt::format("it takes {}, and {} has room for {}", readable_bytes(bytes),
                                       cache_.folder(), readable_bytes(room)));
    file_.emplace(path_);
    file_->reserve(bytes);
    begun_();
  }
  void write(std::span<const std::byte> bytes, uint64_t offset) override { file_->write(bytes, offset); }
  void commit() override { file_->commit(); }

 private:
  const ModelCache& cache_;
  std::string path_;
  uint64_t limit_;
  std::function<void()> begun_;
  std::optional<TemporaryFile> file_;
};

// Refuses what the machine's memory cannot hold before any of it is taken.
class CheckedMemory : public MemoryFile {
 public:
  explicit CheckedMemory(const std::string& name) : MemoryFile(name), name_(name) {}
  void reserve(uint64_t bytes) override {
    const size_t available = available_host_memory();
    if (available != 0 && bytes > available)
      throw FileWriteError(fmt::format("{}: the model takes {}, and {} of memory are available", name_,
                                       readable_bytes(bytes), readable_bytes(available)));
    MemoryFile::reserve(bytes);
  }

 private:
  std::string name_;
};

class Opening {
 public:
  Opening(const std::string& checkpoint, const OpenOptions& options, const OpenEvents& events)
      : checkpoint_(checkpoint), options_(options), events_(events), cache_(options.folder) {}

  OpenedModel open() {
    std::string reason = "there is no folder for a cache: neither XDG_CACHE_HOME nor HOME is set";
    if (options_.limit == 0) {
      reason = "--cache-size is 0";
    } else if (!cache_.folder().empty()) {
      source_ = list_source_files(checkpoint_);
      if (auto found = find_by_stamps()) return std::move(*found);
      if (const auto failure = cache_.create(); !failure) {
        try {
          return find_by_content_or_make();
        } catch (const FileWriteError& error) {
          reason = error.what();
        }
      } else {
        reason = *failure;
      }
    }
    return make_in_memory(reason);
  }

 private:
  std::string shown_name() const { return std::filesystem::path(source_or_given()).filename().string(); }
  const std::string& source_or_given() const { return source_.path.empty() ? checkpoint_ : source_.path; }

  void note(const std::string& line) const {
    if (events_.note) events_.note(line);
  }

  std::function<void(uint64_t, uint64_t)> progress(const char* what) const {
    return [this, what](uint64_t done, uint64_t total) {
      if (events_.progress) events_.progress(what, done, total);
    };
  }

  // The usual way after the first time. Nothing is read but the record and the model's header.
  std::optional<OpenedModel> find_by_stamps() {
    record_ = cache_.find_record(source_.path);
    if (!record_ || record_->source != source_) {
      record_.reset();
      return std::nullopt;
    }
    if (record_->model != model_name(record_->content)) return std::nullopt;  // of another version
    auto lock = std::make_shared<CacheLock>(CacheLock::wait(cache_.folder(), record_->model, LockKind::use));
    try {
      const std::string path = cache_.model_path(record_->model);
      if (stamp_of(path) != record_->model_stamp) return std::nullopt;
      OpenedModel opened{TessFile::open(path, options_.use_mmap, checkpoint_), std::move(lock)};
      cache_.mark_used(source_.path);
      return opened;
    } catch (const FileError&) {
      return std::nullopt;  // gone or damaged
    }
  }

  static std::string model_name(const std::string& content) {
    return fmt::format("{}-{}", content, kConversion);
  }

  OpenedModel find_by_content_or_make() {
    const bool settled = wait_until_settled(source_);
    if (!record_) source_ = list_source_files(checkpoint_);
    const std::string content = record_ ? record_->content : content_hash(source_, progress("reading"));
    const std::string name = model_name(content);
    CacheLock making = CacheLock::attempt(cache_.folder(), name, LockKind::making);
    if (!making.taken()) {
      note(fmt::format("another process is converting {}: waiting for it", shown_name()));
      making = CacheLock::wait(cache_.folder(), name, LockKind::making);
    }
    // Before there is a model, so that nobody removes it between its making and its use.
    auto lock = std::make_shared<CacheLock>(CacheLock::wait(cache_.folder(), name, LockKind::use));
    const auto use = [&](bool verify) {
      const std::string path = cache_.model_path(name);
      const FileStamp stamp = stamp_of(path);
      OpenedModel opened{TessFile::open(path, options_.use_mmap, checkpoint_), lock};
      if (verify)
        if (const auto faults = opened.file->verify(); !faults.empty()) throw FileError(faults.front());
      // What may have been written to within the clock's resolution has to be read again next time.
      if (settled) cache_.remember({source_, content, name, stamp});
      return opened;
    };
    if (::access(cache_.model_path(name).c_str(), F_OK) == 0) {
      try {
        return use(true);  // checked byte for byte: nobody knows where it has been
      } catch (const FileError&) {
        note(
            fmt::format("the converted {} in {} is damaged: it is made anew", shown_name(), cache_.folder()));
      }
    }

    CacheTarget target(cache_, name, options_.limit.value_or(cache_.default_limit()), [&] {
      note(fmt::format("converting {} once, into {}", shown_name(), cache_.folder()));
    });
    convert(target);
    if (list_source_files(checkpoint_) != source_) {
      ::unlink(cache_.model_path(name).c_str());
      throw FileError(fmt::format("{}: changed while it was converted: try again", checkpoint_));
    }
    return use(false);
  }

  void convert(FileTarget& target) const {
    QuantizeOptions options = conversion_of(checkpoint_);
    options.target = shown_name();
    options.output = &target;
    options.threads = options_.threads;
    options.import_note = events_.note;
    options.progress = progress("converting");
    quantize_model(options);
  }

  OpenedModel make_in_memory(const std::string& reason) const {
    note(fmt::format("{} is converted in memory, and again every time: {}", shown_name(), reason));
    auto memory = std::make_shared<CheckedMemory>(shown_name());
    convert(*memory);
    return {TessFile::from_memory(memory->bytes(), checkpoint_), memory};
  }

  const std::string& checkpoint_;
  const OpenOptions& options_;
  const OpenEvents& events_;
  ModelCache cache_;
  SourceFiles source_;
  std::optional<SourceRecord> record_;  // that fits the files as they are
};

}  // namespace

OpenedModel open_converted(const std::string& checkpoint, const OpenOptions& options,
                           const OpenEvents& events) {
  return Opening(checkpoint, options, events).open();
}

}  // namespace tessera::model_cache
