// How a model is to be run: what computes, how much memory the KV cache may take, how large batches may be.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "engine/backends.h"

namespace tessera {

struct SessionOptions {
  std::string backend = kHostBackend;  // a name of backend_table()
  std::string isa = "auto";            // instruction set: "auto", "avx512", "avx2", "portable"
  // For a backend on a device: how many of the model's last layers run there, the others on kHostBackend.
  // Nothing: all that fit.
  std::optional<size_t> gpu_layers;
  size_t threads = 0;          // 0: the cores this process may use
  std::string numa = "off";    // "local", "interleave": where weights lie on machines of several memory nodes
  size_t context = 0;          // tokens of KV cache in all; 0: the model's own length, limited by free memory
  unsigned kv_bits = 0;        // 16, 8, 4; 0: what the file recommends
  size_t kv_first_layers = 0;  // this many leading layers keep a 16-bit KV cache
  size_t batch = 512;          // most tokens in one run: longer prompts are cut
  size_t max_outputs = 64;     // most rows of logits in one run
  size_t sequences = 1;        // layers with a window have pages for so many sequences of any length
  // Whether a model that needs more memory than there seems to be is refused, and its context cut to fit.
  bool memory_check = true;
};

}  // namespace tessera
