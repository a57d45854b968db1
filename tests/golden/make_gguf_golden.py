"""Random blocks of every GGUF number format that Tessera reads, and their values as gguf-py's `quants.dequantize` gives
them. Writes gguf_blocks.json beside this script.

Usage: python3 -m venv V && V/bin/pip install gguf numpy && V/bin/python make_gguf_golden.py
"""

import base64
import json
import os

import gguf
import numpy as np

VALUES = 512  # of each format: blocks of several formats, two of the largest
# Where the f16 numbers of a block lie: their exponent is kept below that of infinities and NaNs.
HALVES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108],
          "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0], "TQ1_0": [52], "TQ2_0": [64],
          "MXFP4": [], "F32": [], "F16": [0], "BF16": []}


def text(array):
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def main():
    random = np.random.default_rng(20261130)
    formats = {}
    for name, halves in HALVES.items():
        kind = gguf.GGMLQuantizationType[name]
        values, size = gguf.GGML_QUANT_SIZES[kind]
        blocks = random.integers(0, 256, (VALUES // values, size), dtype=np.uint8)
        for at in halves:
            blocks[:, at + 1] = np.where(blocks[:, at + 1] & 0x7C == 0x7C, blocks[:, at + 1] & 0xBF, blocks[:, at + 1])
            blocks[0, at + 1] &= 0x83  # a subnormal number
        if name in ("F32", "BF16"):
            blocks[:, -1] &= 0xBF
        if name == "MXFP4":
            blocks[:4, 0] = [0, 1, 2, 254]
        found = gguf.quants.dequantize(blocks.reshape(1, -1), kind).reshape(-1)
        assert found.dtype == np.float32 and found.size == VALUES and not np.isnan(found).any(), name
        formats[name] = {"type": int(kind), "values": values, "bytes": size, "blocks": text(blocks),
                         "f32": text(found)}
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "gguf_blocks.json")
    with open(path, "w") as file:
        json.dump({"made_by": "make_gguf_golden.py", "formats": formats}, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
