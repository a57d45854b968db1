#include "engine/models/families.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "engine/models/baichuan_config.h"
#include "engine/models/gemma_config.h"
#include "engine/models/gguf_settings.h"
#include "engine/models/gpt2_config.h"
#include "engine/models/llama_config.h"
#include "engine/models/opt_config.h"
#include "engine/models/qwen_config.h"
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
    SourceName{Role::q_norm, "model.layers.{}.self_attn.q_norm.weight"},
    SourceName{Role::k_norm, "model.layers.{}.self_attn.k_norm.weight"},
    SourceName{Role::o, "model.layers.{}.self_attn.o_proj.weight"},
    SourceName{Role::o_bias, "model.layers.{}.self_attn.o_proj.bias"},
    SourceName{Role::ffn_norm, "model.layers.{}.post_attention_layernorm.weight"},
    SourceName{Role::gate, "model.layers.{}.mlp.gate_proj.weight"},
    SourceName{Role::up, "model.layers.{}.mlp.up_proj.weight"},
    SourceName{Role::down, "model.layers.{}.mlp.down_proj.weight"},
    SourceName{Role::output_norm, "model.norm.weight"},
    SourceName{Role::output_head, "lm_head.weight"},
};

// What Baichuan calls otherwise than Llama.
constexpr std::array kBaichuanNames = {
    SourceName{Role::q, "model.layers.{}.self_attn.W_pack.weight"},
    SourceName{Role::k, "model.layers.{}.self_attn.W_pack.weight"},
    SourceName{Role::v, "model.layers.{}.self_attn.W_pack.weight"},
};

constexpr std::array kQwenNames = {
    SourceName{Role::token_embedding, "transformer.wte.weight"},
    SourceName{Role::attention_norm, "transformer.h.{}.ln_1.weight"},
    SourceName{Role::q, "transformer.h.{}.attn.c_attn.weight"},
    SourceName{Role::k, "transformer.h.{}.attn.c_attn.weight"},
    SourceName{Role::v, "transformer.h.{}.attn.c_attn.weight"},
    SourceName{Role::q_bias, "transformer.h.{}.attn.c_attn.bias"},
    SourceName{Role::k_bias, "transformer.h.{}.attn.c_attn.bias"},
    SourceName{Role::v_bias, "transformer.h.{}.attn.c_attn.bias"},
    SourceName{Role::o, "transformer.h.{}.attn.c_proj.weight"},
    SourceName{Role::ffn_norm, "transformer.h.{}.ln_2.weight"},
    SourceName{Role::gate, "transformer.h.{}.mlp.w2.weight"},
    SourceName{Role::up, "transformer.h.{}.mlp.w1.weight"},
    SourceName{Role::down, "transformer.h.{}.mlp.c_proj.weight"},
    SourceName{Role::output_norm, "transformer.ln_f.weight"},
    SourceName{Role::output_head, "lm_head.weight"},
};

constexpr std::array kGpt2Names = {
    SourceName{Role::token_embedding, "transformer.wte.weight"},
    SourceName{Role::position_embedding, "transformer.wpe.weight"},
    SourceName{Role::attention_norm, "transformer.h.{}.ln_1.weight"},
    SourceName{Role::attention_norm_bias, "transformer.h.{}.ln_1.bias"},
    SourceName{Role::q, "transformer.h.{}.attn.c_attn.weight", true},
    SourceName{Role::k, "transformer.h.{}.attn.c_attn.weight", true},
    SourceName{Role::v, "transformer.h.{}.attn.c_attn.weight", true},
    SourceName{Role::q_bias, "transformer.h.{}.attn.c_attn.bias"},
    SourceName{Role::k_bias, "transformer.h.{}.attn.c_attn.bias"},
    SourceName{Role::v_bias, "transformer.h.{}.attn.c_attn.bias"},
    SourceName{Role::o, "transformer.h.{}.attn.c_proj.weight", true},
    SourceName{Role::o_bias, "transformer.h.{}.attn.c_proj.bias"},
    SourceName{Role::ffn_norm, "transformer.h.{}.ln_2.weight"},
    SourceName{Role::ffn_norm_bias, "transformer.h.{}.ln_2.bias"},
    SourceName{Role::up, "transformer.h.{}.mlp.c_fc.weight", true},
    SourceName{Role::up_bias, "transformer.h.{}.mlp.c_fc.bias"},
    SourceName{Role::down, "transformer.h.{}.mlp.c_proj.weight", true},
    SourceName{Role::down_bias, "transformer.h.{}.mlp.c_proj.bias"},
    SourceName{Role::output_norm, "transformer.ln_f.weight"},
    SourceName{Role::output_norm_bias, "transformer.ln_f.bias"},
    SourceName{Role::output_head, "lm_head.weight"},
};

