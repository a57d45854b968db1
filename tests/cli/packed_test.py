"""quantize with packed checkpoints of every kind: what comes out is what comes out of their floats."""

import array
import concurrent.futures
import json
import os
import pathlib
import random
import shutil
import struct
import tempfile
import unittest

import tessera
from tess_bytes import TessBytes

GOLDEN = tessera.ROOT / "tests/golden"
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32, "intermediate_size": 128,
          "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 272,
          "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "tie_word_embeddings": False}
LAYER = "model.layers.0."
SHAPES = {"model.embed_tokens.weight": (272, 32), "lm_head.weight": (272, 32), "model.norm.weight": (32,),
          LAYER + "input_layernorm.weight": (32,), LAYER + "post_attention_layernorm.weight": (32,),
          LAYER + "self_attn.q_proj.weight": (32, 32), LAYER + "self_attn.k_proj.weight": (32, 32),
          LAYER + "self_attn.v_proj.weight": (32, 32), LAYER + "self_attn.o_proj.weight": (32, 32),
          LAYER + "mlp.gate_proj.weight": (128, 32), LAYER + "mlp.up_proj.weight": (128, 32),
          LAYER + "mlp.down_proj.weight": (32, 128)}


def read_tensors(path):
    """Name -> (type, shape, bytes) of a safetensors file."""
    content = path.read_bytes()
    length = struct.unpack_from("<Q", content)[0]
    header = json.loads(content[8:8 + length])
    header.pop("__metadata__", None)
    data = content[8 + length:]
    return {name: (entry["dtype"], entry["shape"], data[slice(*entry["data_offsets"])])
            for name, entry in header.items()}


def write_tensors(path, tensors):
    header, data = {}, b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def floats(name, shape):
    """Bytes of f32 values that depend on the name only."""
    count = shape[0] * (shape[1] if len(shape) > 1 else 1)
    centre = 1.0 if len(shape) == 1 else 0.0
    return array.array("f", [centre + (byte - 127) / 2000 for byte in random.Random(name).randbytes(count)]).tobytes()


def write_folder(folder, tensors, config, files=()):
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(GOLDEN / "models/llama-yarn-f32" / name, folder)
    (folder / "config.json").write_text(json.dumps(config))
    for name, content in files:
        (folder / name).write_text(json.dumps(content))
    names = {name.replace(LAYER, f"model.layers.{number}."): shape for name, shape in SHAPES.items()
             for number in range(config["num_hidden_layers"])}
    whole = {name: ("F32", list(shape), floats(name, shape)) for name, shape in names.items()}
    write_tensors(folder / "model.safetensors", {**whole, **tensors})
    return folder


def packed_folder(home, name, extra=None):
    """A whole model with some layers packed as a golden case has them, in a folder of home that is called after it."""
    case = json.loads((GOLDEN / "packed/cases.json").read_text())["cases"][name]
    tensors = read_tensors(GOLDEN / f"packed/{name}.safetensors")
    in_config = case["file"] == "config.json"
    config = {**CONFIG, "quantization_config": case["settings"]} if in_config else CONFIG
    files = [] if in_config else [(case["file"], case["settings"])]
    folder = write_folder(home / name, {}, config, files)
    whole = read_tensors(folder / "model.safetensors")
    for matrix in case["matrices"]:
        del whole[matrix]
    write_tensors(folder / "model.safetensors", {**whole, **tensors, **(extra or {})})
    return folder


class PackedTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tessera.folder() / "packed"
        cls.folder.mkdir()
        cls.cases = json.loads((GOLDEN / "packed/cases.json").read_text())["cases"]
        cls.expected = read_tensors(GOLDEN / "packed/expected.safetensors")

    def packed_folder(self, name, extra=None):
        return packed_folder(pathlib.Path(tempfile.mkdtemp(dir=self.folder)), name, extra)

    def quantized(self, source, *flags):
        target = pathlib.Path(f"{source}.tess")
        done = tessera.run("quantize", source, "-o", target, *flags)
        self.assertEqual(done.returncode, 0, done.stderr)
        return target, done

    def weights(self, path):
        return {entry["name"]: (entry["scheme"], entry["shape"], entry["xxh64"])
                for entry in TessBytes(path.read_bytes()).header["tensors"]}

    def test_every_kind_becomes_what_its_floats_become(self):
        # One model of floats with a layer for each kind, so that it is quantized once.
        floats_of, layers = {}, {}
        for number, (name, case) in enumerate(self.cases.items()):
            layers[name] = f"model.layers.{number}."
            for matrix in case["matrices"]:
                floats_of[matrix.replace(LAYER, layers[name])] = (
                    "F32", list(SHAPES[matrix]), self.expected[f"{name}:{matrix}"][2])
        plain = write_folder(self.folder / "plain", floats_of, {**CONFIG, "num_hidden_layers": len(layers)})
        theirs = self.weights(self.quantized(plain, "--scheme", "f32")[0])
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            made = list(pool.map(lambda name: self.quantized(self.packed_folder(name), "--scheme", "f32")[0], layers))
        for (name, layer), path in zip(layers.items(), made):
            with self.subTest(name):
                ours = self.weights(path)
                for matrix in self.cases[name]["matrices"]:
                    role = "k" if "k_proj" in matrix else "v" if "v_proj" in matrix else "down"
                    self.assertEqual(ours[f"layers.0.{role}"], theirs[f"layers.{layer.split('.')[2]}.{role}"])

    def test_every_kind_is_quantized_without_a_scheme_named(self):
        def check(name):
            path, done = self.quantized(self.packed_folder(name))
            return name, done.stdout, tessera.run("inspect", path, "--verify").stdout

        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for name, report, shown in pool.map(check, self.cases):
                with self.subTest(name):
                    self.assertIn("every hash and scale is right", shown)
                    self.assertRegex(report, "(?m)^down ")

    def test_a_packed_model_answers(self):
        ours, done = self.quantized(self.packed_folder("ct-int8"), "--scheme", "int4-g32")
        self.assertIn("2 scales and zero points of activations, keys and values are not used", done.stderr)
        self.assertIn("every hash and scale is right", tessera.run("inspect", ours, "--verify").stdout)
        answer = tessera.run("-m", ours, "-p", "hello", "--raw", "--max-tokens", "4", "--no-stats")
        self.assertEqual(answer.returncode, 0, answer.stderr)

    def test_biases_of_zero_are_left_out(self):
        bias = LAYER + "self_attn.k_proj.bias"
        _, done = self.quantized(self.packed_folder("gptq-4", {bias: ("F16", [32], bytes(64))}))
        self.assertIn("1 biases that the model does not have are 0 and left out", done.stderr)
        self.refused(self.packed_folder("gptq-4", {bias: ("F16", [32], b"\0\x3c" + bytes(62))}), f'"{bias}"')

    def refused(self, folder, *parts):
        target = self.folder / "never.tess"
        done = tessera.run("quantize", folder, "-o", target)
        self.assertEqual((done.returncode, done.stdout), (1, ""), done.stderr)
        self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
        for part in parts:
            self.assertIn(part, done.stderr)
        self.assertFalse(target.exists())

    def test_what_is_broken_is_refused(self):
        folder = self.packed_folder("gptq-4")
        config = json.loads((folder / "config.json").read_text())
        for field, value, part in (("bits", 6, "quantization_config.bits: expected one of 2, 3, 4, 8, found 6"),
                                   ("checkpoint_format", "marlin", 'found "marlin"'),
                                   ("quant_method", "aqlm", 'found "aqlm"')):
            changed = {**config, "quantization_config": {**config["quantization_config"], field: value}}
            (folder / "config.json").write_text(json.dumps(changed))
            self.refused(folder, "config.json", part)
        del config["quantization_config"]
        (folder / "config.json").write_text(json.dumps(config))
        self.refused(folder, "k_proj.qweight", "expected quantization_config in config.json")

        matrix = LAYER + "self_attn.k_proj"
        self.refused(self.packed_folder("gptq-4", {matrix + ".weight": ("F32", [32, 32], bytes(4096))}),
                     f'"{matrix}.weight": expected either this or "{matrix}.qweight", found both')
        self.refused(self.packed_folder("gptq-4", {matrix + ".lora": ("F32", [1], bytes(4))}), f'"{matrix}.lora"')
        # A byte of the wrong sign makes a number that is none.
        matrix = LAYER + "mlp.down_proj"
        tensors = read_tensors(GOLDEN / "packed/fp8-block.safetensors")
        kind, shape, content = tensors[matrix + ".weight"]
        self.refused(self.packed_folder("fp8-block", {matrix + ".weight": (kind, shape, b"\x7f" + content[1:])}),
                     f'"{matrix}.weight": expected finite values, found nan at [0, 0]')


if __name__ == "__main__":
    unittest.main()
