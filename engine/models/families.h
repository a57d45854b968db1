// The model families this build knows: one row each. A row says how a family differs from the others; its
// graph follows from the description (description.h) that the row and a model's numbers give together.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/models/built_in_templates.h"
#include "gguf-like-format/model_header.h"
#include "gguf-like-format/tensor_roles.h"
#include "graph/graph.h"

namespace tessera {

class GgufMetadata;
class JsonFields;
struct HuggingFaceClass;

// Hyperparameters from a config.json; document is its root object, config the same with error texts. Throws
// FileError naming the field for what is missing, out of range or not supported; adds to notes, a line each,
// what the model is read as where its files say something else.
using ConfigReader = Hyperparameters (*)(const nlohmann::json& document, const JsonFields& config,
                                         const HuggingFaceClass& type, std::vector<std::string>& notes);

// A model type of Hugging Face transformers that a family can read, and what transformers assumes where the
// type's config.json is silent.
struct HuggingFaceClass {
  std::string_view model_type;    // "model_type" of config.json
  std::string_view architecture;  // the class with a language model head
  ConfigReader read;
  uint64_t kv_heads;          // 0: as many as query heads
  uint64_t head_dim;          // 0: hidden_size / num_attention_heads
  bool has_sliding_window;    // whether the type knows the setting at all
  bool window_has_switch;     // whether use_sliding_window, off by default, rules it
  uint64_t sliding_window;    // 0: none
  bool reads_attention_bias;  // whether attention_bias gives all four projections of attention a bias
};

enum class BiasRule : uint8_t { never, configured, always };

// A role's tensor in a checkpoint; "{}" stands for the number of the layer. Roles that share a name are rows
// of one tensor, in the order of their list. A transposed tensor is stored as [columns, rows].
struct SourceName {
  Role role;
  std::string_view name;
  bool transposed = false;
};

// How GGUF files hold a family.
struct GgufArchitecture {
  std::string_view name;  // of general.architecture; empty: no GGUF file can be read
  // Whether rows of q and k, and their biases, lie in pairs of neighbours for rotary positions (see
  // TensorSource) over the whole of every head.
  bool neighbouring_pairs;
  std::span<const SourceName> names;  // a name for every role that the family has
  // Adds the settings that only this architecture has to hyperparameters whose other fields are read; keys
  // begin with the architecture's name. May be null. Throws FileError. Of neutral settings (gguf_config.cpp)
  // it reads those listed.
  void (*read)(const GgufMetadata& metadata, Hyperparameters& h) = nullptr;
  std::span<const std::string_view> read_keys = {};
};

struct Family {
  std::string_view name;  // as in Hyperparameters::family
  BiasRule qkv_bias;
  BiasRule output_bias;
  bool query_key_norms;  // of every head, before rotation
  std::span<const HuggingFaceClass> classes;
  std::span<const SourceName> names;  // a name for every role that the family has
  GgufArchitecture gguf;
  GateFunction gate = GateFunction::silu;
  bool output_norms = false;                   // of what a part of a layer gives, before it is added
  float gain_offset = 0;                       // that gains of norms lack in Hugging Face checkpoints
  std::span<const SourceName> own_names = {};  // that go before names
  uint64_t first_position = 0;                 // the row of a checkpoint's position embeddings for position 0
  bool learned_positions = false;              // added to embeddings; nothing is rotated
  bool layer_norms = false;                    // norms take away the mean and have a bias
  bool gated = true;                           // whether there is a gate beside up
  bool ffn_bias = false;                       // of up and down
  // The first that applies is that of a model whose checkpoint has no chat template.
  std::span<const BuiltInTemplate> chat_templates = {};
  uint64_t unit_head_vocabulary =
      0;  // models of this vocabulary have rows of length 1 in their head; 0: none
};

std::span<const Family> families();

// The entry of a role; nullptr when it is not listed.
const SourceName* find_name(std::span<const SourceName> names, Role role);
// The name of a role's tensors; empty when it is not listed.
std::string_view name_of(std::span<const SourceName> names, Role role);

// Throws FileError that begins with source for a family that is not in the table.
const Family& find_family(std::string_view name, const std::string& source);

// The family and the row of its class for a config.json's model_type; both null for an unknown one.
struct FamilyClass {
  const Family* family = nullptr;
  const HuggingFaceClass* type = nullptr;
};
FamilyClass find_model_type(std::string_view model_type);
std::string known_model_types();  // "llama, mistral or qwen2"

// The family of a GGUF file's general.architecture; nullptr for an unknown one.
const Family* find_gguf_architecture(std::string_view name);
std::string known_gguf_architectures();  // "llama or qwen2"

}  // namespace tessera
