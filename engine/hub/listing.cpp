#include "engine/hub/listing.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "engine/hub/file_hash.h"
#include "engine/hub/hub_error.h"
#include "engine/hub/url.h"
#include "gguf-like-format/strict_json.h"

namespace tessera::hub {

namespace {

using nlohmann::json;

constexpr JsonLimits kLimits = {size_t{32} << 20, 16, 2'000'000};
constexpr size_t kMostPages = 200;
constexpr size_t kMostFiles = 200'000;
constexpr uint64_t kMostBytes = uint64_t{1} << 46;  // of a file: all files together stay below 2^64
constexpr size_t kMostHashBytes = 64;
constexpr size_t kMostPathBytes = 4096;
constexpr size_t kCommitDigits = 40;

// Faults of documents from the hub, as the hub's.
template <class Action>
auto as_hub_error(const Action& action) {
  try {
    return action();
  } catch (const FileError& error) {
    throw HubError(error.what());
  }
}

HubFile read_file(const json& entry, const std::string& where) {
  const JsonFields fields(entry, where, "file");
  HubFile file;
  file.path = fields.text("path", kMostPathBytes);
  if (!is_safe_path(file.path)) fields.refuse_value("path", "a path below the repository");
  const bool large = fields.find("lfs") != nullptr;
  const JsonFields contents = large ? fields.object("lfs") : fields;
  file.bytes = contents.integer("size", 0, kMostBytes);
  file.hash = contents.text("oid", kMostHashBytes);
  if (!is_content_hash(file.hash) || (large && file.hash.size() != kMostHashBytes))
    contents.refuse_value("oid", large ? "64 hexadecimal digits" : "40 hexadecimal digits");
  return file;
}

// The URL of the next page in a Link header, empty for the last one. It must lie on the endpoint.
std::string next_page(const HubClient& client, const HttpHead& head) {
  const std::string_view link = head.header("link");
  const size_t begin = link.find('<'), end = link.find('>');
  if (begin == std::string_view::npos || end == std::string_view::npos || end < begin ||
      link.find("rel=\"next\"", end) == std::string_view::npos)
    return {};
  const std::string url(link.substr(begin + 1, end - begin - 1));
  if (url.substr(0, 1) == "/") return std::string(origin_of(client.settings().endpoint)) + url;
  if (origin_of(url) != origin_of(client.settings().endpoint))
    throw HubError(fmt::format("{}: the list of files goes on at '{}', which is not the hub's",
                               client.repository(), printable(url)));
  return url;
}

// Repositories whose names are like the missing one, as "; near: A, B"; nothing where the hub does not say.
std::string near_names(HubClient& client) {
  const std::string& repository = client.repository();
  const std::string name = repository.substr(repository.find('/') + 1);
  try {
    const HubClient::Text text =
        client.get_text(fmt::format("{}/api/models?search={}&limit=5", client.settings().endpoint,
                                    percent_encoded(name, false)),
                        "the search for near names");
    const json found = parse_strict_json(text.body, "search", kLimits);
    std::vector<std::string> names;
    if (!found.is_array()) return {};
    for (const json& each : found) {
      if (names.size() < 5 && each.is_object() && each.contains("id") && each["id"].is_string())
        names.push_back(printable(each["id"].get_ref<const std::string&>()));
    }
    return names.empty() ? "" : fmt::format("; near names: {}", fmt::join(names, ", "));
  } catch (const HubError&) {
    return {};
  } catch (const FileError&) {
    return {};
  }
}

std::string commit_of(HubClient& client, const ModelName& name) {
  const std::string url = fmt::format("{}/api/models/{}/revision/{}", client.settings().endpoint,
                                      name.repository, percent_encoded(name.revision, false));
  HubClient::Text text;
  try {
    text = client.get_text(url, fmt::format("revision {}", printable(name.revision)));
  } catch (const MissingRepository& error) {
    throw HubError(error.what() + near_names(client));
  }
  return as_hub_error([&] {
    const std::string where = fmt::format("{}: the hub's description", name.repository);
    const json document = parse_strict_json(text.body, where, kLimits);
    const JsonFields fields(document, where, "");
    std::string commit = fields.text("sha", kCommitDigits);
    if (!is_commit(commit)) fields.refuse_value("sha", "40 hexadecimal digits");
    return commit;
  });
}

}  // namespace

bool is_commit(std::string_view text) { return text.size() == kCommitDigits && is_content_hash(text); }

const HubFile* Listing::find(std::string_view path) const {
  const auto found =
      std::find_if(files.begin(), files.end(), [&](const HubFile& file) { return file.path == path; });
  return found == files.end() ? nullptr : &*found;
}

Listing list_files(HubClient& client, const ModelName& name) {
  Listing listing;
  listing.commit = commit_of(client, name);
  const std::string where = fmt::format("{}: the hub's list of files", name.repository);
  std::string url = fmt::format("{}/api/models/{}/tree/{}?recursive=true", client.settings().endpoint,
                                name.repository, listing.commit);
  for (size_t pages = 0; !url.empty(); ++pages) {
    if (pages == kMostPages || listing.files.size() > kMostFiles)
      throw HubError(
          fmt::format("{}: expected at most {} files and {} pages", where, kMostFiles, kMostPages));
    const HubClient::Text text = client.get_text(url, "the list of files");
    as_hub_error([&] {
      const json document = parse_strict_json(text.body, where, kLimits);
      if (!document.is_array()) throw HubError(fmt::format("{}: expected an array", where));
      for (const json& entry : document) {
        const JsonFields fields(entry, where, "file");
        if (fields.text("type", 32) == "file") listing.files.push_back(read_file(entry, where));
      }
    });
    url = next_page(client, text.head);
  }
  std::sort(listing.files.begin(), listing.files.end(),
            [](const HubFile& a, const HubFile& b) { return a.path < b.path; });
  const auto twice = std::adjacent_find(listing.files.begin(), listing.files.end(),
                                        [](const HubFile& a, const HubFile& b) { return a.path == b.path; });
  if (twice != listing.files.end())
    throw HubError(fmt::format("{}: {} appears twice", where, printable(twice->path)));
  return listing;
}

}  // namespace tessera::hub
