// GGUF files as checkpoints: settings, where tensors lie in them, and every refusal.
#include "engine/checkpoint/gguf_source.h"

#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <map>

#include "engine/models/families.h"
#include "engine/models/rope_frequencies.h"
#include "engine/quantize/plan/checkpoint_values.h"
#include "engine/quantize/plan/weight_plan.h"
#include "gguf-like-format/hyperparameter_checks.h"
#include "tests/unit/crafted_files.h"
#include "tests/unit/gguf_models.h"

using namespace tessera;
using namespace tessera::crafted;

namespace {

// All values that a plan reads, by the name in the .tess file.
std::map<std::string, std::vector<float>> values_of(const CheckpointSource& source) {
  std::map<std::string, std::vector<float>> values;
  for (const PlannedWeight& weight :
       plan_weights(source, source.header().hyperparameters, Scheme::f32, false)) {
    std::vector<float>& read = values[weight.expected.name];
    read.resize(static_cast<size_t>(weight.elements()));
    read_finite(source.path(), weight, 0, read);
  }
  return values;
}

std::unique_ptr<CheckpointSource> open(const Folder& folder, const GgufWriter& file) {
  write_file(folder / "model.gguf", file.file());
  return open_checkpoint(folder / "model.gguf");
}

// What opening the file and planning its weights is refused with.
std::string fault_of(const GgufWriter& file) {
  const Folder folder;
  const std::string line = refusal([&] { values_of(*open(folder, file)); });
  CAPTURE(line);
  CHECK(well_formed(line, "model.gguf"));
  return line;
}

std::string fault_with(const std::function<void(GgufWriter&)>& spoil) {
  GgufWriter file = small_model("llama", 1);
  spoil(file);
  return fault_of(file);
}

// Rows in the order of Llama's GGUF files: pairs that rotate together are neighbours.
std::string neighbouring(const std::string& data, size_t row_bytes, size_t head_dim) {
  std::string out = data;
  for (size_t row = 0; row < data.size() / row_bytes; ++row) {
    const size_t in_head = row % head_dim;
    const size_t half = head_dim / 2;
    const size_t to = row - in_head + (in_head < half ? 2 * in_head : 2 * (in_head - half) + 1);
    out.replace(to * row_bytes, row_bytes, data, row * row_bytes, row_bytes);
  }
  return out;
}

// A checkpoint as a GGUF file of bf16 matrices.
GgufWriter converted(const CheckpointSource& source) {
  const Hyperparameters& h = source.header().hyperparameters;
  GgufWriter file;
  file.text("general.architecture", "llama");
  const auto number = [&](const std::string& name, uint64_t value) {
    file.u32("llama." + name, static_cast<uint32_t>(value));
  };
  number("block_count", h.layers);
  number("context_length", h.context);
  number("embedding_length", h.hidden);
  number("feed_forward_length", h.ffn);
  number("attention.head_count", h.query_heads);
  number("attention.head_count_kv", h.kv_heads);
  number("attention.key_length", h.head_dim);
  number("attention.value_length", h.head_dim);
  number("rope.dimension_count", h.head_dim);
  file.f32("llama.attention.layer_norm_rms_epsilon", static_cast<float>(h.norm_epsilon));
  file.f32("llama.rope.freq_base", static_cast<float>(h.rope_theta));
  file.f32("general.sampling.temp", 0.7f);
  file.text("tokenizer.chat_template", source.header().chat.chat_template);
  add_byte_level(file, {});
  const std::map<std::string, std::string> names = {{"attention_norm", "attn_norm"},
                                                    {"q", "attn_q"},
                                                    {"k", "attn_k"},
                                                    {"v", "attn_v"},
                                                    {"o", "attn_output"},
                                                    {"ffn_norm", "ffn_norm"},
                                                    {"gate", "ffn_gate"},
                                                    {"up", "ffn_up"},
                                                    {"down", "ffn_down"}};
  for (const auto& [name, values] : values_of(source)) {
    GgufTensorText tensor;
    const ExpectedTensor* expected = nullptr;
    const std::vector<ExpectedTensor> all = expected_tensors(h);
    for (const ExpectedTensor& each : all)
      if (each.name == name) expected = &each;
    REQUIRE(expected != nullptr);
    tensor.dimensions.assign(expected->shape.rbegin(), expected->shape.rend());
    tensor.type = 30;
    for (const float value : values) tensor.data += raw(f32_to_bf16(value));
    if (name == "token_embedding") {
      tensor.name = "token_embd.weight";
    } else if (name == "output_norm") {
      tensor.name = "output_norm.weight";
    } else {
      const std::string role = name.substr(name.rfind('.') + 1);
      tensor.name = fmt::format("blk.{}.{}.weight", expected->layer, names.at(role));
      if (role == "q" || role == "k")
        tensor.data = neighbouring(tensor.data, 2 * static_cast<size_t>(expected->shape[1]),
                                   static_cast<size_t>(h.head_dim));
    }
    file.tensors.push_back(std::move(tensor));
  }
  return file;
}

void fuse_layer(GgufWriter& file, const std::string& layer, const std::string& kind) {
  GgufTensorText fused{layer + "attn_qkv." + kind, {}, 0, "", {}};
  for (const char* part : {"attn_q.", "attn_k.", "attn_v."}) {
    const GgufTensorText tensor = *file.find_tensor(layer + part + kind);
    if (fused.dimensions.empty()) {
      fused.dimensions = tensor.dimensions;
      fused.dimensions.back() = 0;
    }
    fused.dimensions.back() += tensor.dimensions.back();
    fused.data += tensor.data;
    file.remove_tensor(tensor.name);
  }
  file.tensors.push_back(std::move(fused));
}

std::string divisors(size_t head_dim, double theta, const RopeScaling& scaling) {
  const auto plain = rope_inverse_frequencies(head_dim, theta, {});
  const auto scaled = rope_inverse_frequencies(head_dim, theta, scaling);
  std::string data;
  for (size_t i = 0; i < plain.size(); ++i) data += raw(static_cast<float>(plain[i] / scaled[i]));
  return data;
}

}  // namespace

