// The folder of converted models: models/NAME.tess, and sources/HASH.json for every checkpoint that was
// opened, which remembers its files' stamps and the model made of it. Whatever is missing, unreadable or
// damaged there costs work, never a wrong model.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/model_cache/cache_lock.h"
#include "engine/model_cache/source_files.h"

namespace tessera::model_cache {

// What an earlier run found out about a checkpoint.
struct SourceRecord {
  SourceFiles source;
  std::string content;  // its content_hash
  std::string model;    // name of the model made of it
  FileStamp model_stamp;
};

struct StoredModel {
  std::string name;
  uint64_t bytes = 0;
  int64_t last_use = 0;              // nanoseconds since 1970
  std::vector<std::string> sources;  // checkpoints known to give it; empty when their records are lost
};

struct Removal {
  uint64_t models = 0;
  uint64_t bytes = 0;   // of models and of what killed conversions left
  uint64_t in_use = 0;  // models that stay
};

class ModelCache {
 public:
  explicit ModelCache(std::string folder);  // absolute; touches nothing

  const std::string& folder() const { return folder_; }
  std::string model_path(const std::string& name) const;
  // Creates the folders. Returns the reason where that fails.
  std::optional<std::string> create() const;

  // The record of a checkpoint by its absolute path, if there is a sound one.
  std::optional<SourceRecord> find_record(const std::string& source) const;
  // Stores it and marks the model as just used. That it cannot be written is no error.
  void remember(const SourceRecord& record) const;
  void mark_used(const std::string& source) const;

  std::vector<StoredModel> models() const;  // the one used last first
  // Removes a model with its records, unless it is in use; adds what that gave to the sum.
  void remove(const StoredModel& model, Removal& sum) const;
  // Removes what killed conversions left behind.
  void remove_abandoned(Removal& sum) const;
  // Removes the models used longest ago until `bytes` more fit under the limit and on the disk, as far as
  // models that are not in use allow. Returns the bytes that the limit then leaves.
  uint64_t make_room(uint64_t bytes, uint64_t limit) const;

  // What the cache may take where nobody said: a tenth of its disk, but at least 20 GB.
  uint64_t default_limit() const;

 private:
  std::string record_path(const std::string& source) const;
  std::string folder_;
};

// $XDG_CACHE_HOME/tessera or $HOME/.cache/tessera by the environment. Relative paths do not count; empty
// where neither is set.
std::string default_cache_folder();

}  // namespace tessera::model_cache
