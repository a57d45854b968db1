#!/usr/bin/env python3
"""Makes the small random checkpoints under tests/golden/models and what Hugging Face transformers computes from them.

  make_model_golden.py [NAME...]   writes models/<name>/ (checkpoint folder and golden.json) for every model below, or
                                   for these
  make_model_golden.py --check D   compares D/golden.json (a folder with a checkpoint) with transformers
  make_model_golden.py --kv16 D... writes kv16_logits.json for checkpoints whose golden.json has exact logits only

Needs numpy, torch, safetensors, transformers and tokenizers. The results are committed, so that building and testing
Tessera needs none of these. The weights are random but have the spread of trained ones; the seed is searched until
no greedy decision is close, so that an engine that is right within rounding gives the same tokens.

Every row of logits is given twice: exact, and with keys and values rounded to f16 on their way into attention, which
is what a 16-bit KV cache does. The first shows what that cache costs, the second lets a test be strict.
"""

import argparse
import contextlib
import copy
import json
import math
import pathlib
import sys

import numpy
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers.models.gemma import modeling_gemma
from transformers.models.gemma2 import modeling_gemma2
from transformers.models.gemma3 import modeling_gemma3
from transformers.models.gpt2 import modeling_gpt2
from transformers.models.granite import modeling_granite
from transformers.models.llama import modeling_llama
from transformers.models.mistral import modeling_mistral
from transformers.models.opt import modeling_opt
from transformers.models.qwen2 import modeling_qwen2
from transformers.models.qwen3 import modeling_qwen3

HERE = pathlib.Path(__file__).resolve().parent
NEW_TOKENS = 24
SMALLEST_GAP = 0.02
PROMPT = "The café at 7:30 — it's \"full\"\n\t(2 + 2 = 4)  ok?"
MERGES = ["t h", "th e", "Ġ the", "i n", "e r", "Ġ a", "o n", "Ġ i", "Ġi t", "' s", "f u", "l l", "fu ll", "Ċ ĉ",
          "Ġ Ġ"]



def alibi(attend):
    """Llama's attention with the linear biases of arXiv 2108.12409."""
    def forward(module, query, key, value, attention_mask, *arguments, **named):
        heads, length = query.shape[1], query.shape[2]
        whole = 2 ** int(math.log2(heads))
        slopes = [2 ** (-8 * (head + 1) / whole) if head < whole else 2 ** (-4 * (2 * (head - whole) + 1) / whole)
                  for head in range(heads)]
        positions = torch.arange(length, dtype=query.dtype)
        biases = torch.tensor(slopes, dtype=query.dtype)[:, None, None] * (positions[None, :] - positions[:, None])
        return attend(module, query, key, value, attention_mask + biases[None], *arguments, **named)
    return forward


def logarithms(first):
    """Qwen's attention, whose queries grow with the logarithm of their position from `first` on."""
    def changed(attend):
        def forward(module, query, *arguments, **named):
            factors = [max(1.0, math.log(position + 1) / math.log(first)) for position in range(query.shape[2])]
            return attend(module, query * torch.tensor(factors, dtype=query.dtype)[:, None], *arguments, **named)
        return forward
    return changed


@contextlib.contextmanager
def changed_attention(module, changed, rotates):
    attend, rotate = module.eager_attention_forward, module.apply_rotary_pos_emb
    module.eager_attention_forward = changed(attend)
    if not rotates:
        module.apply_rotary_pos_emb = lambda query, key, *_, **__: (query, key)
    try:
        yield
    finally:
        module.eager_attention_forward, module.apply_rotary_pos_emb = attend, rotate