TEST_CASE("a converted checkpoint gives the settings and every value of the original") {
  const auto original = open_checkpoint(TESSERA_SOURCE_DIR "/models/tessera-tiny");
  const Folder folder;
  const auto source = open(folder, converted(*original));
  CHECK(hyperparameter_texts(source->header().hyperparameters) ==
        hyperparameter_texts(original->header().hyperparameters));
  CHECK(source->header().name == "model");
  CHECK(source->header().chat.chat_template == original->header().chat.chat_template);
  CHECK(source->header().generation.temperature == 0.7);
  CHECK(source->header().chat.stop_tokens == std::vector<uint32_t>{257});
  CHECK(source->find("token_embd.weight")->type == "BF16");
  CHECK(source->find("token_embd.weight")->precision == Scheme::bf16);
  CHECK(values_of(*source) == values_of(*original));
}

TEST_CASE("rows of q and k are put in order only where the architecture interleaves them") {
  const Folder folder;
  const GgufWriter llama = small_model("llama", 7);
  const auto first = open(folder, llama);
  const auto in_file = [](const GgufTensorText& tensor) {
    std::vector<float> values(tensor.data.size() / 4);
    std::memcpy(values.data(), tensor.data.data(), tensor.data.size());
    return values;
  };
  GgufWriter ordered = llama;
  const auto read = values_of(*first);
  CHECK(read.at("layers.1.v") == in_file(*ordered.find_tensor("blk.1.attn_v.weight")));
  CHECK(read.at("layers.1.o") == in_file(*ordered.find_tensor("blk.1.attn_output.weight")));
  for (const std::string name : {"q", "k"}) {
    const std::vector<float>& found = read.at("layers.1." + name);
    std::string bytes(found.size() * 4, '\0');
    std::memcpy(bytes.data(), found.data(), bytes.size());
    CHECK(neighbouring(bytes, 32 * 4, 8) == ordered.find_tensor("blk.1.attn_" + name + ".weight")->data);
  }
  GgufWriter qwen2 = small_model("qwen2", 7);
  const auto second = values_of(*open(folder, qwen2));
  for (const std::string name : {"q", "k", "v"}) {
    CHECK(second.at("layers.0." + name) == in_file(*qwen2.find_tensor("blk.0.attn_" + name + ".weight")));
    CHECK(second.at("layers.0." + name + "_bias") ==
          in_file(*qwen2.find_tensor("blk.0.attn_" + name + ".bias")));
  }
}

