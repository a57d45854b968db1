#!/usr/bin/env python3
"""Makes tests/golden/real_models.json: what independent implementations make of two real GGUF files.

  make_real_golden.py FOLDER SMOLLM2   with smollm2-135m-instruct.gguf and gemma3-270m.gguf in FOLDER, and
                                       SmolLM2's own tokenizer.json in SMOLLM2

Token ids come from Hugging Face's tokenizers: SmolLM2's own file, as transformers converts its GGUF file without the
splitting of digits, and Gemma's GGUF file converted by transformers. Logits come from a forward
pass written here in numpy, float64, over the weights as gguf-py decodes them. Needs gguf, numpy and transformers. The
result is committed; the models are not, and tests that need them are skipped without.
"""

import json
import pathlib
import random
import sys

import numpy
from gguf import GGUFReader
from gguf.quants import dequantize
from transformers import AutoTokenizer

HERE = pathlib.Path(__file__).resolve().parent
MODELS = {"smollm2-135m-instruct.gguf": ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<repo_name>"],
          "gemma3-270m.gguf": ["<start_of_turn>", "<end_of_turn>", "<eos>", "<unused7>"]}
PROMPTS = ["The capital of Japan is", "def fibonacci(n):\n    ", "Wasser kocht bei 100 °C, und Eis schmilzt bei"]
NEW_TOKENS = 40
PIECES = [
    "Hello", "world", "don't", "I'LL", "we've", "über", "naïve", "Ünïcödé", "ﬁne", "ß", "İstanbul", "日本語", "テキスト", "中文分词",
    "한국어", "Ελληνικά", "русский", "עברית", "العربية", "हिन्दी", "ไทย", "🙂", "👩‍👩‍👧", "🇯🇵", "e\u0301", "\u200b", "\u00a0", "\u3000",
    "0", "7", "42", "2026", "3.14159", "1,234,567", "0x1F", "1e-9", "١٢٣", "½", "²", "()", "{}", "[]", "==", "!=", "->", "::", "//",
    "/* */", "#include", "<b>", "</b>", "&amp;", "https://example.org/a?b=c", "user@example.org", "...", "—", "“quoted”", "'s", "`x`",
    "\t", "\n", "\n\n", "\r\n", " ", "  ", "    ", "        ", "snake_case", "camelCase", "ALLCAPS", "a", "I", ".", ",", "!?", "$9.99", "%", "@@",
]


def lines(seed, specials):
    rng = random.Random(seed)
    made = []
    for i in range(300):
        count = rng.randint(1, 14)
        pool = PIECES + specials * 4 if i % 5 == 0 else PIECES
        separators = ["", " "] if i % 3 else ["", " ", "  ", "\n"]
        made.append("".join(rng.choice(pool) + rng.choice(separators) for _ in range(count)))
    return made


