// The settings of compressed-tensors: groups of layers, how each group's weights are stored, layers left out.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/checkpoint/block_scaled_reader.h"
#include "engine/checkpoint/module_patterns.h"
#include "engine/checkpoint/tensor_parts.h"

namespace tessera::compressed_tensors {

// What shares a scale.
enum class Strategy : uint8_t { tensor, channel, group, block };

// How the weights of a group of layers lie in the files.
enum class Storage : uint8_t { packed, bytes, fp8 };

struct WeightSettings {
  Storage storage = Storage::packed;
  unsigned bits = 4;
  bool symmetric = true;
  Strategy strategy = Strategy::tensor;
  uint64_t group = 0;  // columns, for Strategy::group
  BlockSize block;     // for Strategy::block
};

class Config {
 public:
  // Throws FileError naming the setting for what is missing, unknown or not supported.
  explicit Config(const JsonFields& fields);
  // The settings of a layer that `tensor` shows to be packed: those of the group that names it, or matches it
  // by a regular expression, or names the class of all linear layers. Throws FileError where there is none.
  const WeightSettings& settings_of(const TensorParts& tensors, const CheckpointTensor& tensor,
                                    const std::string& module) const;

 private:
  struct Target {
    std::string name;  // of a layer or of a class
    size_t group;
  };
  struct PatternTarget {
    ModulePattern pattern;
    size_t group;
  };

  void read_group(const JsonFields& group, std::string_view format);

  std::vector<WeightSettings> groups_;
  std::vector<Target> targets_;
  std::vector<PatternTarget> pattern_targets_;
  std::vector<std::string> ignored_;
  std::vector<ModulePattern> ignored_patterns_;
};

}  // namespace tessera::compressed_tensors
