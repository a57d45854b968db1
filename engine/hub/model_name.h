// What a user names of a hub: owner/repository, and which file of it.
#pragma once

#include <string>
#include <string_view>

namespace tessera::hub {

struct ModelName {
  std::string repository;  // "owner/name"
  std::string choice;      // a file, or a word such as Q4_K_M that its name ends in; empty: the usual one
  std::string revision = "main";  // a branch, tag or commit
};

// "owner/name[:choice][@revision]", also behind "https://huggingface.co/", "hf.co/" or the endpoint. Throws
// HubError.
ModelName parse_model_name(std::string_view text, std::string_view endpoint);

// Whether the text can be a path inside a repository: relative, without empty parts, "." and "..", control
// characters, and not too long for a file system.
bool is_safe_path(std::string_view path);

}  // namespace tessera::hub