constexpr std::array kOptNames = {
    SourceName{Role::token_embedding, "model.decoder.embed_tokens.weight"},
    SourceName{Role::position_embedding, "model.decoder.embed_positions.weight"},
    SourceName{Role::embedding_projection, "model.decoder.project_in.weight"},
    SourceName{Role::attention_norm, "model.decoder.layers.{}.self_attn_layer_norm.weight"},
    SourceName{Role::attention_norm_bias, "model.decoder.layers.{}.self_attn_layer_norm.bias"},
    SourceName{Role::q, "model.decoder.layers.{}.self_attn.q_proj.weight"},
    SourceName{Role::k, "model.decoder.layers.{}.self_attn.k_proj.weight"},
    SourceName{Role::v, "model.decoder.layers.{}.self_attn.v_proj.weight"},
    SourceName{Role::q_bias, "model.decoder.layers.{}.self_attn.q_proj.bias"},
    SourceName{Role::k_bias, "model.decoder.layers.{}.self_attn.k_proj.bias"},
    SourceName{Role::v_bias, "model.decoder.layers.{}.self_attn.v_proj.bias"},
    SourceName{Role::o, "model.decoder.layers.{}.self_attn.out_proj.weight"},
    SourceName{Role::o_bias, "model.decoder.layers.{}.self_attn.out_proj.bias"},
    SourceName{Role::ffn_norm, "model.decoder.layers.{}.final_layer_norm.weight"},
    SourceName{Role::ffn_norm_bias, "model.decoder.layers.{}.final_layer_norm.bias"},
    SourceName{Role::up, "model.decoder.layers.{}.fc1.weight"},
    SourceName{Role::up_bias, "model.decoder.layers.{}.fc1.bias"},
    SourceName{Role::down, "model.decoder.layers.{}.fc2.weight"},
    SourceName{Role::down_bias, "model.decoder.layers.{}.fc2.bias"},
    SourceName{Role::output_norm, "model.decoder.final_layer_norm.weight"},
    SourceName{Role::output_norm_bias, "model.decoder.final_layer_norm.bias"},
    SourceName{Role::head_projection, "model.decoder.project_out.weight"},
    SourceName{Role::output_head, "lm_head.weight"},
};

constexpr std::array kGgufNames = {
    SourceName{Role::token_embedding, "token_embd.weight"},
    SourceName{Role::position_embedding, "position_embd.weight"},
    SourceName{Role::attention_norm, "blk.{}.attn_norm.weight"},
    SourceName{Role::attention_norm_bias, "blk.{}.attn_norm.bias"},
    SourceName{Role::q, "blk.{}.attn_q.weight"},
    SourceName{Role::k, "blk.{}.attn_k.weight"},
    SourceName{Role::v, "blk.{}.attn_v.weight"},
    SourceName{Role::q_bias, "blk.{}.attn_q.bias"},
    SourceName{Role::k_bias, "blk.{}.attn_k.bias"},
    SourceName{Role::v_bias, "blk.{}.attn_v.bias"},
    SourceName{Role::q_norm, "blk.{}.attn_q_norm.weight"},
    SourceName{Role::k_norm, "blk.{}.attn_k_norm.weight"},
    SourceName{Role::o, "blk.{}.attn_output.weight"},
    SourceName{Role::o_bias, "blk.{}.attn_output.bias"},
    SourceName{Role::attention_output_norm, "blk.{}.post_attention_norm.weight"},
    SourceName{Role::ffn_norm, "blk.{}.ffn_norm.weight"},
    SourceName{Role::ffn_norm_bias, "blk.{}.ffn_norm.bias"},
    SourceName{Role::gate, "blk.{}.ffn_gate.weight"},
    SourceName{Role::up, "blk.{}.ffn_up.weight"},
    SourceName{Role::up_bias, "blk.{}.ffn_up.bias"},
    SourceName{Role::down, "blk.{}.ffn_down.weight"},
    SourceName{Role::down_bias, "blk.{}.ffn_down.bias"},
    SourceName{Role::ffn_output_norm, "blk.{}.post_ffw_norm.weight"},
    SourceName{Role::output_norm, "output_norm.weight"},
    SourceName{Role::output_norm_bias, "output_norm.bias"},
    SourceName{Role::output_head, "output.weight"},
};

