"""A Hugging Face folder of a small Llama as the bytes of a GGUF file, so that tests have one without downloading it."""

import json
import struct

U32, F32, STRING, ARRAY, I32, BOOL = 4, 6, 8, 9, 5, 7
BF16 = 30
ALIGNMENT = 32
NAMES = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
         "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}


def text(value):
    encoded = value.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def number(value):
    return struct.pack("<If", F32, value) if isinstance(value, float) else struct.pack("<II", U32, value)


def array(kind, items):
    return struct.pack("<IIQ", ARRAY, kind, len(items)) + b"".join(items)


def gguf_file(keys, tensors, version=3):
    """keys: name -> bytes of type and value; tensors: (name, dimensions with columns first, type, bytes)."""
    header = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys))
    header += b"".join(text(key) + value for key, value in keys.items())
    data = bytearray()
    for name, dimensions, kind, content in tensors:
        data += bytes(-len(data) % ALIGNMENT)
        header += text(name) + struct.pack(f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, kind, len(data))
        data += content
    return header + bytes(-len(header) % ALIGNMENT) + bytes(data)


def neighbouring(content, head_dim, row_bytes):
    """Rows i and i + head_dim / 2 of every head become neighbours, as GGUF files of Llama have them."""
    rows = [content[at:at + row_bytes] for at in range(0, len(content), row_bytes)]
    half = head_dim // 2
    return b"".join(rows[head + pair + half * side] for head in range(0, len(rows), head_dim)
                    for pair in range(half) for side in (0, 1))


def safetensors(path):
    content = path.read_bytes()
    begin = 8 + struct.unpack_from("<Q", content)[0]
    for name, entry in json.loads(content[8:begin]).items():
        if name != "__metadata__":
            first, end = entry["data_offsets"]
            assert entry["dtype"] == "BF16", entry["dtype"]
            yield name, entry["shape"], content[begin + first:begin + end]


def wider_ffn(part, shape, content, times):
    """A BF16 matrix of the feed-forward network with that many copies of its rows (gate, up) or columns (down)."""
    if part in ("mlp.gate_proj", "mlp.up_proj"):
        return [shape[0] * times, shape[1]], content * times
    row = 2 * shape[1]
    rows = (content[at:at + row] for at in range(0, len(content), row))
    return [shape[0], shape[1] * times], b"".join(line * times for line in rows)


def convert(folder, wider=1):
    """Tokens are split as the embedded model splits them, which GGUF files call qwen2. wider: the feed-forward network
    has that many times its width, which makes a larger file and a useless model."""
    config = json.loads((folder / "config.json").read_text())
    config["intermediate_size"] *= wider
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    generation = json.loads((folder / "generation_config.json").read_text())
    keys = {"general.architecture": struct.pack("<I", STRING) + text("llama")}
    for name, field in (("block_count", "num_hidden_layers"), ("context_length", "max_position_embeddings"),
                        ("embedding_length", "hidden_size"), ("feed_forward_length", "intermediate_size"),
                        ("attention.head_count", "num_attention_heads"),
                        ("attention.head_count_kv", "num_key_value_heads"), ("attention.key_length", "head_dim"),
                        ("attention.value_length", "head_dim"), ("rope.dimension_count", "head_dim"),
                        ("rope.freq_base", "rope_theta"),
                        ("attention.layer_norm_rms_epsilon", "rms_norm_eps")):
        keys[f"llama.{name}"] = number(config[field])
    if "temperature" in generation:
        keys["general.sampling.temp"] = number(float(generation["temperature"]))
    vocabulary = dict(tokenizer["model"]["vocab"])
    vocabulary.update({token["content"]: token["id"] for token in tokenizer["added_tokens"]})
    special = {token["id"] for token in tokenizer["added_tokens"] if token["special"]}
    tokens = sorted(vocabulary, key=vocabulary.get)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]]
    keys["tokenizer.ggml.model"] = struct.pack("<I", STRING) + text("gpt2")
    keys["tokenizer.ggml.pre"] = struct.pack("<I", STRING) + text("qwen2")
    keys["tokenizer.ggml.tokens"] = array(STRING, [text(token) for token in tokens])
    keys["tokenizer.ggml.token_type"] = array(I32, [struct.pack("<i", 3 if vocabulary[token] in special else 1)
                                                    for token in tokens])
    keys["tokenizer.ggml.merges"] = array(STRING, [text(merge) for merge in merges])
    keys["tokenizer.ggml.bos_token_id"] = number(vocabulary[settings["bos_token"]])
    keys["tokenizer.ggml.eos_token_id"] = number(vocabulary[settings["eos_token"]])
    keys["tokenizer.ggml.padding_token_id"] = number(vocabulary[settings["pad_token"]])
    keys["tokenizer.ggml.eot_token_id"] = number(config["eos_token_id"][1])
    keys["tokenizer.ggml.add_bos_token"] = struct.pack("<IB", BOOL, settings["add_bos_token"])
    keys["tokenizer.chat_template"] = struct.pack("<I", STRING) + text(settings["chat_template"])
    tensors = []
    for name, shape, content in safetensors(folder / "model.safetensors"):
        part = name.removesuffix(".weight").removeprefix("model.")
        if part in ("embed_tokens", "norm"):
            name = {"embed_tokens": "token_embd", "norm": "output_norm"}[part] + ".weight"
        else:
            _, layer, part = part.split(".", 2)
            name = f"blk.{layer}.{NAMES[part]}.weight"
            if part.startswith("mlp.") and wider > 1:
                shape, content = wider_ffn(part, shape, content, wider)
        if name.endswith(("attn_q.weight", "attn_k.weight")):
            content = neighbouring(content, config["head_dim"], 2 * shape[1])
        tensors.append((name, shape[::-1], BF16, content))
    return gguf_file(keys, tensors)
