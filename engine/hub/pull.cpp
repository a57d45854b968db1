#include "engine/hub/pull.h"

#include <fmt/format.h>

#include <optional>
#include <vector>

#include "engine/hub/choose_files.h"
#include "engine/hub/fetch_blob.h"
#include "engine/hub/hub_cache.h"
#include "engine/hub/hub_error.h"
#include "engine/hub/listing.h"
#include "engine/readable_bytes.h"
#include "gguf-like-format/strict_json.h"

namespace tessera::hub {

namespace {

constexpr size_t kMostIndexBytes = size_t{64} << 20;
constexpr uint64_t kSpareBytes = uint64_t{16} << 20;  // left free on the disk

struct Cached {
  std::string path;
  bool certain = false;  // the hub could not offer anything better for the same name
};

bool all_in(const std::vector<std::string>& wanted, const std::vector<std::string>& there) {
  for (const std::string& path : wanted)
    if (!std::binary_search(there.begin(), there.end(), path)) return false;
  return true;
}

// Which files the name asks for: GGUF files or a single named file; otherwise the checkpoint as a whole.
bool wants_folder(const std::vector<std::string>& paths, const ModelName& name) {
  return name.choice.empty() && !has_gguf(paths);
}

bool is_other_file(const std::string& path) { return !path.empty() && !has_gguf(std::span(&path, 1)); }

// What the cache holds of the model; nothing where it is incomplete.
std::optional<Cached> find_cached(const RepositoryCache& cache, const ModelName& name) {
  const std::optional<std::string> commit = cache.commit_of(name.revision);
  if (!commit) return std::nullopt;
  const std::vector<std::string> paths = cache.files(*commit);
  const std::string top = cache.snapshot(*commit);
  try {
    if (const std::string file = named_file(paths, name.choice); is_other_file(file))
      return Cached{top + "/" + file, true};
    if (!wants_folder(paths, name)) {
      const GgufChoice choice = choose_gguf(paths, name.choice, name.repository);
      return Cached{top + "/" + choice.files.front(), choice.certain};
    }
    const FolderChoice choice = choose_folder(paths, name.repository);
    if (choice.index.empty()) return Cached{top, true};
    const std::string index = top + "/" + choice.index;
    if (!all_in(weight_files(read_text_file(index, kMostIndexBytes), index), paths)) return std::nullopt;
    return Cached{top, true};
  } catch (const HubError&) {  // not there, or not whole
    return std::nullopt;
  }
}

// One pull that asks the hub.
class Pull {
 public:
  Pull(HubClient& client, const RepositoryCache& cache, const ModelName& name)
      : client_(client), cache_(cache), name_(name), listing_(list_files(client, name)) {
    for (const HubFile& file : listing_.files) paths_.push_back(file.path);
  }

  std::string run() {
    const std::string top = cache_.snapshot(listing_.commit);
    std::string path = top;
    if (const std::string file = named_file(paths_, name_.choice); is_other_file(file)) {
      fetch({file});
      path += "/" + file;
    } else if (!wants_folder(paths_, name_)) {
      const GgufChoice choice = choose_gguf(paths_, name_.choice, name_.repository);
      fetch(choice.files);
      path += "/" + choice.files.front();
    } else {
      fetch_folder(top);
    }
    cache_.set_commit(name_.revision, listing_.commit);
    return path;
  }

 private:
  // The weights last, so that a folder that has them has everything.
  void fetch_folder(const std::string& top) {
    const FolderChoice choice = choose_folder(paths_, name_.repository);
    fetch(choice.small);
    if (choice.index.empty()) {
      fetch({choice.weights});
      return;
    }
    fetch({choice.index});
    const std::string index = top + "/" + choice.index;
    const std::vector<std::string> parts = weight_files(read_text_file(index, kMostIndexBytes), index);
    for (const std::string& part : parts)
      if (listing_.find(part) == nullptr)
        throw HubError(fmt::format("{}: {} is missing, which {} names", name_.repository, printable(part),
                                   choice.index));
    fetch(parts);
  }

  void fetch(const std::vector<std::string>& paths) {
    uint64_t total = 0, present = 0;
    std::vector<const HubFile*> files;
    for (const std::string& path : paths) {
      files.push_back(listing_.find(path));
      total += files.back()->bytes;
      present += bytes_present(cache_, *files.back());
    }
    check_space(total - present);
    uint64_t finished = 0;
    for (const HubFile* file : files) {
      client_.events().file(file->path);
      fetch_blob(client_, cache_, listing_.commit, *file,
                 [&](uint64_t bytes) { client_.events().progress(finished + bytes, total); });
      cache_.link(listing_.commit, file->path, file->hash);
      finished += file->bytes;
    }
  }

  // Before the download: a disk that fills up on the way helps nobody.
  void check_space(uint64_t bytes) const {
    cache_.prepare();
    const uint64_t available = free_bytes(cache_.folder());
    if (bytes > 0 && (available < kSpareBytes || bytes > available - kSpareBytes))
      throw HubError(
          fmt::format("{}: {} more are needed, {} are free in {}: make room, or set HF_HUB_CACHE to "
                      "another folder",
                      name_.repository, readable_bytes(bytes), readable_bytes(available), cache_.folder()));
  }

  HubClient& client_;
  const RepositoryCache& cache_;
  const ModelName& name_;
  Listing listing_;
  std::vector<std::string> paths_;
};

}  // namespace

std::string pull_model(const ModelName& name, const HubSettings& settings, Ask ask, const HubEvents& events,
                       const std::function<std::unique_ptr<Http>()>& connect) {
  const RepositoryCache cache(settings.cache, name.repository);
  const std::optional<Cached> cached = find_cached(cache, name);
  if (cached && (settings.offline || (ask == Ask::when_missing && cached->certain))) return cached->path;
  const std::string what =
      name.choice.empty() ? name.repository : name.repository + ":" + printable(name.choice);
  if (settings.offline)
    throw HubError(
        fmt::format("{}: not in {}, and HF_HUB_OFFLINE forbids to download it", what, settings.cache));
  const std::unique_ptr<Http> http = connect();
  HubClient client(*http, settings, events, name.repository);
  try {
    return Pull(client, cache, name).run();
  } catch (const NoConnection& error) {
    if (!cached) throw HubError(fmt::format("{}: not in {}, and {}", what, settings.cache, error.what()));
    events.note(fmt::format("{}: {}; using what was downloaded before", what, error.what()));
    return cached->path;
  }
}

}  // namespace tessera::hub
