#include "engine/hub/model_name.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/hub/hub_error.h"
#include "engine/hub/hub_settings.h"
#include "gguf-like-format/file_error.h"

namespace tessera::hub {

namespace {

constexpr size_t kMostNameBytes = 96;  // of an owner or a name, as the hub has it
constexpr size_t kMostPathBytes = 2048;
constexpr size_t kMostPartBytes = 255;

bool is_part_of_name(std::string_view part) {
  const auto is_plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
  };
  return !part.empty() && part.size() <= kMostNameBytes && part.front() != '.' && part.front() != '-' &&
         part.find("..") == std::string_view::npos && part.find("--") == std::string_view::npos &&
         std::all_of(part.begin(), part.end(), is_plain);
}

}  // namespace

ModelName parse_model_name(std::string_view text, std::string_view endpoint) {
  const auto refuse = [whole = text] {
    throw HubError(fmt::format(
        "expected a model as owner/name, owner/name:FILE or owner/name:QUANT, found '{}'", printable(whole)));
  };
  for (const std::string_view start :
       {endpoint, std::string_view(kPublicEndpoint), std::string_view("hf.co"),
        std::string_view("huggingface.co"), std::string_view("https://hf.co")}) {
    if (text.size() > start.size() && text.substr(0, start.size()) == start && text[start.size()] == '/') {
      text.remove_prefix(start.size() + 1);
      break;
    }
  }
  ModelName name;
  if (const size_t at = text.rfind('@'); at != std::string_view::npos) {
    name.revision = text.substr(at + 1);
    if (!is_safe_path(name.revision)) refuse();
    text = text.substr(0, at);
  }
  if (const size_t colon = text.find(':'); colon != std::string_view::npos) {
    name.choice = text.substr(colon + 1);
    if (!is_safe_path(name.choice)) refuse();
    text = text.substr(0, colon);
  }
  const size_t slash = text.find('/');
  if (slash == std::string_view::npos || !is_part_of_name(text.substr(0, slash)) ||
      !is_part_of_name(text.substr(slash + 1)))
    refuse();
  name.repository = text;
  return name;
}

bool is_safe_path(std::string_view path) {
  if (path.empty() || path.size() > kMostPathBytes) return false;
  if (std::any_of(path.begin(), path.end(), [](char c) { return (c >= 0 && c < 0x20) || c == 0x7f; }))
    return false;
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('/', begin), path.size());
    const std::string_view part = path.substr(begin, end - begin);
    if (part.empty() || part == "." || part == ".." || part.size() > kMostPartBytes) return false;
    begin = end + 1;
  }
  return true;
}

}  // namespace tessera::hub
