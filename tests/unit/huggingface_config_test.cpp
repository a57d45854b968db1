// Checkpoint folders: what config.json and its companions mean, and how unsupported or broken ones are
// refused.
#include "engine/checkpoint/huggingface_config.h"

#include <doctest/doctest.h>

#include <array>
#include <functional>
#include <iostream>

#include "engine/chat_template/chat_template.h"
#include "engine/models/families.h"
#include "tests/unit/crafted_files.h"

using namespace tessera;
using namespace tessera::crafted;
using nlohmann::ordered_json;

namespace {

ordered_json llama_config() {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"hidden_size", 64},
          {"intermediate_size", 172},
          {"num_hidden_layers", 5},
          {"num_attention_heads", 8},
          {"num_key_value_heads", 4},
          {"vocab_size", 512},
          {"max_position_embeddings", 8192},
          {"rms_norm_eps", 1e-5},
          {"rope_theta", 500000.0},
          {"hidden_act", "silu"},
          {"eos_token_id", 2}};
}

ordered_json of_type(const char* type, const char* architecture) {
  ordered_json config = llama_config();
  config["model_type"] = type;
  config["architectures"] = {architecture};
  return config;
}

ModelHeader read_config(const ordered_json& config) {
  const Folder folder;
  write_file(folder / "config.json", config.dump());
  return read_huggingface_folder(folder.path());
}

struct Imported {
  Hyperparameters hyperparameters;
  std::vector<std::string> notes;
};

Imported import_with(ordered_json config, const std::function<void(ordered_json&)>& change) {
  change(config);
  const Folder folder;
  write_file(folder / "config.json", config.dump());
  Imported imported;
  imported.hyperparameters = read_huggingface_folder(folder.path(), imported.notes).hyperparameters;
  return imported;
}

Hyperparameters read_with(ordered_json config, const std::function<void(ordered_json&)>& change) {
  change(config);
  return read_config(config).hyperparameters;
}

std::string fault_of(ordered_json config, const std::function<void(ordered_json&)>& spoil) {
  spoil(config);
  const std::string line = refusal([&] { read_config(config); });
  CAPTURE(line);
  CHECK(well_formed(line, "config.json"));
  return line;
}

std::string fault_with(const std::function<void(ordered_json&)>& spoil) {
  return fault_of(llama_config(), spoil);
}

const ordered_json kLlama3Scaling = {{"rope_type", "llama3"},
                                     {"factor", 32.0},
                                     {"low_freq_factor", 1.0},
                                     {"high_freq_factor", 4.0},
                                     {"original_max_position_embeddings", 8192}};

}  // namespace

TEST_CASE("a llama configuration") {
  const Hyperparameters h = read_config(llama_config()).hyperparameters;
  CHECK(h.family == "llama");
  CHECK(h.vocabulary == 512);
  CHECK(h.hidden == 64);
  CHECK(h.layers == 5);
  CHECK(h.query_heads == 8);
  CHECK(h.kv_heads == 4);
  CHECK(h.head_dim == 8);
  CHECK(h.ffn == 172);
  CHECK(h.context == 8192);
  CHECK(h.norm_epsilon == 1e-5);
  CHECK(h.rope_theta == 500000.0);
  CHECK(h.rope_scaling.kind == RopeScalingKind::none);
  CHECK_FALSE(h.tied_head);
  CHECK_FALSE(h.qkv_bias);
  CHECK_FALSE(h.output_bias);
}

TEST_CASE("what is absent has the default of its model type") {
  const auto drop = [](const char* name) { return [name](ordered_json& c) { c.erase(name); }; };
  CHECK(read_with(llama_config(), drop("num_key_value_heads")).kv_heads == 8);
  CHECK(read_with(llama_config(), [](auto& c) { c["num_key_value_heads"] = nullptr; }).kv_heads == 8);
  CHECK(read_with(llama_config(), [](auto& c) { c["head_dim"] = 128; }).head_dim == 128);
  CHECK(read_with(llama_config(), [](auto& c) { c["head_dim"] = nullptr; }).head_dim == 8);
  CHECK(read_with(llama_config(), drop("rms_norm_eps")).norm_epsilon == 1e-6);
  CHECK(read_with(llama_config(), drop("rope_theta")).rope_theta == 10000.0);
  CHECK(read_with(llama_config(), [](auto& c) { c["rope_theta"] = 100000; }).rope_theta == 100000.0);
  CHECK(read_with(llama_config(), drop("hidden_act")).hidden == 64);
  CHECK(read_with(llama_config(), drop("architectures")).hidden == 64);
  CHECK(read_with(llama_config(), [](auto& c) { c["tie_word_embeddings"] = true; }).tied_head);
  const Hyperparameters biased = read_with(llama_config(), [](auto& c) { c["attention_bias"] = true; });
  CHECK(biased.qkv_bias);
  CHECK(biased.output_bias);
}

