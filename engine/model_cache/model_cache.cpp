#include "engine/model_cache/model_cache.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "gguf-like-format/file_error.h"
#include "gguf-like-format/strict_json.h"
#include "gguf-like-format/temporary_file.h"

namespace tessera::model_cache {

namespace {

constexpr uint64_t kLeastDefaultLimit = 20'000'000'000;
constexpr uint64_t kDiskShare = 10;  // of which the default limit is one part
constexpr size_t kMostRecordBytes = size_t{1} << 22;
constexpr size_t kMostPathBytes = 1 << 16;
constexpr uint64_t kRecordVersion = 1;
constexpr uint64_t kMost = std::numeric_limits<int64_t>::max();  // times and inodes as signed or unsigned

nlohmann::json to_json(const FileStamp& stamp) {
  return {{"path", stamp.path},
          {"bytes", stamp.bytes},
          {"modified", stamp.modified},
          {"changed", stamp.changed},
          {"inode", stamp.inode}};
}

FileStamp read_stamp(const nlohmann::json& value, const std::string& where) {
  const JsonFields fields(value, where, "file");
  FileStamp stamp;
  stamp.path = fields.text("path", kMostPathBytes);
  stamp.bytes = fields.integer("bytes", 0, kMost);
  stamp.modified = static_cast<int64_t>(fields.integer("modified", 0, kMost));
  stamp.changed = static_cast<int64_t>(fields.integer("changed", 0, kMost));
  stamp.inode = fields.integer("inode", 0, std::numeric_limits<uint64_t>::max());
  return stamp;
}

SourceRecord read_record(const std::string& path) {
  JsonLimits limits;
  limits.bytes = kMostRecordBytes;
  const nlohmann::json json = read_strict_json(path, limits);
  const JsonFields fields(json, path, "");
  fields.integer("version", kRecordVersion, kRecordVersion);
  SourceRecord record;
  record.source.path = fields.text("source", kMostPathBytes);
  for (const nlohmann::json& file : fields.array("files"))
    record.source.files.push_back(read_stamp(file, path));
  record.content = fields.text("content", kMostPathBytes);
  record.model = fields.text("model", kMostPathBytes);
  if (record.model.find('/') != std::string::npos) fields.refuse_value("model", "a name");
  record.model_stamp = read_stamp(fields.require("model_file"), path);
  return record;
}

bool make_folder(const std::string& path) { return ::mkdir(path.c_str(), 0700) == 0 || errno == EEXIST; }

std::vector<std::string> files_in(const std::string& folder, std::string_view ending) {
  std::vector<std::string> paths;
  std::error_code error;
  std::filesystem::directory_iterator entry(folder, error);
  for (const std::filesystem::directory_iterator end; !error && entry != end; entry.increment(error))
    if (entry->path().filename().string().ends_with(ending)) paths.push_back(entry->path().string());
  return paths;
}

// Of a file that may have gone meanwhile.
std::optional<FileStamp> find_stamp(const std::string& path) {
  try {
    return stamp_of(path);
  } catch (const FileError&) {
    return std::nullopt;
  }
}

}  // namespace

ModelCache::ModelCache(std::string folder) : folder_(std::move(folder)) {}

std::string ModelCache::model_path(const std::string& name) const {
  return fmt::format("{}/models/{}.tess", folder_, name);
}

std::string ModelCache::record_path(const std::string& source) const {
  const XXH128_hash_t hash = XXH3_128bits(source.data(), source.size());
  return fmt::format("{}/sources/{:016x}{:016x}.json", folder_, hash.high64, hash.low64);
}

std::optional<std::string> ModelCache::create() const {
  std::vector<std::string> missing;
  for (std::filesystem::path path(folder_); !path.empty() && path != path.root_path();
       path = path.parent_path()) {
    std::error_code none;
    if (std::filesystem::exists(path, none)) break;
    missing.push_back(path.string());
  }
  std::reverse(missing.begin(), missing.end());
  missing.push_back(folder_ + "/models");
  missing.push_back(folder_ + "/sources");
  for (const std::string& path : missing)
    if (!make_folder(path)) return fmt::format("{}: cannot be created: {}", path, std::strerror(errno));
  return std::nullopt;
}

std::optional<SourceRecord> ModelCache::find_record(const std::string& source) const {
  try {
    SourceRecord record = read_record(record_path(source));
    if (record.source.path == source) return record;
  } catch (const FileError&) {
    // Missing or damaged: found out anew.
  }
  return std::nullopt;
}

void ModelCache::remember(const SourceRecord& record) const {
  nlohmann::json files = nlohmann::json::array();
  for (const FileStamp& file : record.source.files) files.push_back(to_json(file));
  const nlohmann::json json = {{"version", kRecordVersion}, {"source", record.source.path},
                               {"files", std::move(files)}, {"content", record.content},
                               {"model", record.model},     {"model_file", to_json(record.model_stamp)}};
  try {
    const std::string text = json.dump(1) + "\n";
    if (text.size() > kMostRecordBytes) return;
    TemporaryFile file(record_path(record.source.path));
    file.write(std::as_bytes(std::span(text)), 0);
    file.commit();
  } catch (const FileError&) {
    // The next run finds the model by its content.
  } catch (const nlohmann::json::exception&) {
    // A path that is not UTF-8.
  }
}

void ModelCache::mark_used(const std::string& source) const {
  ::utimensat(AT_FDCWD, record_path(source).c_str(), nullptr, 0);
}

std::vector<StoredModel> ModelCache::models() const {
  std::map<std::string, StoredModel> found;
  for (const std::string& path : files_in(folder_ + "/models", ".tess")) {
    const auto stamp = find_stamp(path);
    if (!stamp) continue;
    StoredModel model;
    model.name = std::filesystem::path(path).stem().string();
    model.bytes = stamp->bytes;
    model.last_use = stamp->modified;
    found.emplace(model.name, model);
  }
  for (const std::string& path : files_in(folder_ + "/sources", ".json")) {
    const auto stamp = find_stamp(path);
    if (!stamp) continue;
    try {
      const SourceRecord record = read_record(path);
      const auto model = found.find(record.model);
      if (model == found.end()) continue;
      model->second.sources.push_back(record.source.path);
      model->second.last_use = std::max(model->second.last_use, stamp->modified);
    } catch (const FileError&) {
      // Damaged: as if it were not there.
    }
  }
  std::vector<StoredModel> models;
  for (auto& [name, model] : found) {
    std::sort(model.sources.begin(), model.sources.end());
    models.push_back(std::move(model));
  }
  std::stable_sort(models.begin(), models.end(),
                   [](const StoredModel& a, const StoredModel& b) { return a.last_use > b.last_use; });
  return models;
}

void ModelCache::remove(const StoredModel& model, Removal& sum) const {
  const CacheLock lock = CacheLock::attempt(folder_, model.name, LockKind::removal);
  if (!lock.taken()) {
    ++sum.in_use;
    return;
  }
  if (::unlink(model_path(model.name).c_str()) != 0) {
    if (errno != ENOENT)
      throw FileWriteError(
          fmt::format("{}: cannot be removed: {}", model_path(model.name), std::strerror(errno)));
    return;
  }
  ++sum.models;
  sum.bytes += model.bytes;
  for (const std::string& source : model.sources) ::unlink(record_path(source).c_str());
}

void ModelCache::remove_abandoned(Removal& sum) const {
  for (const char* part : {"/models", "/sources"}) sum.bytes += remove_abandoned_files(folder_ + part);
}

uint64_t ModelCache::make_room(uint64_t bytes, uint64_t limit) const {
  Removal removed;
  remove_abandoned(removed);
  uint64_t taken = 0;
  for (const std::string& path :
       files_in(folder_ + "/models", ".partial"))  // of conversions that are going on
    if (const auto stamp = find_stamp(path)) taken += stamp->bytes;
  std::vector<StoredModel> all = models();
  for (const StoredModel& model : all) taken += model.bytes;
  const auto on_disk = [&]() -> uint64_t {
    struct statvfs info {};
    return ::statvfs(folder_.c_str(), &info) == 0 ? uint64_t{info.f_bavail} * info.f_frsize : bytes;
  };
  const auto left = [&] { return limit > taken ? limit - taken : 0; };
  if (bytes > limit || bytes > on_disk() + taken)
    return std::min(left(), on_disk());  // removals would be in vain
  for (; !all.empty() && (left() < bytes || on_disk() < bytes); all.pop_back()) {
    Removal one;
    remove(all.back(), one);
    taken -= one.bytes;
  }
  return left();
}

uint64_t ModelCache::default_limit() const {
  struct statvfs info {};
  for (std::filesystem::path path(folder_); ::statvfs(path.c_str(), &info) != 0; path = path.parent_path())
    if (path == path.root_path()) return kLeastDefaultLimit;
  return std::max(kLeastDefaultLimit, uint64_t{info.f_blocks} * info.f_frsize / kDiskShare);
}

std::string default_cache_folder() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache != nullptr && cache[0] == '/') return fmt::format("{}/tessera", cache);
  const char* home = std::getenv("HOME");
  if (home != nullptr && home[0] == '/') return fmt::format("{}/.cache/tessera", home);
  return "";
}

}  // namespace tessera::model_cache
