// The files of a repository at one commit, as the hub lists them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/hub/hub_client.h"
#include "engine/hub/model_name.h"

namespace tessera::hub {

struct HubFile {
  std::string path;  // safe to use below a folder
  uint64_t bytes = 0;
  std::string hash;  // by which the cache names its contents: see is_content_hash
};

struct Listing {
  std::string commit;  // 40 hexadecimal digits
  std::vector<HubFile> files;

  const HubFile* find(std::string_view path) const;  // nullptr when absent
};

// Whether the text is the name of a commit.
bool is_commit(std::string_view text);

// Asks for the commit of the revision and lists its files. Throws HubError: a missing repository with names
// that are near, and file names or sizes that cannot be.
Listing list_files(HubClient& client, const ModelName& name);

}  // namespace tessera::hub