TEST_CASE("qwen2 has biases on q, k and v, and a window only when it says so") {
  const ordered_json config = of_type("qwen2", "Qwen2ForCausalLM");
  const Hyperparameters h = read_with(config, [](auto& c) {
    c["sliding_window"] = 128;
    c["use_sliding_window"] = false;
    c["tie_word_embeddings"] = true;
    c["layer_types"] = {"full_attention", "full_attention"};
  });
  CHECK(h.family == "qwen2");
  CHECK(h.qkv_bias);
  CHECK_FALSE(h.output_bias);
  CHECK(h.tied_head);
  CHECK_FALSE(read_with(config, [](auto&) {}).tied_head);
  CHECK(read_with(config, [](auto& c) {
          c["num_attention_heads"] = 64;
          c["head_dim"] = 8;
          c.erase("num_key_value_heads");
        }).kv_heads == 32);
  const auto sliding = [&](const std::function<void(ordered_json&)>& change) {
    return import_with(config, [&](auto& c) {
      c["sliding_window"] = 128;
      c["use_sliding_window"] = true;
      change(c);
    });
  };
  const auto slides_by = [&](const std::function<void(ordered_json&)>& change) {
    const Imported imported = sliding(change);
    CHECK(imported.hyperparameters.context == 8192);
    CHECK(imported.notes.empty());
    std::string layers;
    for (uint64_t layer = 0; layer < imported.hyperparameters.layers; ++layer)
      layers += imported.hyperparameters.slides(layer) ? 's' : 'f';
    return layers;
  };
  CHECK(sliding([](auto&) {}).hyperparameters.sliding_window == 128);
  CHECK(slides_by([](auto&) {}) == "sssss");
  // Layers from max_window_layers on slide: one of 5, or none.
  CHECK(slides_by([](auto& c) { c["max_window_layers"] = 4; }) == "ffffs");
  CHECK(slides_by([](auto& c) { c["max_window_layers"] = 5; }) == "fffff");
  CHECK(sliding([](auto& c) { c["max_window_layers"] = 5; }).hyperparameters.sliding_window == 0);
  const auto listed = [&](std::string_view layers) {
    return slides_by([&](auto& c) {
      c["layer_types"] = ordered_json::array();
      for (const char layer : layers)
        c["layer_types"].push_back(layer == 's' ? "sliding_attention" : "full_attention");
    });
  };
  for (const char* layers : {"fffff", "sssss", "fffss", "sfsfs", "ssfss", "sssfs", "ssssf"})
    CHECK(listed(layers) == layers);
  const auto list_fault = [&](const std::vector<std::string>& types) {
    return fault_of(config, [&](auto& c) {
      c["layer_types"] = types;
      c["sliding_window"] = 128;
    });
  };
  const std::string full = "full_attention", slide = "sliding_attention";
  CHECK(contains(list_fault({full, slide, full, slide, slide}), "layer_types: expected layers that slide"));
  CHECK(contains(list_fault({full, slide}), "a type for each of 5 layers, found 2"));
  CHECK(contains(fault_of(config, [](auto& c) { c["layer_types"] = {"chunked_attention"}; }),
                 "layer_types[0]"));
  CHECK(contains(fault_of(config,
                          [&](auto& c) {
                            c["layer_types"] = {full, slide, slide, slide, slide};
                          }),
                 "sliding_window: expected a window for the layers that slide, found none"));
  CHECK(contains(fault_of(config, [](auto& c) { c["use_mrope"] = true; }), "use_mrope"));
}

TEST_CASE("gpt2 and opt: settings under their own names, what the graph lacks refused") {
  const ordered_json gpt2 = {{"model_type", "gpt2"}, {"n_embd", 48},      {"n_head", 3},
                             {"n_layer", 2},         {"vocab_size", 300}, {"n_positions", 64}};
  Hyperparameters h = read_with(gpt2, [](auto&) {});
  CHECK(h.family == "gpt2");
  CHECK(h.ffn == 4 * 48);
  CHECK(h.head_dim == 16);
  CHECK(h.context == 64);
  CHECK(h.norm_epsilon == 1e-5);
  CHECK(h.attention_scale == 0);
  CHECK(h.tied_head);
  CHECK(h.qkv_bias);
  CHECK(h.output_bias);
  h = read_with(gpt2, [](auto& c) {
    c["n_inner"] = 100;
    c["scale_attn_weights"] = false;
    c["tie_word_embeddings"] = false;
  });
  CHECK(h.ffn == 100);
  CHECK(h.attention_scale == 1);
  CHECK_FALSE(h.tied_head);
  CHECK(contains(fault_of(gpt2, [](auto& c) { c["activation_function"] = "relu"; }), "expected gelu_new"));
  CHECK(contains(fault_of(gpt2, [](auto& c) { c["scale_attn_by_inverse_layer_idx"] = true; }),
                 "scale_attn_by_inverse_layer_idx: expected false"));
  CHECK(contains(fault_of(gpt2, [](auto& c) { c["n_head"] = 5; }),
                 "n_embd: expected a multiple of n_head (5)"));

  const ordered_json opt = {{"model_type", "opt"},       {"hidden_size", 48},
                            {"num_attention_heads", 3},  {"num_hidden_layers", 2},
                            {"vocab_size", 300},         {"ffn_dim", 80},
                            {"word_embed_proj_dim", 48}, {"max_position_embeddings", 64}};
  h = read_with(opt, [](auto&) {});
  CHECK(h.family == "opt");
  CHECK(h.embedding_width == 0);
  CHECK_FALSE(h.norms_follow);
  CHECK(h.tied_head);
  h = read_with(opt, [](auto& c) {
    c["word_embed_proj_dim"] = 24;
    c["do_layer_norm_before"] = false;
  });
  CHECK(h.embedding_width == 24);
  CHECK(h.norms_follow);
  CHECK(contains(fault_of(opt, [](auto& c) { c["activation_function"] = "gelu"; }), "expected relu"));
  CHECK(contains(fault_of(opt, [](auto& c) { c["enable_bias"] = false; }), "enable_bias: expected true"));
}