def baichuan_tensors(tensors, config):
    """Llama's tensors as Baichuan stores them."""
    stored = {name: tensor for name, tensor in tensors.items()
              if not name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight"))}
    for layer in range(config.num_hidden_layers):
        at = f"model.layers.{layer}.self_attn."
        stored[at + "W_pack.weight"] = torch.cat([tensors[f"{at}{part}_proj.weight"] for part in "qkv"])
    return stored


def qwen_tensors(tensors, config):
    """Qwen2's tensors as the first Qwen stores them: w2 is the gate."""
    stored = {"transformer.wte.weight": tensors["model.embed_tokens.weight"],
              "transformer.ln_f.weight": tensors["model.norm.weight"], "lm_head.weight": tensors["lm_head.weight"]}
    for layer in range(config.num_hidden_layers):
        of, to = f"model.layers.{layer}.", f"transformer.h.{layer}."
        for kind in ("weight", "bias"):
            stored[f"{to}attn.c_attn.{kind}"] = torch.cat([tensors[f"{of}self_attn.{part}_proj.{kind}"] for part in "qkv"])
        for old, new in (("input_layernorm", "ln_1"), ("self_attn.o_proj", "attn.c_proj"),
                         ("post_attention_layernorm", "ln_2"), ("mlp.up_proj", "mlp.w1"), ("mlp.gate_proj", "mlp.w2"),
                         ("mlp.down_proj", "mlp.c_proj")):
            stored[f"{to}{new}.weight"] = tensors[f"{of}{old}.weight"]
    return stored


MODELS = {
    # Rope scaling of Llama 3 with all three wavelength bands, grouped queries, untied head, sizes that are no multiple
    # of 64 or 128, two shards.
    "llama3-scaled-bf16": dict(
        dtype=torch.bfloat16, merges=MERGES, shards=2,
        config=dict(
            architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=96, intermediate_size=172,
            num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2, head_dim=16, vocab_size=320,
            max_position_embeddings=256, rms_norm_eps=1e-5, rope_theta=10000.0,
            rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                              original_max_position_embeddings=32),
            hidden_act="silu", tie_word_embeddings=False, attention_bias=False, mlp_bias=False)),
    # Biases on q, k and v, tied embeddings, a vocabulary larger than the tokenizer's.
    "qwen2-biased-f16": dict(
        dtype=torch.float16, merges=[], shards=1,
        config=dict(
            architectures=["Qwen2ForCausalLM"], model_type="qwen2", hidden_size=64, intermediate_size=152,
            num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=320,
            max_position_embeddings=128, rms_norm_eps=1e-6, rope_theta=1000000.0, use_sliding_window=False,
            hidden_act="silu", tie_word_embeddings=True)),
    # Linear rope scaling, as many KV heads as query heads, rows that do not fill the last panel of 16.
    "llama-linear-f32": dict(
        dtype=torch.float32, merges=MERGES[:7], shards=1,
        config=dict(
            architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=72, intermediate_size=84,
            num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=3, head_dim=24, vocab_size=300,
            max_position_embeddings=128, rms_norm_eps=1e-5, rope_theta=10000.0,
            rope_scaling=dict(rope_type="linear", factor=4.0),
            hidden_act="silu", tie_word_embeddings=True, attention_bias=False, mlp_bias=False)),
    # YaRN with pairs that stay, blend and slow down, and its factor of queries and keys.
    "llama-yarn-f32": dict(
        dtype=torch.float32, merges=MERGES[:3], shards=1,
        config=dict(
            architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=48, intermediate_size=84,
            num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=32, vocab_size=272,
            max_position_embeddings=128, rms_norm_eps=1e-5, rope_theta=100.0,
            rope_scaling=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32, beta_fast=4.0,
                              beta_slow=1.0),
            hidden_act="silu", tie_word_embeddings=False, attention_bias=False, mlp_bias=False)),
    # One KV head for all query heads, and query heads that are wider together than the hidden state.
    "mistral-bf16": dict(
        dtype=torch.bfloat16, merges=MERGES[:13], shards=1,
        config=dict(
            architectures=["MistralForCausalLM"], model_type="mistral", hidden_size=40, intermediate_size=100,
            num_hidden_layers=2, num_attention_heads=5, num_key_value_heads=1, head_dim=16, vocab_size=272,
            max_position_embeddings=128, rms_norm_eps=1e-5, rope_theta=1000000.0, sliding_window=None,
            hidden_act="silu", tie_word_embeddings=False)),
    # Multipliers of embeddings, residual sums, scores and logits, with biases on all four projections of attention.
    "granite-multipliers-bf16": dict(
        dtype=torch.bfloat16, merges=MERGES[:5], shards=1,
        config=dict(
            architectures=["GraniteForCausalLM"], model_type="granite", hidden_size=80, intermediate_size=116,
            num_hidden_layers=3, num_attention_heads=5, num_key_value_heads=1, vocab_size=288,
            max_position_embeddings=128, rms_norm_eps=1e-5, rope_theta=10000.0, embedding_multiplier=3.0,
            attention_multiplier=0.11, residual_multiplier=0.7, logits_scaling=2.0,
            hidden_act="silu", tie_word_embeddings=False, attention_bias=True, mlp_bias=False)),
    # Norms of queries and keys before rotation, query heads that are wider together than the hidden state.
    "qwen3-norms-bf16": dict(
        dtype=torch.bfloat16, merges=MERGES[:9], shards=1,
        config=dict(
            architectures=["Qwen3ForCausalLM"], model_type="qwen3", hidden_size=72, intermediate_size=100,
            num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, head_dim=24, vocab_size=304,
            max_position_embeddings=128, rms_norm_eps=1e-6, rope_theta=1000000.0, use_sliding_window=False,
            hidden_act="silu", tie_word_embeddings=True, attention_bias=False)),
    # Heads of 12, no multiple of 8, with norms and biases.
    "qwen3-heads12-f32": dict(
        dtype=torch.float32, merges=MERGES[:4], shards=1,
        config=dict(
            architectures=["Qwen3ForCausalLM"], model_type="qwen3", hidden_size=40, intermediate_size=76,
            num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=12, vocab_size=272,
            max_position_embeddings=128, rms_norm_eps=1e-6, rope_theta=10000.0, use_sliding_window=False,
            hidden_act="silu", tie_word_embeddings=False, attention_bias=True)),
    # A window in every layer, shorter than the prompt.
    "mistral-window-bf16": dict(
        dtype=torch.bfloat16, merges=MERGES[:6], shards=1,
        config=dict(
            architectures=["MistralForCausalLM"], model_type="mistral", hidden_size=48, intermediate_size=76,
            num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1, head_dim=16, vocab_size=272,
            max_position_embeddings=128, rms_norm_eps=1e-5, rope_theta=1000000.0, sliding_window=11,
            hidden_act="silu", tie_word_embeddings=False)),
    # Gains without their 1, scaled embeddings, GELU, one KV head, query heads wider together than the hidden state.
    "gemma-bf16": dict(
        dtype=torch.bfloat16, merges=MERGES[:8], shards=1,
        config=dict(
            architectures=["GemmaForCausalLM"], model_type="gemma", hidden_size=64, intermediate_size=92,
            num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=1, head_dim=24, vocab_size=288,
            max_position_embeddings=128, rms_norm_eps=1e-6, rope_theta=10000.0,
            hidden_act="gelu", hidden_activation="gelu_pytorch_tanh", tie_word_embeddings=True)),
    # Norms behind both parts of a layer, soft caps that bend, every second layer with a window.
    "gemma2-caps-bf16": dict(
        dtype=torch.bfloat16, merges=MERGES[:10], shards=1,
        config=dict(
            architectures=["Gemma2ForCausalLM"], model_type="gemma2", hidden_size=64, intermediate_size=96,
            num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=24, vocab_size=304,
            max_position_embeddings=128, rms_norm_eps=1e-6, rope_theta=10000.0, query_pre_attn_scalar=20,
            sliding_window=8, attn_logit_softcapping=4.0, final_logit_softcapping=20.0,
            hidden_activation="gelu_pytorch_tanh", tie_word_embeddings=False)),
    # Two windowed layers before each full one, with frequencies of their own; the full ones scaled.
    "gemma3-windows-bf16": dict(
        dtype=torch.bfloat16, merges=MERGES, shards=1,
        config=dict(
            architectures=["Gemma3ForCausalLM"], model_type="gemma3_text", hidden_size=64, intermediate_size=100,
            num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=32, vocab_size=320,
            max_position_embeddings=128, rms_norm_eps=1e-6, query_pre_attn_scalar=24, sliding_window=9,
            rope_parameters=dict(full_attention=dict(rope_type="linear", factor=4.0, rope_theta=100000.0),
                                 sliding_attention=dict(rope_type="default", rope_theta=1000.0)),
            layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
            hidden_activation="gelu_pytorch_tanh", tie_word_embeddings=False)),
    # Layer norms, learned positions, biases everywhere, GELU without a gate, fused and transposed matrices; names
    # without their prefix, and masks, as the hub's gpt2 has them.
    "gpt2-bf16": dict(
        dtype=torch.bfloat16, merges=MERGES[:11], shards=1, stored=lambda tensors, config: {
            **{name.removeprefix("transformer."): tensor for name, tensor in tensors.items()},
            "h.0.attn.bias": torch.ones(1, 1, 4, 4), "h.0.attn.masked_bias": torch.tensor(-1e4)},
        config=dict(
            architectures=["GPT2LMHeadModel"], model_type="gpt2", n_embd=40, n_inner=None, n_layer=2, n_head=5,
            n_positions=128, n_ctx=128, vocab_size=272, layer_norm_epsilon=1e-5, activation_function="gelu_new",
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)),
    # The same with ReLU and separate matrices.
    "opt-f16": dict(
        dtype=torch.float16, merges=MERGES[:2], shards=1,
        config=dict(
            architectures=["OPTForCausalLM"], model_type="opt", hidden_size=48, ffn_dim=76, num_hidden_layers=2,
            num_attention_heads=3, vocab_size=272, max_position_embeddings=96, word_embed_proj_dim=48,
            do_layer_norm_before=True, activation_function="relu", dropout=0.0, layerdrop=0.0)),
    # Norms behind each part of a layer, embeddings of another width than the rest.
    "opt-post-norm-bf16": dict(
        dtype=torch.bfloat16, merges=MERGES[:12], shards=1,
        config=dict(
            architectures=["OPTForCausalLM"], model_type="opt", hidden_size=40, ffn_dim=68, num_hidden_layers=3,
            num_attention_heads=5, vocab_size=280, max_position_embeddings=96, word_embed_proj_dim=32,
            do_layer_norm_before=False, activation_function="relu", dropout=0.0, layerdrop=0.0)),
    # No class of transformers: Llama with ALiBi, for a number of heads that is no power of two, and fused q, k and v.
    "baichuan-alibi-f16": dict(
        dtype=torch.float16, merges=MERGES[:14], shards=1, stored=baichuan_tensors,
        changes=lambda: changed_attention(modeling_llama, alibi, rotates=False),
        config=dict(
            architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=48, intermediate_size=76,
            num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=6, vocab_size=288,
            max_position_embeddings=128, rms_norm_eps=1e-6, hidden_act="silu", tie_word_embeddings=False),
        saved=dict(
            architectures=["BaichuanForCausalLM"], model_type="baichuan", hidden_size=48, intermediate_size=76,
            num_hidden_layers=2, num_attention_heads=6, vocab_size=288, model_max_length=128, rms_norm_eps=1e-6,
            hidden_act="silu", tie_word_embeddings=False)),
    # No class of transformers: Qwen2 under other names, queries that grow from position 20 on.
    "qwen-logn-bf16": dict(
        dtype=torch.bfloat16, merges=MERGES[:1], shards=1, stored=qwen_tensors,
        changes=lambda: changed_attention(modeling_qwen2, logarithms(20), rotates=True),
        config=dict(
            architectures=["Qwen2ForCausalLM"], model_type="qwen2", hidden_size=48, intermediate_size=76,
            num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=3, vocab_size=272,
            max_position_embeddings=128, rms_norm_eps=1e-6, rope_theta=10000.0, use_sliding_window=False,
            hidden_act="silu", tie_word_embeddings=False),
        saved=dict(
            architectures=["QWenLMHeadModel"], model_type="qwen", hidden_size=48, intermediate_size=152,
            num_hidden_layers=2, num_attention_heads=3, kv_channels=16, vocab_size=272, seq_length=20,
            max_position_embeddings=128, layer_norm_epsilon=1e-6, rotary_emb_base=10000, rotary_pct=1.0, no_bias=True,
            use_dynamic_ntk=False, use_logn_attn=True, scale_attn_weights=True, tie_word_embeddings=False)),
}