TEST_CASE("fused projections, biases and a head of its own are found") {
  const Folder folder;
  GgufWriter file = small_model("llama", 8);
  std::mt19937_64 random(3);
  for (const std::string layer : {"blk.0.", "blk.1."}) {
    add_random_tensor(file, layer + "attn_q.bias", {32}, random);
    add_random_tensor(file, layer + "attn_k.bias", {16}, random);
    add_random_tensor(file, layer + "attn_v.bias", {16}, random);
    add_random_tensor(file, layer + "attn_output.bias", {32}, random);
  }
  add_random_tensor(file, "output.weight", {32, 263}, random);
  const auto source = open(folder, file);
  CHECK(source->header().hyperparameters.qkv_bias);
  CHECK(source->header().hyperparameters.output_bias);
  CHECK_FALSE(source->header().hyperparameters.tied_head);
  const auto apart = values_of(*source);
  fuse_layer(file, "blk.0.", "weight");
  fuse_layer(file, "blk.0.", "bias");
  fuse_layer(file, "blk.1.", "weight");
  CHECK(values_of(*open(folder, file)) == apart);
  file.find_tensor("blk.0.attn_qkv.weight")->dimensions = {64, 32};
  CHECK(
      contains(fault_of(file), "tensor \"blk.0.attn_qkv.weight\": expected shape [64, 32], found [32, 64]"));
}

TEST_CASE("rope scaling is read, or found again from its divisors") {
  const Folder folder;
  GgufWriter file = small_model("llama", 9);
  const auto scaling = [&] { return open(folder, file)->header().hyperparameters.rope_scaling; };
  CHECK(scaling().kind == RopeScalingKind::none);
  file.f32("llama.rope.scaling.factor", 4.0f);
  CHECK(scaling().kind == RopeScalingKind::linear);
  CHECK(scaling().factor == 4.0);
  file.text("llama.rope.scaling.type", "none");
  CHECK(scaling().kind == RopeScalingKind::none);
  file.text("llama.rope.scaling.type", "yarn");
  CHECK(contains(fault_of(file), "llama.rope.scaling.type: expected none or linear, found \"yarn\""));
  file.text("llama.rope.scaling.type", "linear");
  file.tensors.push_back({"rope_freqs.weight", {4}, 0, std::string(16, '\0'), {}});
  CHECK(contains(fault_of(file), "expected none beside tensor \"rope_freqs.weight\", found linear"));
  file.remove("llama.rope.scaling.type");
  file.remove("llama.rope.scaling.factor");
  CHECK(contains(fault_of(file), "tensor \"rope_freqs.weight\": expected divisors as Llama 3 scales"));
  file.u32("llama.attention.head_count", 2);
  file.u32("llama.attention.head_count_kv", 1);
  CHECK(contains(fault_of(file), "tensor \"rope_freqs.weight\": expected shape [8], found [4]"));
  for (const double factor : {8.0, 32.0}) {
    for (const uint64_t context : {uint64_t{8192}, uint64_t{4096}}) {
      const RopeScaling made{RopeScalingKind::llama3, factor, 1.0, 4.0, context};
      GgufTensorText* tensor = file.find_tensor("rope_freqs.weight");
      tensor->dimensions = {8};
      tensor->data = divisors(16, 50000.0, made);
      file.remove("llama.rope.scaling.original_context_length");
      if (context != 8192) {
        CHECK(contains(fault_of(file), "expected divisors as Llama 3 scales"));
        file.u32("llama.rope.scaling.original_context_length", static_cast<uint32_t>(context));
      }
      const RopeScaling found = scaling();
      CHECK(found.kind == RopeScalingKind::llama3);
      CHECK(found.factor == factor);
      CHECK(found.low_freq_factor == 1.0);
      CHECK(found.high_freq_factor == 4.0);
      CHECK(found.original_context == context);
      const auto source = open(folder, file);
      CHECK(source->find("rope_freqs.weight") == nullptr);  // it is no weight
    }
  }
}

