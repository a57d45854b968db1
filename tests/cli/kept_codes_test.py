"""quantize with a packed folder: codes of act-order GPTQ are kept with their order and compute what their values do."""

import json
import random
import shutil
import struct
import unittest

import gguf_bytes
import tessera

GROUP = 32
PREFIX = "model.layers.0."
TEXT = "I want to book a table for two in San Jose. What time would you like to eat? At seven, please.\n" * 4


def safetensors(tensors):
    header, data = {}, bytearray()
    for name, (kind, shape, content) in tensors.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(data)


def packed_words(rows):
    """Eight rows of codes as one row of words, the first in the lowest bits."""
    words = bytearray()
    for at in range(0, len(rows), 8):
        for eight in zip(*rows[at:at + 8]):
            words += struct.pack("<I", sum(code << 4 * i for i, code in enumerate(eight)))
    return bytes(words)


def packed(values, rows, columns, order):
    """Rounded in groups of neighbours in an order of columns: parts of a GPTQ matrix, and what they stand for."""
    groups = [order[at:at + GROUP] for at in range(0, columns, GROUP)]
    group_of = [0] * columns
    for index, group in enumerate(groups):
        for column in group:
            group_of[column] = index
    scales, zeros = [], [[7 + row % 3 for row in range(rows)] for _ in groups]
    for group in groups:
        largest = [max(abs(values[row * columns + column]) for column in group) / 7 for row in range(rows)]
        scales.append(struct.unpack(f"<{rows}e", struct.pack(f"<{rows}e", *largest)))
    codes, meant = [], [0.0] * len(values)
    for column in range(columns):
        scale, zero = scales[group_of[column]], zeros[group_of[column]]
        codes.append([])
        for row in range(rows):
            code = min(max(round(values[row * columns + column] / scale[row]) + zero[row], 0), 15) if scale[row] else 0
            codes[-1].append(code)
            meant[row * columns + column] = scale[row] * (code - zero[row])
    stored_zeros = b"".join(packed_words([[zero - 1] for zero in group]) for group in zeros)
    parts = {"qweight": ("I32", [columns // 8, rows], packed_words(codes)),
             "qzeros": ("I32", [len(groups), rows // 8], stored_zeros),
             "scales": ("F16", [len(groups), rows], b"".join(struct.pack(f"<{rows}e", *each) for each in scales)),
             "g_idx": ("I32", [columns], struct.pack(f"<{columns}i", *group_of))}
    return parts, struct.pack(f"<{len(meant)}f", *meant)


class PackedTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tessera.folder() / "kept"
        cls.packed, cls.plain = cls.folder / "gptq", cls.folder / "plain"
        for folder in (cls.packed, cls.plain):
            shutil.copytree(tessera.CHECKPOINT, folder)
        config = json.loads((cls.packed / "config.json").read_text())
        config["quantization_config"] = {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": True,
                                         "sym": False}
        (cls.packed / "config.json").write_text(json.dumps(config))
        drawn = random.Random(3)
        orders = {part: drawn.sample(range(columns), columns)
                  for part, columns in (("qkv", 256), ("o", 256), ("down", 768))}
        matrices = {"self_attn.q_proj": "qkv", "self_attn.k_proj": "qkv", "self_attn.v_proj": "qkv",
                    "self_attn.o_proj": "o", "mlp.down_proj": "down"}
        ours, theirs = {}, {}
        for name, shape, content in gguf_bytes.safetensors(tessera.CHECKPOINT / "model.safetensors"):
            module = name.removeprefix(PREFIX).removesuffix(".weight")
            if not name.startswith(PREFIX) or module not in matrices:
                ours[name] = theirs[name] = ("BF16", shape, content)
                continue
            parts, meant = packed(gguf_bytes.bf16_values(content), *shape, orders[matrices[module]])
            ours |= {f"{PREFIX}{module}.{part}": tensor for part, tensor in parts.items()}
            theirs[name] = ("F32", shape, meant)
        (cls.packed / "model.safetensors").write_bytes(safetensors(ours))
        (cls.plain / "model.safetensors").write_bytes(safetensors(theirs))
        (cls.folder / "text.txt").write_text(TEXT)

    def quantized(self, source, *flags):
        target = self.folder / f"{source.name}.tess"
        done = tessera.run("quantize", source, "-o", target, *flags)
        self.assertEqual(done.returncode, 0, done.stderr)
        return target, done.stdout

    def test_codes_in_activation_order_are_kept(self):
        kept, table = self.quantized(self.packed)
        for kind in ("q", "k", "v", "o", "down"):
            self.assertRegex(table, rf"(?m)^{kind} +int4-g32 +GPTQ-4 +kept +1 .* exact$")
        shown = tessera.run("inspect", kept, "--tensors", "--verify").stdout
        for name in ("qkv_order", "o_order", "down_order"):
            self.assertRegex(shown, rf"(?m)^layers\.0\.{name} +u32 ")
        self.assertIn("every hash and scale is right", shown)
        plain, _ = self.quantized(self.plain, "--scheme", "f32")
        done = tessera.run("perplexity", kept, "--kl", plain, "--text", self.folder / "text.txt", "--kv", "16",
                           "--output", "json")
        self.assertEqual(done.returncode, 0, done.stderr)
        # Inputs of the kept matrices are rounded to bfloat16, weights not at all.
        self.assertLess(json.loads(done.stdout)["results"][0]["mean_kl"], 1e-3, done.stdout)


if __name__ == "__main__":
    unittest.main()