def byte_characters():
    """The printable character that stands for each byte in a byte-level vocabulary."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    mapping, spare = {}, 0
    for byte in range(256):
        mapping[byte] = chr(byte) if byte in printable else chr(256 + spare)
        spare += byte not in printable
    return mapping


def make_tokenizer(merges):
    vocabulary = {character: byte for byte, character in byte_characters().items()}
    pairs = [tuple(merge.split(" ")) for merge in merges]
    for left, right in pairs:
        vocabulary[left + right] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(text, special=True, normalized=False) for text in ("<|begin|>", "<|end|>", "<|pad|>")])
    return tokenizer


def special_ids(tokenizer):
    return {"bos_token_id": tokenizer.token_to_id("<|begin|>"), "eos_token_id": tokenizer.token_to_id("<|end|>")}


def random_model(config_json, dtype, seed):
    """A transformers model in float32 whose weights have the spread of trained ones, all of them exact in dtype."""
    config = transformers.AutoConfig.for_model(**config_json)
    config._attn_implementation = "eager"
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith(("norm.weight", "ln_1.weight", "ln_2.weight", "ln_f.weight")):
                centre = 0.0 if config_json["model_type"].startswith("gemma") else 1.0  # stored less 1
                noise = centre + 0.2 * noise
            elif name.endswith("bias") and config_json.get("word_embed_proj_dim", 0) < config_json.get("hidden_size", 0):
                noise = 0.1 * noise  # norms at the end of each part would make all rows alike
            elif name.endswith("bias"):
                noise = 0.5 * noise
            elif "project_in" in name:
                noise = 0.8 * noise
            elif "wpe" in name or "embed_positions" in name:
                noise = 0.8 * noise  # or tied heads would say the last token again
            else:
                noise = 0.2 * noise
            parameter.copy_(noise.to(dtype).float())
    return model


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float64, attn_implementation="eager").eval()


def check_bands(config_json):
    """All three cases of the llama3 scaling must occur, or the test would prove little."""
    scaling = config_json.get("rope_scaling")  # of one kind for all layers
    if scaling is None or scaling["rope_type"] != "llama3":
        return
    half = config_json["head_dim"] // 2
    wavelength = 2 * numpy.pi * config_json["rope_theta"] ** (numpy.arange(half) / half)
    original = scaling["original_max_position_embeddings"]
    kept = wavelength < original / scaling["high_freq_factor"]
    scaled = wavelength > original / scaling["low_freq_factor"]
    assert kept.any() and scaled.any() and (~kept & ~scaled).any(), "a wavelength band is empty"


class RoundedCache:
    """While entered, attention sees keys and values rounded to f16, keys without a factor of rotated elements: that
    belongs to the scale of scores."""

    def __init__(self, key_factor):
        self.key_factor = key_factor

    def __enter__(self):
        modules = (modeling_llama, modeling_mistral, modeling_qwen2, modeling_granite, modeling_qwen3,
                   modeling_gemma, modeling_gemma2, modeling_gemma3, modeling_gpt2, modeling_opt)
        self.originals = [(module, module.eager_attention_forward) for module in modules]
        for module, original in self.originals:
            module.eager_attention_forward = self.rounded(original)

    def __exit__(self, *_):
        for module, original in self.originals:
            module.eager_attention_forward = original

    def rounded(self, attend):
        def forward(module, query, key, value, *arguments, **named):
            stored = (key / self.key_factor).half().to(key.dtype)
            return attend(module, query, stored * self.key_factor, value.half().to(value.dtype), *arguments, **named)
        return forward


def all_logits(model, ids, kv16=False):
    with torch.no_grad(), getattr(model, "changes", contextlib.nullcontext)():
        if kv16:
            rotary = getattr(getattr(model, "model", None), "rotary_emb", None)
            with RoundedCache(getattr(rotary, "attention_scaling", 1.0)):
                return model(torch.tensor([ids])).logits[0].numpy()
        return model(torch.tensor([ids])).logits[0].numpy()


def greedy(model, ids, count, kv16=False):
    """Greedy continuation without a cache, and the smallest distance between the best two logits."""
    ids, gap = list(ids), numpy.inf
    for _ in range(count):
        row = all_logits(model, ids, kv16)[-1]
        second, first = numpy.sort(row)[-2:]
        gap = min(gap, float(first - second))
        ids.append(int(row.argmax()))
    return ids, gap


def save_checkpoint(folder, model, dtype, shards, stored=None):
    tied = model.config.tie_word_embeddings
    tensors = {name: tensor.to(dtype).contiguous() for name, tensor in model.state_dict().items()
               if not (tied and name == "lm_head.weight")}
    if stored is not None:  # under other names, or in other pieces
        tensors = stored(tensors, model.config)
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names, weight_map = sorted(tensors), {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = names[shard * len(names) // shards:(shard + 1) * len(names) // shards]
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
        weight_map.update({name: file for name in part})
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


def decimals(row, places=6):
    return [round(float(value), places) for value in row]


def make(name, recipe):
    folder = HERE / "models" / name
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(recipe["merges"])
    prompt_ids = tokenizer.encode(PROMPT, add_special_tokens=False).ids
    config_json = dict(recipe["config"], **special_ids(tokenizer))
    check_bands(config_json)
    saved_config = dict(recipe.get("saved", config_json), **special_ids(tokenizer), torch_dtype=str(recipe["dtype"]).removeprefix("torch."))
    (folder / "config.json").write_text(json.dumps(saved_config, indent=2) + "\n")
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    (folder / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin|>", "eos_token": "<|end|>",
         "pad_token": "<|pad|>", "add_bos_token": False, "clean_up_tokenization_spaces": False}, indent=2) + "\n")
    for seed in range(1, 1000):
        made = random_model(config_json, recipe["dtype"], seed)
        save_checkpoint(folder, made, recipe["dtype"], recipe["shards"], recipe.get("stored"))
        if "changes" in recipe:  # transformers could not load it
            model = copy.deepcopy(made).double().eval()
            model.changes = recipe["changes"]
        else:
            model = load(folder)
        sequence, gap = greedy(model, prompt_ids, NEW_TOKENS)
        if gap > SMALLEST_GAP and len(set(sequence[len(prompt_ids):])) >= NEW_TOKENS // 2:
            same = greedy(model, prompt_ids, NEW_TOKENS, kv16=True)[0] == sequence
            assert same, "a 16-bit cache must not change the text"
            break
    else:
        sys.exit(f"{name}: no seed gives greedy decisions that are clear and varied")

    logits, rounded = all_logits(model, sequence[:-1]), all_logits(model, sequence[:-1], kv16=True)
    prompt_last = len(prompt_ids) - 1
    rows = sorted({0, 1, prompt_last // 2, prompt_last, len(sequence) - 2})
    golden = {
        "made_by": f"transformers {transformers.__version__}, eager attention on float64 weights (norms, rotation "
                   f"angles and softmax in float32, as that library does), seed {seed}",
        "prompt": PROMPT,
        "prompt_ids": prompt_ids,
        "greedy_ids": sequence,
        "smallest_top2_gap": round(gap, 6),
        "rows": [{"row": row, "logits": decimals(logits[row]), "logits_kv16": decimals(rounded[row])}
                 for row in rows],
    }
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")
    for file in folder.iterdir():
        file.chmod(0o644)
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{name}: seed {seed}, {len(prompt_ids)} prompt tokens, smallest gap {gap:.4f}, "
          f"16-bit cache moves logits by {abs(logits - rounded).max():.4f}, {size} bytes")


def check(folder):
    """Compares the golden values of a checkpoint folder with transformers; exits 1 when they differ."""
    golden = json.loads((folder / "golden.json").read_text())
    model = load(folder)
    worst, faults = 0.0, []
    for case in golden.get("generation", [golden]):
        prompt_ids, greedy_ids = case["prompt_ids"], case["greedy_ids"]
        expected = greedy_ids if greedy_ids[:len(prompt_ids)] == prompt_ids else prompt_ids + greedy_ids
        sequence, gap = greedy(model, prompt_ids, len(expected) - len(prompt_ids))
        if sequence != expected:
            faults.append(f"greedy ids of {case.get('prompt')!r} differ: {sequence} instead of {expected}")
        logits = all_logits(model, expected)
        rows = {row["row"]: row["logits"] for row in case.get("rows", [])}
        if "last_logits" in case:
            rows[len(expected) - 1] = case["last_logits"]
        if "last_prompt_logits" in case:
            rows[len(prompt_ids) - 1] = case["last_prompt_logits"]
        differences = {row: float(abs(logits[row] - numpy.array(values)).max()) for row, values in rows.items()}
        worst = max(worst, *differences.values())
        print(f"{case.get('prompt')!r}: gap {gap:.4f}, largest logit difference by row "
              f"{ {row: round(value, 7) for row, value in differences.items()} }")
        if "mean_nll" in case:
            chosen = torch.log_softmax(torch.tensor(logits), -1)[range(len(expected) - 1), expected[1:]]
            print(f"  mean nll over all {-chosen.mean():.6f}, over the reply "
                  f"{-chosen[len(prompt_ids) - 1:].mean():.6f}, golden {case['mean_nll']:.6f}")
    if (folder / "tokenizer.json").exists():
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        for case in golden.get("tokenizer", []):
            ids = tokenizer.encode(case["text"], add_special_tokens=False).ids
            if ids != case["ids"]:
                faults.append(f"ids of {case['text']!r} differ: {ids} instead of {case['ids']}")
    if worst > 1e-3:
        faults.append(f"logits differ by {worst}")
    for fault in faults:
        print(f"{folder.name}: {fault}", file=sys.stderr)
    print(f"{folder.name}: {'differs' if faults else 'agrees'}, largest logit difference {worst:.2e}")
    return not faults


def make_kv16(folders):
    """The logits with a 16-bit cache for checkpoints whose golden.json holds exact ones only."""
    result = {}
    for folder in folders:
        golden, model = json.loads((folder / "golden.json").read_text()), load(folder)
        cases = []
        for case in golden.get("generation", [golden]):
            ids = case["prompt_ids"] if "last_prompt_logits" in case else case["greedy_ids"]
            cases.append({"ids": ids, "last_logits": decimals(all_logits(model, ids, kv16=True)[-1], 4)})
        result[folder.name] = cases
    (HERE / "kv16_logits.json").write_text(json.dumps(result) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", metavar="NAME", nargs="*")
    parser.add_argument("--check", metavar="FOLDER", type=pathlib.Path, action="append")
    parser.add_argument("--kv16", metavar="FOLDER", type=pathlib.Path, nargs="+")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    if arguments.check:
        sys.exit(0 if all([check(folder) for folder in arguments.check]) else 1)
    if arguments.kv16:
        make_kv16(arguments.kv16)
        return
    for name in arguments.names or MODELS:
        make(name, MODELS[name])


if __name__ == "__main__":
    main()
