// The cache of converted models: what it holds, and emptying it.
#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <filesystem>

#include "commands/commands.h"
#include "commands/load_model.h"
#include "commands/report_table.h"
#include "commands/terminal/terminal.h"
#include "engine/model_cache/model_cache.h"
#include "engine/readable_bytes.h"
#include "gguf-like-format/tess/tess_file.h"

namespace tessera {

namespace {

using model_cache::ModelCache;
using model_cache::StoredModel;

std::string counted(uint64_t models) { return models == 1 ? "1 model" : fmt::format("{} models", models); }

std::string local_time(int64_t nanoseconds) {
  return fmt::format("{:%Y-%m-%d %H:%M}",
                     fmt::localtime(static_cast<std::time_t>(nanoseconds / 1'000'000'000)));
}

std::string scheme_of(const ModelCache& cache, const StoredModel& model) {
  try {
    return one_line(TessFile::open(cache.model_path(model.name), true)->header().quantization.scheme);
  } catch (const FileError&) {
    return "damaged";
  }
}

void list_models(const ModelCache& cache, const std::optional<uint64_t>& limit) {
  ReportTable table{{{"source", true}, {"scheme", true}, {"size"}, {"last used"}}, {}};
  const std::vector<StoredModel> models = cache.models();
  uint64_t bytes = 0;
  for (const StoredModel& model : models) {
    bytes += model.bytes;
    const std::string first = model.sources.empty() ? model.name : model.sources.front();
    table.rows.push_back(
        {one_line(first), scheme_of(cache, model), readable_bytes(model.bytes), local_time(model.last_use)});
    for (size_t i = 1; i < model.sources.size(); ++i)
      table.rows.push_back({one_line(model.sources[i]), "same", "", ""});
  }
  if (!models.empty()) write_stdout(aligned_table(table));
  write_stdout(fmt::format("{} in {}: {} of at most {}\n", counted(models.size()), one_line(cache.folder()),
                           readable_bytes(bytes), readable_bytes(limit.value_or(cache.default_limit()))));
}

// Those of a source, by its path or by the name that list shows.
std::vector<StoredModel> models_of(const std::vector<StoredModel>& all, const std::string& source) {
  std::error_code none;
  std::filesystem::path path = std::filesystem::absolute(source, none).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  std::vector<StoredModel> found;
  std::copy_if(all.begin(), all.end(), std::back_inserter(found), [&](const StoredModel& model) {
    return model.name == source ||
           std::find(model.sources.begin(), model.sources.end(), path.string()) != model.sources.end();
  });
  if (found.empty()) throw std::runtime_error(fmt::format("{}: nothing in the cache was made of it", source));
  return found;
}

void clear_models(const ModelCache& cache, const std::vector<std::string>& sources) {
  std::vector<StoredModel> chosen = cache.models();
  if (!sources.empty()) {
    const std::vector<StoredModel> all = std::move(chosen);
    chosen.clear();
    for (const std::string& source : sources)
      for (StoredModel& model : models_of(all, source)) chosen.push_back(std::move(model));
  }
  model_cache::Removal removed;
  for (const StoredModel& model : chosen) cache.remove(model, removed);
  cache.remove_abandoned(removed);
  write_stdout(fmt::format("{} removed, {} freed\n", counted(removed.models), readable_bytes(removed.bytes)));
  if (removed.in_use > 0) say(fmt::format("{} in use: not removed", counted(removed.in_use)));
}

}  // namespace

int run_cache(const Arguments& arguments) {
  const std::string& action = arguments.operands().front();
  const std::vector<std::string> sources(arguments.operands().begin() + 1, arguments.operands().end());
  const std::optional<uint64_t> limit = cache_limit(arguments);
  if (action != "list" && action != "clear")
    throw UsageError(fmt::format("cache: expected list or clear, found '{}'", action));
  if (action == "list" && !sources.empty())
    throw UsageError(fmt::format("cache list: unexpected '{}'", sources.front()));
  const std::string folder = model_cache::default_cache_folder();
  if (folder.empty())
    throw std::runtime_error("there is no folder for a cache: neither XDG_CACHE_HOME nor HOME is set");
  const ModelCache cache(folder);
  if (action == "list")
    list_models(cache, limit);
  else
    clear_models(cache, sources);
  return kExitDone;
}

}  // namespace tessera