TEST_CASE("granite's multipliers and gemma's windows and caps are read, what files leave out is known") {
  const auto settings = [](const std::string& architecture, const std::function<void(GgufWriter&)>& change) {
    GgufWriter file = small_model(architecture, 3);
    change(file);
    const Folder folder;
    return open(folder, file)->header().hyperparameters;
  };
  Hyperparameters h = settings("granite", [](GgufWriter& f) {
    f.f32("granite.embedding_scale", 12);
    f.f32("granite.residual_scale", 0.22f);
    f.f32("granite.attention.scale", 0.015625f);
    f.f32("granite.logit_scale", 8);
  });
  CHECK(h.embedding_multiplier == 12.0);
  CHECK(h.residual_multiplier == 0.22);
  CHECK(h.attention_scale == 0.015625);
  CHECK(h.logits_divisor == 8.0);
  h = settings("granite", [](GgufWriter&) {});
  CHECK(h.embedding_multiplier == 1.0);
  CHECK(h.attention_scale == 0.0);

  h = settings("gpt2", [](GgufWriter& f) { f.f32("gpt2.attention.layer_norm_epsilon", 1e-5f); });
  CHECK(h.norm_epsilon == 1e-5);
  CHECK(h.qkv_bias);
  CHECK(h.tied_head);

  h = settings("gemma", [](GgufWriter&) {});
  const double root = std::sqrt(static_cast<double>(h.hidden));
  CHECK(h.embedding_multiplier == root);
  CHECK(h.sliding_window == 0);
  h = settings("gemma2", [](GgufWriter& f) { f.u32("gemma2.attention.sliding_window", 16); });
  CHECK(h.embedding_multiplier == root);
  CHECK(h.sliding_window == 16);
  CHECK(h.slides(0));
  CHECK_FALSE(h.slides(1));
  CHECK(h.attention_soft_cap == 50.0);
  CHECK(h.logits_soft_cap == 30.0);
  CHECK(h.attention_scale == 0.0);
  h = settings("gemma3", [](GgufWriter& f) {
    f.u32("gemma3.attention.sliding_window", 16);
    f.f32("gemma3.rope.freq_base", 1e6f);
    f.text("gemma3.rope.scaling.type", "linear");
    f.f32("gemma3.rope.scaling.factor", 8);
  });
  CHECK(h.slides(4));
  CHECK_FALSE(h.slides(5));
  CHECK(h.rope_theta == 1e6);
  CHECK(h.sliding_rope_theta == 10000.0);
  CHECK(h.rope_scaling.factor == 8.0);
  CHECK(h.logits_soft_cap == 0.0);
  const auto fault = [&](const std::string& architecture, const std::function<void(GgufWriter&)>& change) {
    GgufWriter file = small_model(architecture, 3);
    change(file);
    return fault_of(file);
  };
  CHECK(contains(fault("gemma2", [](GgufWriter&) {}),
                 "gemma2.attention.sliding_window: expected a value, found none"));
  CHECK(contains(fault("gemma3",
                       [](GgufWriter& f) {
                         f.u32("gemma3.attention.sliding_window", 16);
                         f.f32("gemma3.attn_logit_softcapping", 50);
                       }),
                 "gemma3.attn_logit_softcapping: expected 0"));
}

TEST_CASE("stop tokens come from ids and from texts that end turns everywhere") {
  const Folder folder;
  GgufWriter file = small_model("llama", 10);
  file.u32("tokenizer.ggml.eot_token_id", 5);
  file.u32("tokenizer.ggml.eom_token_id", 260);
  CHECK(open(folder, file)->header().chat.stop_tokens == std::vector<uint32_t>{260, 5});
  add_byte_level(file, {{"t", "h"}, {"th", "e"}});
  std::vector<std::string> tokens;
  std::vector<int32_t> types;
  for (int i = 0; i < 256; ++i) {
    tokens.push_back(tokenizer_files::spell(std::string(1, static_cast<char>(i))));
    types.push_back(kNormalToken);
  }
  for (const char* text : {"<s>", "</s>", "<|im_end|>", "<|end|>"}) tokens.emplace_back(text);
  types.insert(types.end(), {kControlToken, kControlToken, kControlToken, kUserToken});
  file.texts("tokenizer.ggml.tokens", tokens);
  file.integers("tokenizer.ggml.token_type", types);
  file.texts("tokenizer.ggml.merges", {});
  file.u32("tokenizer.ggml.bos_token_id", 256);
  file.u32("tokenizer.ggml.eos_token_id", 257);
  file.remove("tokenizer.ggml.eot_token_id");
  file.remove("tokenizer.ggml.eom_token_id");
  CHECK(open(folder, file)->header().chat.stop_tokens == std::vector<uint32_t>{257, 258});
}