// What Gemma 2 and 3, with norms on both sides of each part of a layer, call otherwise or have besides.
constexpr std::array kGemma3Names = {
    SourceName{Role::attention_output_norm, "model.layers.{}.post_attention_layernorm.weight"},
    SourceName{Role::ffn_norm, "model.layers.{}.pre_feedforward_layernorm.weight"},
    SourceName{Role::ffn_output_norm, "model.layers.{}.post_feedforward_layernorm.weight"},
};

// Columns: model_type, architecture, reader, kv_heads, head_dim, has_sliding_window, window_has_switch,
// sliding_window, reads_attention_bias.
constexpr std::array kLlamaClasses = {
    HuggingFaceClass{"llama", "LlamaForCausalLM", read_llama_config, 0, 0, false, false, 0, true},
    HuggingFaceClass{"mistral", "MistralForCausalLM", read_llama_config, 8, 0, true, false, 4096, false},
};
constexpr std::array kQwen2Classes = {
    HuggingFaceClass{"qwen2", "Qwen2ForCausalLM", read_llama_config, 32, 0, true, true, 0, false},
};

constexpr std::array kGraniteClasses = {
    HuggingFaceClass{"granite", "GraniteForCausalLM", read_granite_config, 0, 0, false, false, 0, true},
};

constexpr std::array kQwen3Classes = {
    HuggingFaceClass{"qwen3", "Qwen3ForCausalLM", read_llama_config, 32, 128, true, true, 0, true},
};

constexpr std::array kGemmaClasses = {
    HuggingFaceClass{"gemma", "GemmaForCausalLM", read_gemma_config, 16, 256, false, false, 0, true},
};
constexpr std::array kGemma2Classes = {
    HuggingFaceClass{"gemma2", "Gemma2ForCausalLM", read_gemma_config, 4, 256, true, false, 4096, true},
};
constexpr std::array kGemma3Classes = {
    HuggingFaceClass{"gemma3_text", "Gemma3ForCausalLM", read_gemma_config, 4, 256, true, false, 4096, true},
};

constexpr std::array kQwenClasses = {
    HuggingFaceClass{"qwen", "QWenLMHeadModel", read_qwen_config, 0, 0, false, false, 0, false},
};
constexpr std::array kQwenTemplates = {
    BuiltInTemplate{"qwen.jinja", "chat_format", "chatml", 0, "<|im_start|>"},
};

constexpr std::array kBaichuanClasses = {
    HuggingFaceClass{"baichuan", "BaichuanForCausalLM", read_baichuan_config, 0, 0, false, false, 0, false},
};
// Roles are tokens, of other names in either version; only the first ends replies of its history.
constexpr uint64_t kBaichuan2Vocabulary = 125696;
constexpr std::array kBaichuanTemplates = {
    BuiltInTemplate{"baichuan2.jinja", "user_token_id", {}, kBaichuan2Vocabulary},
    BuiltInTemplate{"baichuan.jinja", "user_token_id"},
};

constexpr std::array kGpt2Classes = {
    HuggingFaceClass{"gpt2", "GPT2LMHeadModel", read_gpt2_config, 0, 0, false, false, 0, false},
};

constexpr std::array kOptClasses = {
    HuggingFaceClass{"opt", "OPTForCausalLM", read_opt_config, 0, 0, false, false, 0, false},
};

