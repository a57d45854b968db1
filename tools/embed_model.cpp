// Build step: quantizes a checkpoint folder to the .tess file that is linked into the executable.
// Usage: embed_model FOLDER TARGET
#include <fmt/format.h>

#include <cstdio>
#include <exception>
#include <filesystem>

#include "engine/quantize/quantize_model.h"

int main(int argument_count, char** arguments) {
  if (argument_count != 3) {
    std::fputs("usage: embed_model FOLDER TARGET\n", stderr);
    return 2;
  }
  tessera::QuantizeOptions options;
  options.source = arguments[1];
  options.target = arguments[2];
  options.scheme = tessera::Scheme::w4a8_g128;
  // The command is stored in the file: only the folder's name, so that the bytes do not depend on the place.
  const std::string name = std::filesystem::path(options.source).lexically_normal().filename().string();
  options.command = fmt::format("tessera quantize {} --scheme {}", name, scheme_name(options.scheme));
  try {
    quantize_model(options);
  } catch (const std::exception& error) {
    std::fputs(fmt::format("embed_model: {}\n", error.what()).c_str(), stderr);
    return 1;
  }
  return 0;
}
