#include "engine/model_cache/conversion.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "engine/checkpoint/checkpoint_source.h"

namespace tessera::model_cache {

namespace {

// The float type of most weights.
Scheme precision_of(const CheckpointSource& checkpoint) {
  std::map<Scheme, uint64_t> elements;
  for (const SourceTensor& tensor : checkpoint.tensors())
    if (tensor.shape.size() == 2 && tensor.precision) elements[*tensor.precision] += tensor.elements();
  const auto most = std::max_element(elements.begin(), elements.end(),
                                     [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == elements.end() ? Scheme::f32 : most->first;
}

}  // namespace

QuantizeOptions conversion_of(const std::string& checkpoint) {
  QuantizeOptions options;
  options.source = checkpoint;
  options.keep = Keep::where_quantized;
  options.scheme = precision_of(*open_checkpoint(checkpoint));  // without codes
  options.keep_head = true;
  // Neither the place nor the command line: the file is found again for copies, and a prompt is nobody's
  // business.
  options.command = fmt::format("first use of {}", std::filesystem::path(checkpoint).filename().string());
  return options;
}

}  // namespace tessera::model_cache
