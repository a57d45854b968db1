// Opens a checkpoint as a model file: converted once, found again in the cache later.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "engine/model_cache/model_cache.h"
#include "gguf-like-format/tess/tess_file.h"

namespace tessera::model_cache {

struct OpenOptions {
  std::string folder = default_cache_folder();  // of the cache; empty where there is none
  std::optional<uint64_t> limit;  // bytes the cache may take, 0: keep nothing; else default_limit
  bool use_mmap = true;           // as for TessFile::open
  size_t threads = 0;             // for converting; 0: all cores
};

// What happens meanwhile, for those who want to show it. Any may be empty.
struct OpenEvents {
  std::function<void(const std::string& line)> note;
  // What is being done, and how much of it is done; calls do not overlap, but may come from any thread.
  std::function<void(const char* what, uint64_t done, uint64_t total)> progress;
};

struct OpenedModel {
  std::unique_ptr<TessFile> file;  // its path() is the checkpoint's
  // Keeps the bytes, and the cache from removing them: must live as long as the file.
  std::shared_ptr<const void> needs;
};

// Finds the checkpoint's model by the stamps of its files, or else by a hash of their bytes, or else converts
// it. Where the cache cannot take the result, it is made in memory. Of several processes that need the same
// model one makes it and the others wait. Throws FileError for what cannot be imported, and
// std::runtime_error where there is room neither in the cache nor in memory.
OpenedModel open_converted(const std::string& checkpoint, const OpenOptions& options,
                           const OpenEvents& events);

}  // namespace tessera::model_cache
