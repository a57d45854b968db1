#include "engine/hub/hub_settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <initializer_list>

#include "engine/hub/hub_error.h"
#include "engine/hub/url.h"
#include "gguf-like-format/strict_json.h"

namespace tessera::hub {

namespace {

constexpr size_t kMostTokenBytes = 4096;

using Lookup = std::function<const char*(const char*)>;

// The first of the variables that is set to anything.
std::string first_set(const Lookup& variable, std::initializer_list<const char*> names) {
  for (const char* name : names)
    if (const char* value = variable(name); value != nullptr && *value != '\0') return value;
  return {};
}

bool is_on(const Lookup& variable, std::initializer_list<const char*> names) {
  std::string value = first_set(variable, names);
  std::transform(value.begin(), value.end(), value.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return value == "1" || value == "ON" || value == "YES" || value == "TRUE";
}

// A path that may begin with "~".
std::string expanded(const Lookup& variable, std::string path) {
  if (path == "~" || path.substr(0, 2) == "~/") return first_set(variable, {"HOME"}) + path.substr(1);
  return path;
}

std::string home_folder(const Lookup& variable) {
  std::string home = expanded(variable, first_set(variable, {"HF_HOME"}));
  if (!home.empty()) return home;
  std::string caches = expanded(variable, first_set(variable, {"XDG_CACHE_HOME"}));
  if (caches.empty()) {
    const std::string user = first_set(variable, {"HOME"});
    if (user.empty()) throw HubError("neither HF_HOME nor HOME is set: there is no folder for downloads");
    caches = user + "/.cache";
  }
  return caches + "/huggingface";
}

std::string clean_token(std::string token) {
  std::erase_if(token, [](char c) { return c == '\r' || c == '\n'; });
  const size_t begin = token.find_first_not_of(" \t");
  if (begin == std::string::npos) return {};
  token = token.substr(begin, token.find_last_not_of(" \t") - begin + 1);
  const bool plain = std::all_of(token.begin(), token.end(), [](char c) { return c > 0x20 && c < 0x7f; });
  if (!plain) throw HubError("the hub's token has characters that no token has (HF_TOKEN or the token file)");
  return token;
}

std::string find_token(const Lookup& variable) {
  std::string token = clean_token(first_set(variable, {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"}));
  if (!token.empty() || is_on(variable, {"HF_HUB_DISABLE_IMPLICIT_TOKEN"})) return token;
  std::string file = expanded(variable, first_set(variable, {"HF_TOKEN_PATH"}));
  if (file.empty()) file = home_folder(variable) + "/token";
  std::error_code error;
  if (!std::filesystem::exists(file, error)) return {};
  return clean_token(read_text_file(file, kMostTokenBytes));
}

}  // namespace

HubSettings read_hub_settings(const Lookup& variable) {
  HubSettings settings;
  if (const std::string endpoint = first_set(variable, {"HF_ENDPOINT"}); !endpoint.empty()) {
    settings.endpoint = endpoint.substr(0, endpoint.find_last_not_of('/') + 1);
    if (origin_of(settings.endpoint).empty() ||
        settings.endpoint.find_first_of("?#\\ \t\r\n") != std::string::npos)
      throw HubError(fmt::format("HF_ENDPOINT: expected http://… or https://…, found '{}'", endpoint));
  }
  settings.offline = is_on(variable, {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"});
  settings.cache = expanded(variable, first_set(variable, {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}));
  if (settings.cache.empty()) settings.cache = home_folder(variable) + "/hub";
  if (!settings.offline) settings.token = find_token(variable);
  return settings;
}

}  // namespace tessera::hub