// Columns: name, qkv_bias, output_bias, query_key_norms, classes, names, GGUF, gate, output_norms,
// gain_offset.
constexpr std::array kFamilies = {
    // Llama 1 to 3 and everything built alike.
    Family{"llama", BiasRule::configured, BiasRule::configured, false, kLlamaClasses, kLlamaNames,
           GgufArchitecture{"llama", true, kGgufNames}},
    Family{"granite", BiasRule::configured, BiasRule::configured, false, kGraniteClasses, kLlamaNames,
           GgufArchitecture{"granite", true, kGgufNames, read_granite_gguf, kGraniteKeys}},
    Family{.name = "qwen",
           .qkv_bias = BiasRule::always,
           .output_bias = BiasRule::never,
           .query_key_norms = false,
           .classes = kQwenClasses,
           .names = kQwenNames,
           .gguf = GgufArchitecture{"qwen", false, kGgufNames, read_qwen_gguf},
           .chat_templates = kQwenTemplates},
    Family{"qwen2", BiasRule::always, BiasRule::never, false, kQwen2Classes, kLlamaNames,
           GgufArchitecture{"qwen2", false, kGgufNames}},
    Family{"qwen3", BiasRule::configured, BiasRule::configured, true, kQwen3Classes, kLlamaNames,
           GgufArchitecture{"qwen3", false, kGgufNames}},
    Family{"gemma", BiasRule::configured, BiasRule::configured, false, kGemmaClasses, kLlamaNames,
           GgufArchitecture{"gemma", false, kGgufNames, read_gemma_gguf, kGemmaKeys}, GateFunction::gelu_tanh,
           false, 1.0f},
    Family{"gemma2", BiasRule::configured, BiasRule::configured, false, kGemma2Classes, kLlamaNames,
           GgufArchitecture{"gemma2", false, kGgufNames, read_gemma2_gguf, kGemma2Keys},
           GateFunction::gelu_tanh, true, 1.0f, kGemma3Names},
    Family{"gemma3", BiasRule::configured, BiasRule::configured, true, kGemma3Classes, kLlamaNames,
           GgufArchitecture{"gemma3", false, kGgufNames, read_gemma3_gguf, kGemma3Keys},
           GateFunction::gelu_tanh, true, 1.0f, kGemma3Names},
    Family{.name = "baichuan",
           .qkv_bias = BiasRule::never,
           .output_bias = BiasRule::never,
           .query_key_norms = false,
           .classes = kBaichuanClasses,
           .names = kLlamaNames,
           .gguf = GgufArchitecture{"baichuan", true, kGgufNames, read_baichuan_gguf},
           .own_names = kBaichuanNames,
           .chat_templates = kBaichuanTemplates,
           .unit_head_vocabulary = kBaichuan2Vocabulary},
    Family{.name = "gpt2",
           .qkv_bias = BiasRule::always,
           .output_bias = BiasRule::always,
           .query_key_norms = false,
           .classes = kGpt2Classes,
           .names = kGpt2Names,
           .gguf = GgufArchitecture{"gpt2", false, kGgufNames},
           .gate = GateFunction::gelu_tanh,
           .learned_positions = true,
           .layer_norms = true,
           .gated = false,
           .ffn_bias = true},
    Family{.name = "opt",
           .qkv_bias = BiasRule::always,
           .output_bias = BiasRule::always,
           .query_key_norms = false,
           .classes = kOptClasses,
           .names = kOptNames,
           .gguf = {},
           .gate = GateFunction::relu,
           .first_position = 2,
           .learned_positions = true,
           .layer_norms = true,
           .gated = false,
           .ffn_bias = true},
};

// "a, b or c", of at least two.
std::string alternatives(std::vector<std::string_view> names) {
  const std::string_view last = names.back();
  names.pop_back();
  return fmt::format("{} or {}", fmt::join(names, ", "), last);
}

}  // namespace

std::span<const Family> families() { return kFamilies; }

const SourceName* find_name(std::span<const SourceName> names, Role role) {
  const auto found =
      std::find_if(names.begin(), names.end(), [&](const SourceName& each) { return each.role == role; });
  return found == names.end() ? nullptr : &*found;
}

std::string_view name_of(std::span<const SourceName> names, Role role) {
  const SourceName* found = find_name(names, role);
  return found == nullptr ? std::string_view() : found->name;
}

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
  return alternatives(std::move(names));
}

const Family* find_gguf_architecture(std::string_view name) {
  for (const Family& family : kFamilies)
    if (!name.empty() && family.gguf.name == name) return &family;
  return nullptr;
}

std::string known_gguf_architectures() {
  std::vector<std::string_view> names;
  for (const Family& family : kFamilies)
    if (!family.gguf.name.empty()) names.push_back(family.gguf.name);
  return alternatives(std::move(names));
}

}  // namespace tessera