TEST_CASE("baichuan: ALiBi where no reach of rotary positions is given") {
  ordered_json config = of_type("baichuan", "BaichuanForCausalLM");
  config.erase("num_key_value_heads");
  Hyperparameters h = read_with(config, [](auto&) {});
  CHECK(h.family == "baichuan");
  CHECK(h.alibi == 0);
  CHECK(h.kv_heads == h.query_heads);
  CHECK_FALSE(h.qkv_bias);
  const auto without_reach = [](auto& c) {
    c["model_max_length"] = 96;
    c.erase("max_position_embeddings");
  };
  h = read_with(config, without_reach);
  CHECK(h.alibi == 8);
  CHECK(h.context == 96);
  CHECK(contains(fault_of(config, [](auto& c) { c.erase("max_position_embeddings"); }),
                 "model_max_length: missing"));
  CHECK(read_with(config, [](auto& c) { c["architectures"] = {"BaiChuanForCausalLM"}; }).family ==
        "baichuan");
}

TEST_CASE("qwen: the context ends where it was trained, or where it says without other frequencies behind") {
  const ordered_json config = {
      {"model_type", "qwen"},    {"hidden_size", 48},          {"num_attention_heads", 3},
      {"num_hidden_layers", 2},  {"vocab_size", 300},          {"intermediate_size", 152},
      {"seq_length", 64},        {"rotary_emb_base", 20000},   {"kv_channels", 16},
      {"use_dynamic_ntk", true}, {"use_logn_attn", true},      {"no_bias", true},
      {"rotary_pct", 1.0},       {"layer_norm_epsilon", 1e-6}, {"max_position_embeddings", 128}};
  Hyperparameters h = read_with(config, [](auto&) {});
  CHECK(h.family == "qwen");
  CHECK(h.ffn == 76);
  CHECK(h.context == 64);
  CHECK(h.dynamic_ntk);
  CHECK(h.log_scale_from == 64);
  CHECK(h.rope_theta == 20000);
  CHECK(h.qkv_bias);
  CHECK_FALSE(h.output_bias);
  h = read_with(config, [](auto& c) { c["use_dynamic_ntk"] = c["use_logn_attn"] = false; });
  CHECK(h.context == 128);
  CHECK_FALSE(h.dynamic_ntk);
  CHECK(h.log_scale_from == 0);
  CHECK(contains(fault_of(config, [](auto& c) { c["no_bias"] = false; }), "no_bias: expected true"));
  CHECK(contains(fault_of(config, [](auto& c) { c["rotary_pct"] = 0.5; }), "rotary_pct: expected 1"));
  CHECK(contains(fault_of(config, [](auto& c) { c["intermediate_size"] = 151; }), "an even number"));
  CHECK(contains(fault_of(config, [](auto& c) { c["kv_channels"] = 32; }), "kv_channels"));
}

// The prompt of a conversation, with what a template calls the end of a text.
std::string prompt_of(const std::string& folder) {
  TemplateInputs inputs;
  inputs.eos_token = "</s>";
  inputs.add_generation_prompt = true;
  const std::array messages{ChatMessage{"system", "S"}, ChatMessage{"user", "Q"},
                            ChatMessage{"assistant", "A"}, ChatMessage{"user", "R"}};
  return ChatTemplate(folder_chat_template(folder)).render(messages, inputs).text;
}

TEST_CASE("chat models whose checkpoints have no template get that of their family") {
  const Folder folder;
  const auto write = [&](const char* type, uint64_t vocabulary, const ordered_json& generation) {
    write_file(folder / "config.json", ordered_json{{"model_type", type}, {"vocab_size", vocabulary}}.dump());
    write_file(folder / "generation_config.json", generation.dump());
  };
  const ordered_json roles = {{"user_token_id", 195}, {"assistant_token_id", 196}};
  write("baichuan", 64000, roles);
  CHECK(prompt_of(folder.path()) == "S<reserved_102>Q<reserved_103>A</s><reserved_102>R<reserved_103>");
  write("baichuan", 125696, roles);
  CHECK(prompt_of(folder.path()) == "S<reserved_106>Q<reserved_107>A<reserved_106>R<reserved_107>");
  write("qwen", 151936, {{"chat_format", "chatml"}});
  CHECK(prompt_of(folder.path()) ==
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n"
        "<|im_start|>user\nR<|im_end|>\n<|im_start|>assistant\n");
  const std::array question{ChatMessage{"user", "Q"}};
  CHECK(ChatTemplate(folder_chat_template(folder.path())).render(question, {}).text ==
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n"
        "<|im_start|>assistant\n");
  // A template of the folder's own goes before, and a model that only continues texts has none.
  write_file(folder / "tokenizer_config.json", R"({"chat_template": "own"})");
  CHECK(folder_chat_template(folder.path()) == "own");
  write_file(folder / "tokenizer_config.json", "{}");
  write("qwen", 151936, {{"chat_format", "raw"}});
  CHECK(folder_chat_template(folder.path()).empty());
  write("baichuan", 125696, ordered_json::object());
  CHECK(folder_chat_template(folder.path()).empty());
}

