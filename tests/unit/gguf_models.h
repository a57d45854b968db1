// Small models as GGUF files for tests.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "gguf-like-format/float_types.h"
#include "tests/unit/gguf_writer.h"
#include "tests/unit/tokenizer_files.h"

namespace tessera::crafted {

constexpr int32_t kNormalToken = 1;
constexpr int32_t kControlToken = 3;
constexpr int32_t kUserToken = 4;
constexpr int32_t kUnusedToken = 5;

// The 256 bytes, the pieces that the merges make and <s>, </s>, <tool> and an unused token: 256 + merges + 4.
inline void add_byte_level(GgufWriter& file, const std::vector<std::pair<std::string, std::string>>& merges) {
  using tokenizer_files::spell;
  std::vector<std::string> tokens, merge_texts;
  for (uint32_t byte = 0; byte < 256; ++byte)
    tokens.push_back(spell(std::string(1, static_cast<char>(static_cast<unsigned char>(byte)))));
  for (const auto& [left, right] : merges) {
    tokens.push_back(spell(left + right));
    merge_texts.push_back(spell(left) + " " + spell(right));
  }
  std::vector<int32_t> types(tokens.size(), kNormalToken);
  const auto count = static_cast<uint32_t>(tokens.size());
  for (const char* text : {"<s>", "</s>", "<tool>", "[PAD]"}) tokens.emplace_back(text);
  types.insert(types.end(), {kControlToken, kControlToken, kUserToken, kUnusedToken});
  file.text("tokenizer.ggml.model", "gpt2");
  file.text("tokenizer.ggml.pre", "gpt-2");
  file.texts("tokenizer.ggml.tokens", tokens);
  file.integers("tokenizer.ggml.token_type", types);
  file.texts("tokenizer.ggml.merges", merge_texts);
  file.u32("tokenizer.ggml.bos_token_id", count);
  file.u32("tokenizer.ggml.eos_token_id", count + 1);
}

// Random values in a tensor of f32; dimensions with columns first.
inline void add_random_tensor(GgufWriter& file, const std::string& name, std::vector<uint64_t> dimensions,
                              std::mt19937_64& random) {
  uint64_t elements = 1;
  for (const uint64_t dimension : dimensions) elements *= dimension;
  std::string data;
  std::uniform_real_distribution<float> values(-0.5f, 0.5f);
  for (uint64_t i = 0; i < elements; ++i) data += raw(values(random));
  file.tensors.push_back({name, std::move(dimensions), 0, std::move(data), {}});
}

// Two layers, four heads over two for keys and values, tied, with the architecture's biases where it has
// them.
inline GgufWriter small_model(const std::string& architecture, uint64_t seed) {
  constexpr uint64_t hidden = 32, kv = 16, ffn = 64;
  std::mt19937_64 random(seed);
  GgufWriter file;
  file.text("general.architecture", architecture);
  file.u32(architecture + ".block_count", 2);
  file.u32(architecture + ".context_length", 128);
  file.u32(architecture + ".embedding_length", hidden);
  file.u32(architecture + ".feed_forward_length", ffn);
  file.u32(architecture + ".attention.head_count", 4);
  file.u32(architecture + ".attention.head_count_kv", 2);
  file.f32(architecture + ".attention.layer_norm_rms_epsilon", 1e-6f);
  file.f32(architecture + ".rope.freq_base", 50000.0f);
  file.text("tokenizer.chat_template", "{{ messages[0]['content'] }}");
  add_byte_level(file, {{"t", "h"}, {"th", "e"}, {" ", "the"}});
  add_random_tensor(file, "token_embd.weight", {hidden, 263}, random);
  add_random_tensor(file, "output_norm.weight", {hidden}, random);
  for (const std::string layer : {"blk.0.", "blk.1."}) {
    add_random_tensor(file, layer + "attn_norm.weight", {hidden}, random);
    add_random_tensor(file, layer + "attn_q.weight", {hidden, hidden}, random);
    add_random_tensor(file, layer + "attn_k.weight", {hidden, kv}, random);
    add_random_tensor(file, layer + "attn_v.weight", {hidden, kv}, random);
    if (architecture == "qwen2") {
      add_random_tensor(file, layer + "attn_q.bias", {hidden}, random);
      add_random_tensor(file, layer + "attn_k.bias", {kv}, random);
      add_random_tensor(file, layer + "attn_v.bias", {kv}, random);
    }
    add_random_tensor(file, layer + "attn_output.weight", {hidden, hidden}, random);
    add_random_tensor(file, layer + "ffn_norm.weight", {hidden}, random);
    add_random_tensor(file, layer + "ffn_gate.weight", {hidden, ffn}, random);
    add_random_tensor(file, layer + "ffn_up.weight", {hidden, ffn}, random);
    add_random_tensor(file, layer + "ffn_down.weight", {ffn, hidden}, random);
  }
  return file;
}

}  // namespace tessera::crafted