TEST_CASE("what lies at a path is recognized by its first bytes or its name") {
  const Folder folder;
  write_file(folder / "renamed.bin", small_model("llama", 1).file());
  CHECK(is_gguf_file(folder / "renamed.bin"));
  CHECK(open_checkpoint(folder / "renamed.bin")->header().name == "renamed.bin");
  write_file(folder / "cut.gguf", "GG");
  CHECK(is_gguf_file(folder / "cut.gguf"));
  CHECK(contains(refusal([&] { open_checkpoint(folder / "cut.gguf"); }), "magic: expected 4 bytes, found 2"));
  write_file(folder / "other.bin", "other");
  CHECK_FALSE(is_gguf_file(folder / "other.bin"));
  CHECK_FALSE(is_gguf_file(folder.path()));
  CHECK_FALSE(is_gguf_file(folder / "nothing.gguf"));
}

TEST_CASE("settings that are missing, out of range or not supported are refused by key") {
  CHECK(contains(fault_with([](GgufWriter& f) { f.text("general.architecture", "gpt9"); }),
                 "general.architecture: expected " + known_gguf_architectures() + ", found \"gpt9\""));
  CHECK(contains(fault_with([](GgufWriter& f) { f.remove("general.architecture"); }),
                 "general.architecture: expected a value, found none"));
  for (const std::string name : {"block_count", "context_length", "embedding_length", "feed_forward_length",
                                 "attention.head_count", "attention.layer_norm_rms_epsilon"}) {
    CAPTURE(name);
    CHECK(contains(fault_with([&](GgufWriter& f) { f.remove("llama." + name); }),
                   "llama." + name + ": expected a value, found none"));
    CHECK(contains(fault_with([&](GgufWriter& f) { f.u32("llama." + name, 0); }),
                   "llama." + name + ": expected"));
  }
  CHECK(contains(fault_with([](GgufWriter& f) {
                   f.integers("llama.attention.head_count", {4, 2});
                 }),
                 "llama.attention.head_count: expected the same integer for all layers, found 4 and 2"));
  CHECK(contains(
      fault_with([](GgufWriter& f) { f.u32("llama.attention.head_count_kv", 3); }),
      "llama.attention.head_count_kv: expected a divisor of llama.attention.head_count (4), found 3"));
  CHECK(contains(fault_with([](GgufWriter& f) { f.u32("llama.attention.head_count", 6); }),
                 "llama.embedding_length: expected a multiple of llama.attention.head_count (6)"));
  CHECK(contains(fault_with([](GgufWriter& f) { f.u32("llama.attention.value_length", 16); }),
                 "llama.attention.value_length: expected an integer from 8 to 8, found 16"));
  CHECK(contains(fault_with([](GgufWriter& f) { f.u32("llama.rope.dimension_count", 4); }),
                 "llama.rope.dimension_count: expected an integer from 8 to 8, found 4"));
  CHECK(contains(fault_with([](GgufWriter& f) { f.u32("llama.attention.key_length", 5); }),
                 "model.head_padding"));
  CHECK(contains(fault_with([](GgufWriter& f) { f.u32("llama.expert_count", 8); }),
                 "llama.expert_count: expected 0 (others are not supported), found 8"));
  CHECK(contains(fault_with([](GgufWriter& f) { f.f32("llama.logit_scale", 8); }),
                 "llama.logit_scale: expected 1"));
  CHECK(contains(fault_with([](GgufWriter& f) { f.f32("llama.embedding_scale", 12); }),
                 "llama.embedding_scale"));
  CHECK(contains(fault_with([](GgufWriter& f) { f.f32("llama.residual_scale", 0.5f); }),
                 "llama.residual_scale"));
  CHECK(contains(fault_with([](GgufWriter& f) { f.f32("llama.attention.scale", 0.5f); }),
                 "llama.attention.scale"));
  CHECK(contains(fault_with([](GgufWriter& f) { f.f32("llama.attn_logit_softcapping", 50); }),
                 "llama.attn_logit_softcapping"));
  CHECK(contains(fault_with([](GgufWriter& f) { f.f32("llama.final_logit_softcapping", 30); }),
                 "llama.final_logit_softcapping"));
  CHECK(contains(fault_with([](GgufWriter& f) { f.boolean("llama.attention.causal", false); }),
                 "llama.attention.causal: expected true"));
  CHECK(contains(fault_with([](GgufWriter& f) { f.boolean("llama.use_parallel_residual", true); }),
                 "llama.use_parallel_residual: expected false"));
  CHECK(contains(
      fault_with([](GgufWriter& f) { f.u32("llama.attention.sliding_window", 64); }),
      "llama.attention.sliding_window: expected none, or at least llama.context_length (128), found 64"));
  CHECK(contains(fault_with([](GgufWriter& f) { f.u32("tokenizer.ggml.eos_token_id", 263); }),
                 "tokenizer.ggml.eos_token_id: expected an integer from 0 to 262, found 263"));
  CHECK(contains(fault_with([](GgufWriter& f) { f.f32("general.sampling.top_p", 2); }),
                 "general.sampling.top_p: expected a number from 0 to 1, found 2"));
  CHECK(contains(fault_with([](GgufWriter& f) { f.f32("llama.rope.scaling.factor", 0.5f); }),
                 "model.rope_scaling.factor"));
  GgufWriter even = small_model("llama", 1);
  even.integers("llama.attention.head_count", {4, 4});
  even.u32("llama.attention.sliding_window", 128);
  even.u32("llama.expert_count", 0);
  const Folder folder;
  CHECK(open(folder, even)->header().hyperparameters.query_heads == 4);
}