TEST_CASE("granite has multipliers, each 1 when absent") {
  const ordered_json config = of_type("granite", "GraniteForCausalLM");
  Hyperparameters h = read_with(config, [](auto&) {});
  CHECK(h.family == "granite");
  CHECK(h.embedding_multiplier == 1.0);
  CHECK(h.residual_multiplier == 1.0);
  CHECK(h.attention_scale == 1.0);
  CHECK(h.logits_divisor == 1.0);
  h = read_with(config, [](auto& c) {
    c["embedding_multiplier"] = 12;
    c["residual_multiplier"] = 0.22;
    c["attention_multiplier"] = 0.015625;
    c["logits_scaling"] = 8.0;
    c["attention_bias"] = true;
  });
  CHECK(h.embedding_multiplier == 12.0);
  CHECK(h.residual_multiplier == 0.22);
  CHECK(h.attention_scale == 0.015625);
  CHECK(h.logits_divisor == 8.0);
  CHECK(h.qkv_bias);
  CHECK(h.output_bias);
  CHECK(contains(fault_of(config, [](auto& c) { c["residual_multiplier"] = 0; }), "residual_multiplier"));
  CHECK(contains(fault_of(config, [](auto& c) { c["logits_scaling"] = -8; }), "logits_scaling"));
  CHECK(contains(fault_of(config, [](auto& c) { c["mlp_bias"] = true; }), "mlp_bias"));
}

TEST_CASE("qwen3 has heads of 128 unless it says otherwise, and biases only where it says so") {
  const ordered_json config = of_type("qwen3", "Qwen3ForCausalLM");
  Hyperparameters h = read_with(config, [](auto& c) { c["use_sliding_window"] = false; });
  CHECK(h.family == "qwen3");
  CHECK(h.head_dim == 128);
  CHECK_FALSE(h.qkv_bias);
  CHECK_FALSE(h.output_bias);
  CHECK(h.context == 8192);
  h = read_with(config, [](auto& c) {
    c["head_dim"] = 16;
    c["attention_bias"] = true;
    c["num_attention_heads"] = 32;
    c.erase("num_key_value_heads");
  });
  CHECK(h.head_dim == 16);
  CHECK(h.kv_heads == 32);
  CHECK(h.qkv_bias);
  CHECK(h.output_bias);
}

TEST_CASE("heads of other sizes than multiples of 8 are padded") {
  const Hyperparameters h = read_with(llama_config(), [](auto& c) { c["head_dim"] = 20; });
  CHECK(h.head_dim == 24);
  CHECK(h.head_padding == 4);
  CHECK(h.model_head_dim() == 20);
  CHECK(read_with(llama_config(), [](auto& c) { c["head_dim"] = 32; }).head_padding == 0);
}

TEST_CASE("mistral is a llama graph when it has no window") {
  const ordered_json config = of_type("mistral", "MistralForCausalLM");
  for (const auto& window : {ordered_json(nullptr), ordered_json(8192), ordered_json(100000)}) {
    const Hyperparameters h = read_with(config, [&](auto& c) { c["sliding_window"] = window; });
    CHECK(h.family == "llama");
    CHECK_FALSE(h.qkv_bias);
  }
  CHECK(read_with(config, [](auto& c) {
          c["sliding_window"] = nullptr;
          c["num_attention_heads"] = 16;
          c["head_dim"] = 8;
          c.erase("num_key_value_heads");
        }).kv_heads == 8);
  const Hyperparameters windowed = read_with(config, [](auto& c) { c["sliding_window"] = 2000; });
  CHECK(windowed.context == 8192);
  CHECK(windowed.sliding_window == 2000);
  CHECK(windowed.slides(0));
  CHECK(read_with(config, [](auto&) {}).sliding_window == 4096);  // absent means 4096
  CHECK(contains(fault_of(config, [](auto& c) { c["sliding_window"] = 0; }), "sliding_window"));
  CHECK(read_with(config, [](auto& c) { c["max_position_embeddings"] = 4096; }).sliding_window == 0);
}

