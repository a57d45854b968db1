#!/usr/bin/env python3
"""Writes the seeds of the .tess, safetensors, GGUF and PyTorch fuzz targets into tests/fuzz/corpus. Run it after a change of format."""

import json
import pathlib
import struct
import sys
import zipfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "cli"))
import gguf_bytes
import pytorch_bytes

CORPUS = pathlib.Path(__file__).resolve().parent / "corpus"
PAGE = 4096


def round_up(n, multiple):
    return (n + multiple - 1) // multiple * multiple


def stored_bytes(scheme, shape):
    if len(shape) == 1:
        return shape[0] * {"f32": 4, "u32": 4, "u8": 1}[scheme]
    pad, unit, tail = {"f32": (1, 64, 0), "f16": (1, 32, 0), "bf16": (2, 64, 0), "w8a8": (64, 1024, 4),
                       "w4a8": (64, 512, 5), "w4a8-g128": (128, 1056, 4)}[scheme]
    panels = round_up(shape[0], 16) // 16
    return panels * (round_up(shape[1], pad) // pad * unit + 16 * tail)


def tess_header(tensors, scaling, prefix):
    offset = round_up(64 + prefix, PAGE)
    table = []
    for name, scheme, shape in tensors:
        size = stored_bytes(scheme, shape)
        table.append({"name": name, "scheme": scheme, "shape": shape, "offset": offset, "bytes": size,
                      "xxh64": "0" * 16})
        offset = round_up(offset + size, PAGE)
    header = {
        "model": {"name": "seed", "family": "llama", "vocabulary": 20, "hidden": 16, "layers": 1, "query_heads": 2,
                  "kv_heads": 1, "head_dim": 8, "ffn": 12, "context": 64, "norm_epsilon": 1e-5, "rope_theta": 1e4,
                  "rope_scaling": scaling, "tied_head": True, "qkv_bias": True, "output_bias": False},
        "quantization": {"scheme": "w4a8", "head_scheme": "w8a8", "group_columns": 0, "kv_bits": 8,
                         "calibration_hash": "", "tool_version": "0", "command": "c"},
        "tokenizer": {"kind": "byte-bpe", "settings": {"bos": 1}},
        "chat": {"template": "{{ x }}", "stop_tokens": [1, 2]},
        "generation": {"temperature": 0.5, "top_k": 3, "do_sample": True},
        "tensors": table}
    return json.dumps(header, separators=(",", ":")), offset


def tess_file(header, size):
    text = header.encode()
    # Bytes 32 to 39 stay zero: the target fills in the hash of repaired inputs, so that it need not be known here.
    start = b"TESSERA\0" + struct.pack("<IIQQQ", 1, 0, len(text), size, 0) + bytes(24)
    return (start + text).ljust(size, b"\0")


def write(target, name, content):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


def make_tess():
    none = {"kind": "none"}
    llama3 = {"kind": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_context": 32}
    cases = {
        "empty": ([], none),
        "vectors": ([("output_norm", "f32", [16]), ("tokenizer.offsets", "u32", [21]),
                     ("tokenizer.pieces", "u8", [50])], {"kind": "linear", "factor": 2.0}),
        "integers": ([("token_embedding", "w8a8", [20, 16]), ("layers.0.q", "w4a8", [16, 16]),
                      ("layers.0.k", "w4a8-g128", [8, 16])], llama3),
        "floats": ([("layers.0.v", "f16", [8, 16]), ("layers.0.o", "bf16", [16, 16]),
                    ("layers.0.q_bias", "f32", [16])], none)}
    for name, (tensors, scaling) in cases.items():
        header, size = tess_header(tensors, scaling, 0)
        header, size = tess_header(tensors, scaling, len(header))
        write("tess", name, b"\1" + tess_file(header, size))
        # The same header for the mode that puts a file of eight pages of tensors around it.
        padding = PAGE * 9 - size
        if padding > 0:
            last = tensors + [("rest", "u8", [padding])]
            header, _ = tess_header(last, scaling, len(header))
            write("tess", name + ".json", header.encode())


def safetensors(header, data):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def make_safetensors():
    header = {"__metadata__": {"format": "pt"},
              "a.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
              "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]}}
    write("safetensors", "two", safetensors(header, bytes(range(32))))
    write("safetensors", "none", safetensors({}, b""))
    types = {"F32": 4, "F16": 2, "BF16": 2, "I32": 4, "U8": 1}
    end, every = 0, {}
    for name, size in types.items():
        every[name] = {"dtype": name, "shape": [3, 1], "data_offsets": [end, end + 3 * size]}
        end += 3 * size
    write("safetensors", "types", safetensors(every, bytes(end)))
    every["rest"] = {"dtype": "U8", "shape": [256 - end], "data_offsets": [end, 256]}
    every["empty"] = {"dtype": "F16", "shape": [0, 5], "data_offsets": [256, 256]}
    write("safetensors", "types.json", json.dumps(every).encode())


def make_gguf():
    def text(value):
        return struct.pack("<I", gguf_bytes.STRING) + gguf_bytes.text(value)

    def texts(values):
        return gguf_bytes.array(gguf_bytes.STRING, [gguf_bytes.text(value) for value in values])

    def integers(values):
        return gguf_bytes.array(gguf_bytes.I32, [struct.pack("<i", value) for value in values])

    f32, q8, q4_k = ("w", [3, 2], 0, bytes(24)), ("q", [32], 8, bytes(34)), ("k", [256, 2], 12, bytes(288))
    scalars = {f"a.{kind}": struct.pack("<I", kind) + bytes(size)
               for kind, size in enumerate((1, 1, 2, 2, 4, 4, 4, 1, 8, None, 8, 8, 8)) if size is not None}
    write("gguf", "scalars", gguf_bytes.gguf_file(scalars, [f32, q8, q4_k]))
    write("gguf", "empty", gguf_bytes.gguf_file({}, [], version=2))
    bytes_and_pieces = ["t", "h", "e", "th", "the", "<s>", "<tool>"]
    write("gguf", "gpt2", gguf_bytes.gguf_file(
        {"tokenizer.ggml.model": text("gpt2"), "tokenizer.ggml.pre": text("smollm"),
         "tokenizer.ggml.tokens": texts(bytes_and_pieces), "tokenizer.ggml.merges": texts(["t h", "th e"]),
         "tokenizer.ggml.token_type": integers([1, 1, 1, 1, 1, 3, 4]),
         "tokenizer.ggml.bos_token_id": gguf_bytes.number(5)}, [f32]))
    pieces = ["<unk>", "<s>", "\u2581", "t", "h", "\u2581t", "\u2581th"]
    write("gguf", "llama", gguf_bytes.gguf_file(
        {"tokenizer.ggml.model": text("llama"), "tokenizer.ggml.tokens": texts(pieces),
         "tokenizer.ggml.scores": gguf_bytes.array(gguf_bytes.F32, [struct.pack("<f", -i) for i in range(len(pieces))]),
         "tokenizer.ggml.token_type": integers([2, 3, 1, 1, 1, 1, 1]),
         "tokenizer.ggml.bos_token_id": gguf_bytes.number(1)}, [q8]))


def make_pytorch():
    golden = pathlib.Path(__file__).resolve().parent.parent / "golden/pytorch"
    for name in ("tensors", "protocol4", "nested"):
        with zipfile.ZipFile(golden / f"{name}.bin") as archive:
            write("pytorch", name, b"\1" + archive.read(f"{name}/data.pkl"))
    for name in ("tensors", "nested", "module"):
        write("pytorch", name + ".bin", b"\0" + (golden / f"{name}.bin").read_bytes())
    whole = pytorch_bytes.tensor("FloatStorage", "0", 16, [4, 4], [1, 4])
    write("pytorch", "fitting", b"\1\x80\2}(" + pytorch_bytes.text("a") + whole + b"u.")


if __name__ == "__main__":
    make_tess()
    make_pytorch()
    make_safetensors()
    make_gguf()
