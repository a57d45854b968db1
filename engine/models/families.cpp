#include "engine/models/families.h"

#include <fmt/format.h>

#include <array>

#include "engine/models/llama_config.h"
#include "gguf-like-format/file_error.h"

namespace tessera {

namespace {

constexpr std::array kLlamaNames = {
    SourceName{Role::token_embedding, "model.embed_tokens.weight"},
    SourceName{Role::attention_norm, "model.layers.{}.input_layernorm.weight"},
    SourceName{Role::q, "model.layers.{}.self_attn.q_proj.weight"},
    SourceName{Role::k, "model.layers.{}.self_attn.k_proj.weight"},
    SourceName{Role::v, "model.layers.{}.self_attn.v_proj.weight"},
    SourceName{Role::q_bias, "model.layers.{}.self_attn.q_proj.bias"},
    SourceName{Role::k_bias, "model.layers.{}.self_attn.k_proj.bias"},
    SourceName{Role::v_bias, "model.layers.{}.self_attn.v_proj.bias"},
    SourceName{Role::o, "model.layers.{}.self_attn.o_proj.weight"},
    SourceName{Role::o_bias, "model.layers.{}.self_attn.o_proj.bias"},
    SourceName{Role::ffn_norm, "model.layers.{}.post_attention_layernorm.weight"},
    SourceName{Role::gate, "model.layers.{}.mlp.gate_proj.weight"},
    SourceName{Role::up, "model.layers.{}.mlp.up_proj.weight"},
    SourceName{Role::down, "model.layers.{}.mlp.down_proj.weight"},
    SourceName{Role::output_norm, "model.norm.weight"},
    SourceName{Role::output_head, "lm_head.weight"},
};

// Columns: model_type, architecture, reader, kv_heads, has_sliding_window, window_has_switch, sliding_window,
// reads_attention_bias.
constexpr std::array kLlamaClasses = {
    HuggingFaceClass{"llama", "LlamaForCausalLM", read_llama_config, 0, false, false, 0, true},
    HuggingFaceClass{"mistral", "MistralForCausalLM", read_llama_config, 8, true, false, 4096, false},
};
constexpr std::array kQwen2Classes = {
    HuggingFaceClass{"qwen2", "Qwen2ForCausalLM", read_llama_config, 32, true, true, 0, false},
};

constexpr std::array kFamilies = {
    // Llama 1 to 3 and everything built alike.
    Family{"llama", BiasRule::configured, BiasRule::configured, kLlamaClasses, kLlamaNames},
    Family{"qwen2", BiasRule::always, BiasRule::never, kQwen2Classes, kLlamaNames},
};

}  // namespace

std::span<const Family> families() { return kFamilies; }

const Family& find_family(std::string_view name, const std::string& source) {
  std::string known;
  for (const Family& family : kFamilies) {
    if (family.name == name) return family;
    known += fmt::format("{}\"{}\"", known.empty() ? "" : ", ", family.name);
  }
  throw FileError(fmt::format("{}: model.family: expected one of {}, found \"{}\"", source, known, name));
}

FamilyClass find_model_type(std::string_view model_type) {
  for (const Family& family : kFamilies) {
    for (const HuggingFaceClass& type : family.classes)
      if (type.model_type == model_type) return {&family, &type};
  }
  return {};
}

std::string known_model_types() {
  std::vector<std::string_view> names;
  for (const Family& family : kFamilies)
    for (const HuggingFaceClass& type : family.classes) names.push_back(type.model_type);
  const std::string_view last = names.back();
  names.pop_back();
  return fmt::format("{} or {}", fmt::join(names, ", "), last);
}

}  // namespace tessera