TEST_CASE("tensors that are missing, of other shapes or without a place are refused by name") {
  CHECK(contains(fault_with([](GgufWriter& f) { f.remove_tensor("token_embd.weight"); }),
                 "tensor \"token_embd.weight\": expected it, found no such tensor"));
  CHECK(contains(fault_with([](GgufWriter& f) { f.remove_tensor("blk.1.ffn_up.weight"); }),
                 "tensor \"blk.1.ffn_up.weight\": expected shape [64, 32], found no such tensor"));
  CHECK(contains(fault_with([](GgufWriter& f) {
                   f.find_tensor("blk.0.ffn_up.weight")->dimensions = {64, 32};
                 }),
                 "tensor \"blk.0.ffn_up.weight\": expected shape [64, 32], found [32, 64]"));
  CHECK(contains(fault_with([](GgufWriter& f) {
                   f.tensors.push_back({"blk.0.attn_q_norm.weight", {8}, 0, std::string(32, '\0'), {}});
                 }),
                 "tensor \"blk.0.attn_q_norm.weight\": expected only tensors this model family uses"));
  CHECK(contains(fault_with([](GgufWriter& f) {
                   f.find_tensor("blk.0.ffn_up.weight")->data.replace(4, 4, raw(std::nanf("")));
                 }),
                 "tensor \"blk.0.ffn_up.weight\": expected finite values, found nan at [0, 1]"));
  CHECK(contains(fault_with([](GgufWriter& f) {
                   f.find_tensor("token_embd.weight")->dimensions = {32, 262};
                   f.find_tensor("token_embd.weight")->data.resize(32 * 262 * 4);
                 }),
                 "tokenizer.ggml.tokens: expected at most the 262 rows of token_embd.weight, found 263"));
  CHECK(contains(fault_of([] {
                   GgufWriter file = small_model("qwen2", 1);
                   file.remove_tensor("blk.1.attn_k.bias");
                   return file;
                 }()),
                 "tensor \"blk.1.attn_k.bias\": expected shape [16], found no such tensor"));
}