TEST_CASE("gemma: scaled embeddings, caps, windows and two kinds of rotary frequencies") {
  const auto gemma = [](const char* type, const char* architecture) {
    ordered_json config = of_type(type, architecture);
    config.erase("tie_word_embeddings");
    config.erase("rope_theta");
    config["hidden_act"] = "gelu_pytorch_tanh";
    config["head_dim"] = 16;
    return config;
  };
  const ordered_json first = gemma("gemma", "GemmaForCausalLM");
  Hyperparameters h = read_with(first, [](auto& c) { c["hidden_act"] = "gelu"; });
  CHECK(h.family == "gemma");
  CHECK(h.embedding_multiplier == 8.0);  // sqrt(64)
  CHECK(h.tied_head);
  CHECK(h.attention_scale == 0);
  CHECK(h.rope_theta == 10000.0);
  CHECK(h.sliding_window == 0);
  CHECK(contains(fault_of(first, [](auto& c) { c["hidden_act"] = "silu"; }), "hidden_act"));

  const ordered_json second = gemma("gemma2", "Gemma2ForCausalLM");
  h = read_with(second, [](auto& c) {
    c["query_pre_attn_scalar"] = 16;
    c["attn_logit_softcapping"] = 50.0;
    c["final_logit_softcapping"] = 30.0;
  });
  CHECK(h.attention_scale == 0.25);
  CHECK(h.attention_soft_cap == 50.0);
  CHECK(h.logits_soft_cap == 30.0);
  CHECK(h.sliding_window == 4096);
  for (uint64_t layer = 0; layer < 5; ++layer) CHECK(h.slides(layer) == (layer % 2 == 0));
  CHECK(h.sliding_rope_theta == 0);

  const ordered_json third = gemma("gemma3_text", "Gemma3ForCausalLM");
  h = read_with(third, [](auto& c) {
    c["num_hidden_layers"] = 12;
    c["sliding_window"] = 512;
    c["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 8.0}};
  });
  CHECK(h.sliding_window == 512);
  for (uint64_t layer = 0; layer < 12; ++layer) CHECK(h.slides(layer) == (layer != 5 && layer != 11));
  CHECK(h.rope_theta == 1e6);
  CHECK(h.sliding_rope_theta == 10000.0);
  CHECK(h.rope_scaling.factor == 8.0);
  CHECK(h.logits_soft_cap == 0);
  h = read_with(third, [](auto& c) {
    c["sliding_window_pattern"] = 2;
    c["rope_parameters"] = {
        {"full_attention", {{"rope_type", "linear"}, {"factor", 2.0}, {"rope_theta", 5000.0}}},
        {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 300.0}}}};
  });
  CHECK(h.rope_theta == 5000.0);
  CHECK(h.rope_scaling.factor == 2.0);
  CHECK(h.sliding_rope_theta == 300.0);
  CHECK_FALSE(h.slides(1));
  CHECK(contains(fault_of(third,
                          [](auto& c) {
                            c["rope_parameters"] = {
                                {"full_attention", {{"rope_type", "default"}}},
                                {"sliding_attention", {{"rope_type", "linear"}, {"factor", 2.0}}}};
                          }),
                 "rope_type"));
  CHECK(contains(fault_of(third, [](auto& c) { c["use_bidirectional_attention"] = true; }),
                 "use_bidirectional_attention"));
}

