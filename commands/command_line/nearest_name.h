// The name that was meant by one that does not exist.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace tessera {

// The candidate with the smallest edit distance to name, or empty when none is close enough to be meant.
std::string nearest_name(std::string_view name, std::span<const std::string> candidates);

}  // namespace tessera
