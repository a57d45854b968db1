// Downloads one file of a repository into the cache, beginning where an earlier try was cut.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "engine/hub/hub_cache.h"
#include "engine/hub/hub_client.h"
#include "engine/hub/listing.h"

namespace tessera::hub {

// How many bytes of the blob are there, complete or not.
uint64_t bytes_present(const RepositoryCache& cache, const HubFile& file);

// Makes blobs/HASH hold the file, or leaves it as it is when it already does. Bytes go to
// blobs/HASH.incomplete first, which stays when the download ends early; size and hash are compared before it
// gets its name, and what differs is removed. done is called with the bytes that are there. Throws HubError.
void fetch_blob(HubClient& client, const RepositoryCache& cache, const std::string& commit,
                const HubFile& file, const std::function<void(uint64_t)>& done);

}  // namespace tessera::hub
