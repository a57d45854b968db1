// Parts of URLs.
#pragma once

#include <string>
#include <string_view>

namespace tessera::hub {

// "https://host:port" of an http or https URL, as it is written; empty for anything else.
std::string_view origin_of(std::string_view url);

// The text with all but letters, digits and -._~ as %NN; slashes stay where keep_slashes is set.
std::string percent_encoded(std::string_view text, bool keep_slashes);

}  // namespace tessera::hub