class Model:
    """Llama and Gemma 3 as their papers and transformers define them, over whole sequences."""

    def __init__(self, path):
        reader = GGUFReader(path)
        value = {name: field.contents() for name, field in reader.fields.items() if ".tokens" not in name and
                 ".merges" not in name and ".scores" not in name and ".token_type" not in name}
        self.arch = value["general.architecture"]
        get = lambda key, default=None: value.get(f"{self.arch}.{key}", default)
        self.layers, self.heads = get("block_count"), get("attention.head_count")
        self.kv_heads, self.hidden = get("attention.head_count_kv"), get("embedding_length")
        self.head_dim = get("attention.key_length", self.hidden // self.heads)
        self.epsilon = float(numpy.float32(get("attention.layer_norm_rms_epsilon")))
        self.theta, self.window = get("rope.freq_base"), get("attention.sliding_window", 0)
        self.weights = {}
        for tensor in reader.tensors:
            shape = tuple(int(n) for n in reversed(tensor.shape))
            self.weights[tensor.name] = dequantize(tensor.data, tensor.tensor_type).reshape(shape)

    def matrix(self, name):
        """Rows of q and k of Llama files lie in pairs of neighbours; here pairs lie half a head apart."""
        weights = self.weights[name].astype(numpy.float64)
        if self.arch == "llama" and name.endswith(("attn_q.weight", "attn_k.weight")):
            rows = weights.reshape(-1, self.head_dim // 2, 2, weights.shape[1])
            weights = rows.transpose(0, 2, 1, 3).reshape(weights.shape)
        return weights

    def norm(self, x, name):
        gain = self.weights[name].astype(numpy.float64)
        return x / numpy.sqrt((x * x).mean(-1, keepdims=True) + self.epsilon) * gain

    def rotate(self, x, theta):
        half = self.head_dim // 2
        angles = numpy.arange(len(x))[:, None] * theta ** (-numpy.arange(half) / half)
        cosine, sine = numpy.cos(angles)[:, None], numpy.sin(angles)[:, None]
        a, b = x[..., :half], x[..., half:]
        return numpy.concatenate([a * cosine - b * sine, b * cosine + a * sine], -1)

    def attention(self, x, layer):
        prefix, gemma = f"blk.{layer}.", self.arch == "gemma3"
        slides = gemma and (layer + 1) % 6 != 0
        q, k, v = (x @ self.matrix(f"{prefix}attn_{part}.weight").T for part in "qkv")
        q = q.reshape(len(x), self.heads, self.head_dim)
        k, v = (part.reshape(len(x), self.kv_heads, self.head_dim) for part in (k, v))
        if gemma:
            q, k = self.norm(q, prefix + "attn_q_norm.weight"), self.norm(k, prefix + "attn_k_norm.weight")
        theta = 10000.0 if slides else self.theta
        q, k = self.rotate(q, theta), self.rotate(k, theta)
        k, v = (numpy.repeat(part, self.heads // self.kv_heads, 1) for part in (k, v))
        scores = numpy.einsum("qhd,khd->hqk", q, k) / numpy.sqrt(self.head_dim)
        distance = numpy.arange(len(x))[:, None] - numpy.arange(len(x))
        hidden = (distance < 0) | (slides & (distance >= self.window))
        scores = numpy.where(hidden, -numpy.inf, scores)
        weights = numpy.exp(scores - scores.max(-1, keepdims=True))
        mixed = numpy.einsum("hqk,khd->qhd", weights / weights.sum(-1, keepdims=True), v)
        out = mixed.reshape(len(x), -1) @ self.matrix(prefix + "attn_output.weight").T
        return self.norm(out, prefix + "post_attention_norm.weight") if gemma else out

    def feed_forward(self, x, layer):
        prefix, gemma = f"blk.{layer}.", self.arch == "gemma3"
        gate, up = (x @ self.matrix(f"{prefix}ffn_{part}.weight").T for part in ("gate", "up"))
        if gemma:
            passed = 0.5 * gate * (1 + numpy.tanh(numpy.sqrt(2 / numpy.pi) * (gate + 0.044715 * gate ** 3)))
        else:
            passed = gate / (1 + numpy.exp(-gate))
        out = (passed * up) @ self.matrix(prefix + "ffn_down.weight").T
        return self.norm(out, prefix + "post_ffw_norm.weight") if gemma else out

    def last_logits(self, ids):
        embedding = self.weights["token_embd.weight"]
        x = embedding[ids].astype(numpy.float64)
        if self.arch == "gemma3":
            x *= numpy.sqrt(self.hidden)
        for layer in range(self.layers):
            x = x + self.attention(self.norm(x, f"blk.{layer}.attn_norm.weight"), layer)
            x = x + self.feed_forward(self.norm(x, f"blk.{layer}.ffn_norm.weight"), layer)
        head = self.weights.get("output.weight", embedding)
        last = self.norm(x[-1], "output_norm.weight")
        return numpy.concatenate([part.astype(numpy.float64) @ last for part in numpy.array_split(head, 64)])


def greedy(model, ids):
    tokens, gaps = [], []
    for _ in range(NEW_TOKENS):
        logits = model.last_logits(ids + tokens)
        best = numpy.argsort(logits)[-2:]
        gaps.append(round(float(logits[best[1]] - logits[best[0]]), 4))
        tokens.append(int(best[1]))
    return tokens, gaps


def main():
    folder, result = pathlib.Path(sys.argv[1]), {}
    for seed, (file, specials) in enumerate(MODELS.items()):
        own = [sys.argv[2]] if file.startswith("smollm2") else [folder]
        tokenizer = AutoTokenizer.from_pretrained(*own, **({} if own[0] != folder else {"gguf_file": file}))
        texts = lines(seed, specials)
        model = Model(folder / file)
        cases = []
        for prompt in PROMPTS:
            ids = tokenizer.encode(prompt, add_special_tokens=False)
            if model.arch == "gemma3":
                ids = [2] + ids
            logits = model.last_logits(ids)
            shown = sorted({*numpy.argsort(logits)[-32:].tolist(), *range(0, len(logits), len(logits) // 64)})
            case = {"prompt": prompt, "ids": ids, "largest": round(float(abs(logits).max()), 5),
                    "logits": [[i, round(float(logits[i]), 5)] for i in shown]}
            case["greedy"], case["gaps"] = greedy(model, ids)
            print(file, repr(prompt), repr(tokenizer.decode(case["greedy"])), min(case["gaps"]))
            cases.append(case)
        result[file] = {"texts": [[text, tokenizer.encode(text, add_special_tokens=False)] for text in texts],
                        "cases": cases}
    (HERE / "real_models.json").write_text(json.dumps(result, ensure_ascii=True, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