TEST_CASE("rope scaling in its older and newer places") {
  const Hyperparameters linear = read_with(llama_config(), [](auto& c) {
    c["rope_scaling"] = {{"type", "linear"}, {"factor", 2}};
  });
  CHECK(linear.rope_scaling.kind == RopeScalingKind::linear);
  CHECK(linear.rope_scaling.factor == 2.0);
  const Hyperparameters llama3 =
      read_with(llama_config(), [](auto& c) { c["rope_scaling"] = kLlama3Scaling; });
  CHECK(llama3.rope_scaling.kind == RopeScalingKind::llama3);
  CHECK(llama3.rope_scaling.factor == 32.0);
  CHECK(llama3.rope_scaling.low_freq_factor == 1.0);
  CHECK(llama3.rope_scaling.high_freq_factor == 4.0);
  CHECK(llama3.rope_scaling.original_context == 8192);
  CHECK(llama3.rope_theta == 500000.0);
  CHECK(read_with(llama_config(), [](auto& c) { c["rope_scaling"] = nullptr; }).rope_scaling.kind ==
        RopeScalingKind::none);
  const Hyperparameters newer = read_with(llama_config(), [](auto& c) {
    c.erase("rope_theta");
    c["rope_parameters"] = kLlama3Scaling;
    c["rope_parameters"]["rope_theta"] = 250000.0;
  });
  CHECK(newer.rope_scaling.kind == RopeScalingKind::llama3);
  CHECK(newer.rope_theta == 250000.0);
  const Hyperparameters plain = read_with(llama_config(), [](auto& c) {
    c["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 1e6}};
  });
  CHECK(plain.rope_scaling.kind == RopeScalingKind::none);
  CHECK(plain.rope_theta == 1e6);

  const auto scaling_fault = [](const std::function<void(ordered_json&)>& spoil) {
    return fault_with([&](auto& c) {
      c["rope_scaling"] = kLlama3Scaling;
      spoil(c["rope_scaling"]);
    });
  };
  CHECK(contains(scaling_fault([](auto& s) { s["rope_type"] = "longrope"; }), "rope_scaling.rope_type"));
  CHECK(contains(scaling_fault([](auto& s) { s = {{"type", "ntk"}, {"factor", 2}}; }), "rope_scaling.type"));
  CHECK(contains(scaling_fault([](auto& s) { s.erase("rope_type"); }), "rope_scaling.rope_type: missing"));
  CHECK(contains(scaling_fault([](auto& s) { s = 2; }), "rope_scaling: expected a JSON object"));
  CHECK(contains(scaling_fault([](auto& s) { s["factor"] = 0; }), "rope_scaling.factor"));
  CHECK(contains(scaling_fault([](auto& s) { s["factor"] = "2"; }), "rope_scaling.factor"));
  CHECK(contains(scaling_fault([](auto& s) { s.erase("low_freq_factor"); }), "low_freq_factor: missing"));
  CHECK(contains(scaling_fault([](auto& s) { s["high_freq_factor"] = 1.0; }), "high_freq_factor"));
  CHECK(contains(scaling_fault([](auto& s) { s.erase("original_max_position_embeddings"); }),
                 "original_max_position_embeddings: missing"));
  CHECK(contains(scaling_fault([](auto& s) { s["partial_rotary_factor"] = 0.5; }), "partial_rotary_factor"));
  CHECK(contains(fault_with([](auto& c) {
                   c["rope_scaling"] = kLlama3Scaling;
                   c["rope_parameters"] = {{"rope_type", "default"}};
                 }),
                 "rope_scaling: expected the same as rope_parameters"));
}

TEST_CASE("rope scalings that are the same as none, or reach beyond max_position_embeddings") {
  const Imported dynamic = import_with(llama_config(), [](auto& c) {
    c["rope_scaling"] = {{"type", "dynamic"}, {"factor", 2}};
  });
  CHECK(dynamic.hyperparameters.rope_scaling.kind == RopeScalingKind::none);
  CHECK(dynamic.hyperparameters.context == 8192);
  REQUIRE(dynamic.notes.size() == 1);
  CHECK(contains(dynamic.notes[0], "dynamic RoPE scaling"));

  const auto yarn = [](ordered_json scaling) {
    scaling["rope_type"] = "yarn";
    return read_with(llama_config(), [&](auto& c) { c["rope_scaling"] = scaling; });
  };
  Hyperparameters h = yarn({{"factor", 4.0}, {"original_max_position_embeddings", 4096}});
  CHECK(h.context == 16384);
  CHECK(h.rope_scaling.kind == RopeScalingKind::yarn);
  CHECK(h.rope_scaling.original_context == 4096);
  CHECK(h.rope_scaling.beta_fast == 32);
  CHECK(h.rope_scaling.beta_slow == 1);
  CHECK(h.rope_scaling.whole_pairs);
  CHECK(h.rope_scaling.attention_factor == doctest::Approx(1.1386294361119891).epsilon(1e-15));
  h = yarn(
      {{"factor", 2.0}, {"beta_fast", 16}, {"beta_slow", 2}, {"truncate", false}, {"attention_factor", 0.7}});
  CHECK(h.context == 16384);  // the original context is max_position_embeddings
  CHECK(h.rope_scaling.beta_fast == 16);
  CHECK(h.rope_scaling.beta_slow == 2);
  CHECK_FALSE(h.rope_scaling.whole_pairs);
  CHECK(h.rope_scaling.attention_factor == 0.7);
  h = yarn({{"factor", 40.0}, {"mscale", 0.5}, {"mscale_all_dim", 1.0}});
  CHECK(h.rope_scaling.attention_factor == doctest::Approx(0.865259992007406).epsilon(1e-9));
  CHECK(contains(fault_with([](auto& c) {
                   c["rope_scaling"] = {{"type", "yarn"}, {"factor", 2}, {"beta_fast", 1}};
                 }),
                 "beta_fast: expected more than beta_slow (1)"));

  const auto linear = [](uint64_t sequence) {
    return read_with(llama_config(),
                     [&](auto& c) {
                       c["rope_scaling"] = {{"type", "linear"}, {"factor", 4}};
                       c["max_sequence_length"] = sequence;
                     })
        .context;
  };
  CHECK(linear(32768) == 32768);
  CHECK(linear(20000) == 20000);
  CHECK(linear(1 << 20) == 32768);  // positions are no more than that
  CHECK(linear(16) == 8192);
  CHECK(read_with(llama_config(), [](auto& c) { c["max_sequence_length"] = 32768; }).context == 8192);
}

TEST_CASE("configurations that are broken or not supported are refused by field") {
  for (const char* field : {"model_type", "vocab_size", "hidden_size", "num_hidden_layers",
                            "num_attention_heads", "intermediate_size", "max_position_embeddings"}) {
    CAPTURE(field);
    CHECK(contains(fault_with([&](auto& c) { c.erase(field); }), fmt::format("{}: missing", field)));
    CHECK(contains(fault_with([&](auto& c) { c[field] = ordered_json::array(); }), field));
    if (std::string_view(field) == "model_type") continue;
    for (const auto& bad : {ordered_json(0), ordered_json(-1), ordered_json(1.5), ordered_json("64"),
                            ordered_json(uint64_t{1} << 40), ordered_json(1e30), ordered_json(true)})
      CHECK(contains(fault_with([&](auto& c) { c[field] = bad; }), fmt::format("{}: expected", field)));
  }
  CHECK(contains(fault_with([](auto& c) { c["model_type"] = "gpt9"; }),
                 "model_type: expected " + known_model_types()));
  CHECK(contains(fault_with([](auto& c) { c["architectures"] = {"LlamaForSequenceClassification"}; }),
                 "architectures"));
  CHECK(contains(fault_with([](auto& c) { c["hidden_act"] = "gelu"; }), "hidden_act: expected silu"));
  CHECK(contains(fault_with([](auto& c) { c["mlp_bias"] = true; }), "mlp_bias"));
  CHECK(contains(fault_with([](auto& c) { c["attention_bias"] = "yes"; }), "attention_bias"));
  CHECK(contains(fault_with([](auto& c) { c["tie_word_embeddings"] = 1; }), "tie_word_embeddings"));
  CHECK(contains(fault_with([](auto& c) { c["num_key_value_heads"] = 3; }),
                 "num_key_value_heads: expected a divisor"));
  CHECK(contains(fault_with([](auto& c) { c["num_key_value_heads"] = 0; }), "num_key_value_heads"));
  CHECK(contains(fault_with([](auto& c) { c["num_key_value_heads"] = 16; }), "num_key_value_heads"));
  CHECK(contains(fault_with([](auto& c) { c["hidden_size"] = 65; }), "hidden_size: expected a multiple"));
  CHECK(
      contains(fault_with([](auto& c) { c["hidden_size"] = 24; }), "hidden_size: expected heads of an even"));
  CHECK(
      contains(fault_with([](auto& c) { c["head_dim"] = 21; }), "head_dim: expected heads of an even size"));
  CHECK(contains(fault_with([](auto& c) { c["head_dim"] = 2000; }), "head_dim"));
  CHECK(contains(fault_with([](auto& c) { c["rms_norm_eps"] = -1e-5; }), "rms_norm_eps"));
  CHECK(contains(fault_with([](auto& c) { c["rms_norm_eps"] = 0; }), "rms_norm_eps"));
  CHECK(contains(fault_with([](auto& c) { c["rope_theta"] = 0.5; }), "rope_theta"));
  CHECK(contains(fault_with([](auto& c) { c["eos_token_id"] = 512; }),
                 "eos_token_id: expected an integer from 0 to 511"));
  CHECK(contains(fault_with([](auto& c) { c["eos_token_id"] = {1, -2}; }), "eos_token_id[1]"));
  CHECK(contains(fault_with([](auto& c) { c["eos_token_id"] = "</s>"; }), "eos_token_id"));

  const Folder folder;
  const auto raw_fault = [&](const std::string& text) {
    write_file(folder / "config.json", text);
    return refusal([&] { read_huggingface_folder(folder.path()); });
  };
  CHECK(contains(refusal([&] { read_huggingface_folder(folder.path()); }), "config.json: cannot be opened"));
  CHECK(contains(raw_fault(""), "config.json: JSON: malformed"));
  CHECK(contains(raw_fault("[]"), "config.json: JSON: expected a JSON object"));
  CHECK(contains(raw_fault("{\"vocab_size\":1,\"vocab_size\":2}"), "\"vocab_size\" appears twice"));
  CHECK(contains(raw_fault(std::string(40, '[')), "deeper"));
  CHECK(contains(raw_fault("{\"rms_norm_eps\": NaN}"), "malformed"));
  CHECK(contains(raw_fault(std::string(5 << 20, ' ')), "expected at most 4194304 bytes"));
  CHECK(contains(refusal([&] { read_huggingface_folder(folder / "absent"); }),
                 "config.json: cannot be opened"));
}

TEST_CASE("stop tokens are the union of both files, and generation settings are optional") {
  const Folder folder;
  ordered_json config = llama_config();
  config["eos_token_id"] = {2, 7};
  write_file(folder / "config.json", config.dump());
  CHECK(read_huggingface_folder(folder.path()).chat.stop_tokens == std::vector<uint32_t>{2, 7});
  const ordered_json generation = {
      {"eos_token_id", {9, 7, 9}}, {"temperature", 0.6}, {"top_p", 0.9},    {"top_k", 50},
      {"repetition_penalty", 1.1}, {"do_sample", true},  {"min_p", nullptr}};
  write_file(folder / "generation_config.json", generation.dump());
  const ModelHeader header = read_huggingface_folder(folder.path());
  CHECK(header.chat.stop_tokens == std::vector<uint32_t>{9, 7, 2});
  CHECK(header.generation.temperature == 0.6);
  CHECK(header.generation.top_p == 0.9);
  CHECK(header.generation.top_k == 50);
  CHECK(header.generation.repeat_penalty == 1.1);
  CHECK(header.generation.do_sample == true);
  CHECK_FALSE(header.generation.min_p.has_value());
  const auto fault = [&](const std::string& text) {
    write_file(folder / "generation_config.json", text);
    return refusal([&] { read_huggingface_folder(folder.path()); });
  };
  CHECK(contains(fault("{"), "generation_config.json: JSON"));
  CHECK(contains(fault("{\"temperature\":\"hot\"}"), "generation_config.json: temperature"));
  CHECK(contains(fault("{\"top_k\":1.5}"), "generation_config.json: top_k"));
  CHECK(contains(fault("{\"top_p\":\"high\"}"), "generation_config.json: top_p"));
  CHECK(contains(fault("{\"do_sample\":1}"), "generation_config.json: do_sample"));
  CHECK(contains(fault("{\"eos_token_id\":[600]}"), "generation_config.json: eos_token_id[0]"));
  // What no sampler could follow is passed over.
  write_file(folder / "generation_config.json",
             "{\"top_k\":-1,\"temperature\":-1,\"top_p\":1.5,\"min_p\":0.1,\"eos_token_id\":[-1,3]}");
  std::vector<std::string> notes;
  const ModelHeader odd = read_huggingface_folder(folder.path(), notes);
  CHECK_FALSE(odd.generation.top_k.has_value());
  CHECK_FALSE(odd.generation.temperature.has_value());
  CHECK_FALSE(odd.generation.top_p.has_value());
  CHECK(odd.generation.min_p == 0.1);
  CHECK(odd.chat.stop_tokens == std::vector<uint32_t>{3, 2, 7});
  REQUIRE(notes.size() == 4);
  CHECK(contains(notes[0], "temperature is -1, which cannot be used"));
  CHECK(contains(notes[1], "top_p is 1.5"));
  CHECK(contains(notes[2], "top_k is -1"));
  CHECK(contains(notes[3], "eos_token_id[0] is -1, which is no token"));
  std::filesystem::remove(folder / "generation_config.json");
  config["eos_token_id"] = nullptr;
  write_file(folder / "config.json", config.dump());
  CHECK(read_huggingface_folder(folder.path()).chat.stop_tokens.empty());
}

TEST_CASE("the chat template comes from its own file or the tokenizer's settings") {
  const Folder folder;
  write_file(folder / "config.json", llama_config().dump());
  const auto read_template = [&] { return read_huggingface_folder(folder.path()).chat.chat_template; };
  const auto settings = [&](const ordered_json& value) {
    write_file(folder / "tokenizer_config.json",
               ordered_json{{"model_max_length", 1e30}, {"chat_template", value}}.dump());
  };
  CHECK(read_template().empty());
  settings(nullptr);
  CHECK(read_template().empty());
  settings("{{ one }}");
  CHECK(read_template() == "{{ one }}");
  settings({{{"name", "tool_use"}, {"template", "t"}}, {{"name", "default"}, {"template", "{{ two }}"}}});
  CHECK(read_template() == "{{ two }}");
  settings({{{"name", "tool_use"}, {"template", "t"}}});
  CHECK(contains(refusal(read_template), "chat_template: expected a template named \"default\""));
  settings({{{"name", "default"}}});
  CHECK(contains(refusal(read_template), "chat_template[0].template: missing"));
  settings(7);
  CHECK(contains(refusal(read_template), "tokenizer_config.json: chat_template: expected a string"));
  write_file(folder / "chat_template.jinja", "{{ three }}\n");
  CHECK(read_template() == "{{ three }}\n");
  write_file(folder / "chat_template.jinja", std::string((1 << 20) + 1, 'x'));
  CHECK(contains(refusal(read_template), "chat_template.jinja: expected at most"));
}

TEST_CASE("the model is named after its folder") {
  const Folder folder;
  std::filesystem::create_directory(folder / "tiny-model");
  write_file(folder / "tiny-model/config.json", llama_config().dump());
  CHECK(read_huggingface_folder(folder / "tiny-model").name == "tiny-model");
  CHECK(read_huggingface_folder(folder / "tiny-model/").name == "tiny-model");
  CHECK(read_huggingface_folder(folder / "tiny-model/../tiny-model/.").name == "tiny-model");
}

TEST_CASE("shared checkpoints") {
  const std::string models = std::string(TESSERA_SHARED_DIR) + "/models/";
  if (!std::filesystem::exists(models + "tessera-tiny/config.json") ||
      !std::filesystem::exists(models + "stories260k/config.json")) {
    std::cout << "skipped: no shared checkpoints\n";
    MESSAGE("skipped: no shared checkpoints");
    return;
  }
  const ModelHeader tiny = read_huggingface_folder(models + "tessera-tiny");
  CHECK(tiny.name == "tessera-tiny");
  CHECK(tiny.hyperparameters.vocabulary == 4096);
  CHECK(tiny.hyperparameters.tied_head);
  CHECK(tiny.chat.stop_tokens == std::vector<uint32_t>{1, 6});
  CHECK(contains(tiny.chat.chat_template, "message['role']"));
  CHECK(tiny.generation.temperature == 0.7);
  const ModelHeader stories = read_huggingface_folder(models + "stories260k");
  CHECK(stories.hyperparameters.head_dim == 8);
  CHECK(stories.hyperparameters.ffn == 172);
  CHECK(stories.chat.stop_tokens == std::vector<uint32_t>{2});
  CHECK(stories.chat.chat_template.empty());
}
