#include "engine/model_cache/conversion.h"

#include <fmt/format.h>

#include <filesystem>

namespace tessera::model_cache {

QuantizeOptions conversion_of(const std::string& checkpoint) {
  QuantizeOptions options;
  options.source = checkpoint;
  options.keep = Keep::everything;
  // Neither the place nor the command line: the file is found again for copies, and a prompt is nobody's
  // business.
  options.command = fmt::format("first use of {}", std::filesystem::path(checkpoint).filename().string());
  return options;
}

}  // namespace tessera::model_cache
