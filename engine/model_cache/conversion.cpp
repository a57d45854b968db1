#include "engine/model_cache/conversion.h"

#include <fmt/format.h>

#include <filesystem>
#include <map>

#include "engine/checkpoint/checkpoint_source.h"

namespace tessera::model_cache {

namespace {

// The float type of most weights, or w8a8 where they are codes.
Scheme scheme_for(const CheckpointSource& checkpoint) {
  std::map<std::string_view, std::pair<uint64_t, std::optional<Scheme>>> weights;
  for (const SourceTensor& tensor : checkpoint.tensors()) {
    auto& [elements, precision] = weights[tensor.type];
    elements += tensor.shape.size() == 2 ? tensor.elements() : 0;
    precision = tensor.precision;
  }
  Scheme scheme = Scheme::w8a8;
  uint64_t most = 0;
  for (const auto& [type, entry] : weights) {
    if (entry.first <= most) continue;
    most = entry.first;
    scheme = type == "F32" || type == "F16" || type == "BF16" ? *entry.second : Scheme::w8a8;
  }
  return scheme;
}

}  // namespace

QuantizeOptions conversion_of(const std::string& checkpoint) {
  QuantizeOptions options;
  options.source = checkpoint;
  options.scheme = scheme_for(*open_checkpoint(checkpoint));
  options.keep_head = !scheme_facts(options.scheme).stores_codes();
  // Neither the place nor the command line: the file is found again for copies, and a prompt is nobody's
  // business.
  options.command = fmt::format("first use of {}", std::filesystem::path(checkpoint).filename().string());
  return options;
}

}  // namespace tessera::model_cache
