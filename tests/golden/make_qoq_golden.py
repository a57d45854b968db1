"""Clip ratios, codes, scales and zero points of one layer of the embedded model, from a numpy implementation of the
recipe in docs/quantization.md: norm folding, rotation, clip search, error feedback and levels of all integer schemes.

Writes qoq.json beside this script: per matrix a hash of every row, the clip ratios and one row in full. Weights come
from models/tessera-tiny; inputs are small whole numbers from a counter-based generator, so that every sum of products
of them is exact and a test can make the same. Usage: python3 make_qoq_golden.py
"""

import base64
import json
import os
import struct

import numpy as np

F = np.float32
HERE = os.path.dirname(os.path.abspath(__file__))
CHECKPOINT = os.path.join(HERE, "..", "..", "models", "tessera-tiny", "model.safetensors")
LAYER = 2
HEAD_DIM = 64
GROUP = 128
TOKENS = 384
SAMPLE = 96  # rows the clip search sees
SHOWN_ROW = 5  # codes of this row are stored in full
TINY = np.finfo(F).tiny
SCHEMES = ("w4a8-g128", "w4a8", "w8a8")


# Inputs and weights


def mixed(index):
    """splitmix64 of a counter: 64 random bits for each index."""
    with np.errstate(over="ignore"):
        z = (np.asarray(index, np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def inputs(columns, stream):
    """[TOKENS, columns] whole numbers: 32 hidden factors, noise, and columns of three sizes."""
    base = np.uint64(stream << 40)

    def digits(part, count, choices):
        index = base + np.uint64(part << 32) + np.arange(count, dtype=np.uint64)
        return (mixed(index) % np.uint64(choices)).astype(np.int64)

    factors = digits(0, TOKENS * 32, 7).reshape(TOKENS, 32) - 3
    mixing = digits(1, 32 * columns, 3).reshape(32, columns) - 1
    noise = digits(2, TOKENS * columns, 5).reshape(TOKENS, columns) - 2
    size = digits(3, columns, 3) + 1
    x = (factors @ mixing + noise) * size
    x[:, 11] = 0  # an input that is never used
    assert np.abs(x.T @ x).max() < 2**24  # exact in float32, in whatever order it is summed
    return x


def read_bf16(name, tensors, data):
    entry = tensors[name]
    begin, end = entry["data_offsets"]
    assert entry["dtype"] == "BF16"
    halves = np.frombuffer(data[begin:end], "<u2").astype(np.uint32)
    return (halves << 16).view(F).reshape(entry["shape"])


def turned(rows, size):
    """Each run of `size` columns times D H: random signs, then the scaled Sylvester Hadamard matrix."""
    hadamard = np.ones((1, 1))
    while len(hadamard) < size:
        hadamard = np.kron(np.array([[1.0, 1.0], [1.0, -1.0]]), hadamard)
    top = mixed(np.arange(size)) >> np.uint64(63)
    q = np.where(top == 1, -1.0, 1.0)[:, None] * hadamard / np.sqrt(size)
    runs = rows.astype(np.float64).reshape(len(rows), -1, size)
    return (runs @ q).reshape(rows.shape).astype(F)


def rotated_layer():
    with open(CHECKPOINT, "rb") as file:
        blob = file.read()
    (length,) = struct.unpack("<Q", blob[:8])
    tensors = json.loads(blob[8:8 + length])
    data = blob[8 + length:]

    def load(name):
        return read_bf16(f"model.layers.{LAYER}.{name}.weight", tensors, data)

    hidden = len(load("input_layernorm"))

    def folded(name, norm):
        return turned(load(name).astype(np.float64) * load(norm).astype(np.float64), hidden)

    layer = {part: folded(f"self_attn.{part}_proj", "input_layernorm") for part in "qkv"}
    layer["v"] = turned(layer["v"].T, HEAD_DIM).T.copy()
    layer["o"] = turned(turned(load("self_attn.o_proj").T, hidden).T, HEAD_DIM)
    for part in ("gate", "up"):
        layer[part] = folded(f"mlp.{part}_proj", "post_attention_layernorm")
    layer["down"] = turned(load("mlp.down_proj").T, hidden).T.copy()
    return layer


# Levels: arrays over all rows; step, zero and highest are [rows, columns]


def fit(scheme, weights, clips):
    rows, columns = weights.shape
    clips = clips.astype(np.float64)
    largest = np.abs(weights).max(axis=1)
    assert largest.min() > 0
    ones = np.ones((rows, columns), F)
    if scheme == "w8a8":
        scale = np.maximum((largest.astype(np.float64) * clips / 127).astype(F), TINY)
        return scale, ones, 0 * ones, -127, 127 * ones
    if scheme == "w4a8":
        low = np.minimum(weights.min(axis=1), F(0)).astype(np.float64)
        high = np.maximum(weights.max(axis=1), F(0)).astype(np.float64)
        scale = np.maximum(((high - low) * clips / 15).astype(F), TINY)
        zero = np.clip(np.rint(-(low * clips).astype(F) / scale), 0, 15).astype(F)
        return scale, ones, zero[:, None] * ones, 0, 15 * ones
    top = (largest.astype(np.float64) * clips)
    scale = np.maximum((top / 119).astype(F), TINY)
    limit = top.astype(F) / scale
    first = weights / scale[:, None]
    step, zero = np.empty_like(ones), np.empty_like(ones)
    for begin in range(0, columns, GROUP):
        part = np.clip(first[:, begin:begin + GROUP], -limit[:, None], limit[:, None])
        low = np.minimum(part.min(axis=1), F(0))
        high = np.maximum(part.max(axis=1), F(0))
        s1 = np.maximum(F(1), np.rint((high - low) / F(15)))
        step[:, begin:begin + GROUP] = s1[:, None]
        zero[:, begin:begin + GROUP] = np.clip(np.rint(-low / s1), 0, 15)[:, None]
    return scale, step, zero, 0, np.minimum(F(15), zero + np.floor(F(127) / step))


def code(values, levels, column=slice(None)):
    scale, step, zero, lowest, highest = levels
    per_row = scale if values.ndim == 1 else scale[:, None]
    scaled = values / per_row / step[:, column] + zero[:, column]
    return np.rint(np.clip(scaled, F(lowest), highest[:, column]))


def meaning(codes, levels, column=slice(None)):
    scale, step, zero, _, _ = levels
    per_row = scale if codes.ndim == 1 else scale[:, None]
    result = per_row * ((codes - zero[:, column]) * step[:, column])
    assert result.dtype == F
    return result


# Clip search and error feedback


def search_clips(scheme, weights, sample):
    """Index g of the ratio 1 - g/100 with the smallest output error, for each row."""
    errors = []
    for g in range(81):
        clips = np.full(len(weights), 1 - 0.8 * g / 80).astype(F)
        levels = fit(scheme, weights, clips)
        difference = weights.astype(np.float64) - meaning(code(weights, levels), levels)
        errors.append(((difference @ sample.T) ** 2).sum(axis=1))
    return np.argmin(errors, axis=0)


def factor(moments):
    """Order of the columns, and shares[i][j]: how much of column i's error a later column j takes."""
    diagonal = np.diag(moments)
    order = np.argsort(-diagonal, kind="stable")
    damped = moments[np.ix_(order, order)] + np.diag(np.full(len(moments), 0.01 * diagonal.sum() / len(moments)))
    damped = damped.astype(F).astype(np.float64)
    # M = R R^T with R upper triangular: the Cholesky factor of M read backwards.
    upper = np.linalg.cholesky(damped[::-1, ::-1])[::-1, ::-1]
    shares = upper / np.diag(upper)[None, :]
    return order, np.triu(shares, 1).astype(F)


def feedback(weights, levels, order, shares):
    codes = np.empty_like(weights)
    adjusted = weights[:, order].copy()
    for i, column in enumerate(order):
        codes[:, column] = code(adjusted[:, i], levels, column)
        error = weights[:, column] - meaning(codes[:, column], levels, column)
        adjusted[:, i + 1:] += error[:, None] * shares[i, i + 1:]
    assert adjusted.dtype == F
    return codes


# What is written


def row_hashes(rows_of_bytes):
    """32-bit FNV-1a of each row of bytes."""
    hashes = np.full(len(rows_of_bytes), 0x811C9DC5, np.uint64)
    for column in rows_of_bytes.T:
        hashes = ((hashes ^ column) * np.uint64(0x01000193)) & np.uint64(0xFFFFFFFF)
    return hashes.astype("<u4")


def encoded(values):
    return base64.b64encode(values.tobytes()).decode()


def stored_rows(scheme, codes, levels):
    """Bytes of each row in the order scale, then s1 and a of each group or the zero point, then codes."""
    scale, step, zero, _, _ = levels
    parts = [scale.astype("<f4").view(np.uint8).reshape(-1, 4)]
    if scheme == "w4a8-g128":
        parts += [step[:, ::GROUP], 128 - zero[:, ::GROUP] * step[:, ::GROUP]]
    elif scheme == "w4a8":
        parts += [zero[:, :1]]
    parts += [codes + (128 if scheme == "w8a8" else 0)]
    joined = np.concatenate(parts, axis=1)
    assert joined.min() >= 0 and joined.max() <= 255
    return joined.astype(np.uint8)


def described(rows):
    return {"hashes": encoded(row_hashes(rows)), "shown": encoded(rows[SHOWN_ROW])}


def main():
    layer = rotated_layer()
    streams = {"q": 1, "k": 1, "v": 1, "o": 2, "gate": 3, "up": 3, "down": 4}
    golden = {"made_by": "make_qoq_golden.py", "layer": LAYER, "tokens": TOKENS, "sample": SAMPLE, "parts": {}}
    for part, weights in layer.items():
        x = inputs(weights.shape[1], streams[part]).astype(np.float64)
        order, shares = factor(x.T @ x)
        kept = [(2 * i + 1) * TOKENS // (2 * SAMPLE) for i in range(SAMPLE)]
        entry = {"stream": streams[part], "rows": weights.shape[0], "columns": weights.shape[1],
                 "weights": encoded(row_hashes(weights.view(np.uint8))), "schemes": {}}
        power = ((weights.astype(np.float64) @ x.T) ** 2).sum()
        for scheme in SCHEMES:
            index = search_clips(scheme, weights, x[kept])
            levels = fit(scheme, weights, (1.0 - 0.8 * index / 80).astype(F))
            plain = code(weights, levels)
            fed = feedback(weights, levels, order, shares)
            entry["schemes"][scheme] = {"clips": encoded(index.astype(np.uint8)),
                                        "clipped": described(stored_rows(scheme, plain, levels)),
                                        "feedback": described(stored_rows(scheme, fed, levels))}
            unclipped = fit(scheme, weights, np.ones(len(weights), F))
            errors = [np.sqrt((((weights - meaning(c, l)) @ x.T) ** 2).sum() / power)
                      for c, l in ((code(weights, unclipped), unclipped), (plain, levels), (fed, levels))]
            print(part, scheme, "output error: plain, clipped, with feedback", *(f"{e:.4f}" for e in errors))
        golden["parts"][part] = entry
    with open(os.path.join(HERE, "qoq.json"), "w") as file:
        json.dump(golden, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
