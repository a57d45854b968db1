// Random weights in the shape of a well-known model, built in memory, so that a machine's speed can be
// measured without downloading anything. What such a model says is noise.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "gguf-like-format/model_header.h"
#include "gguf-like-format/scheme.h"
#include "gguf-like-format/tess/tess_writer.h"

namespace tessera {

// Names such as "llama-3.2-1b", smallest model first.
std::vector<std::string> random_model_shapes();
Hyperparameters random_model_shape(const std::string& name);  // throws std::invalid_argument when unknown

class RandomModel {
 public:
  // A known shape. Throws std::invalid_argument for an unknown name, std::runtime_error with the numbers when
  // the memory is not there.
  RandomModel(const std::string& shape, Scheme scheme, size_t threads, uint64_t seed);
  // Any shape; the vocabulary must be at least 259.
  RandomModel(const std::string& name, const Hyperparameters& shape, Scheme scheme, size_t threads,
              uint64_t seed);

  // A whole .tess file for Model::from_memory, valid while this object lives.
  std::span<const std::byte> bytes() const { return image_.bytes(); }

 private:
  TessImage image_;
};

}  // namespace tessera
