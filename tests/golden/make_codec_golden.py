"""Codes and scales of a heavy-tailed random matrix from a numpy implementation of docs/quantization.md.

Writes codec.json beside this script. The matrix travels as bf16 so that every reader starts from the same floats.
Usage: python3 make_codec_golden.py
"""

import base64
import json
import os

import numpy as np

F = np.float32
ROWS, COLUMNS = 37, 300  # neither a multiple of 16 nor of 64 or 128
GROUP = 128
TINY = np.finfo(F).tiny


def as_bf16(values):
    bits = values.astype(F).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bf16(halves):
    return (halves.astype(np.uint32) << 16).view(F)


def four_bits(values):
    return np.clip(np.rint(values), 0, 15).astype(np.int64)


def progressive(row):
    """s0, codes, s1 and a of one row (w4a8-g128)."""
    largest = np.abs(row).max()
    groups = -(-row.size // GROUP)
    codes = np.zeros(row.size, np.int64)
    if largest == 0:
        return F(0), codes, [1] * groups, [128] * groups
    s0 = max(F(np.float64(largest) / 119), TINY)
    first = (row / s0).astype(F)
    scales, offsets = [], []
    for start in range(0, row.size, GROUP):
        part = first[start:start + GROUP]
        low, high = min(part.min(), F(0)), max(part.max(), F(0))
        s1 = max(1, int(np.rint(F(high - low) / F(15))))
        z = int(four_bits(F(-low) / F(s1)))
        codes[start:start + GROUP] = four_bits((part / F(s1)).astype(F) + F(z))
        scales.append(s1)
        offsets.append(128 - z * s1)
    return s0, codes, scales, offsets


def per_channel_4bit(row):
    low, high = min(row.min(), F(0)), max(row.max(), F(0))
    if low == high:
        return F(0), 0, np.zeros(row.size, np.int64)
    scale = max(F((np.float64(high) - np.float64(low)) / 15), TINY)
    zero = int(four_bits(F(-low) / scale))
    return scale, zero, four_bits((row / scale).astype(F) + F(zero))


def per_channel_8bit(row):
    largest = np.abs(row).max()
    if largest == 0:
        return F(0), np.full(row.size, 128, np.int64)
    scale = max(F(np.float64(largest) / 127), TINY)
    return scale, np.rint(row / scale).astype(np.int64) + 128


def encoded(values, kind):
    return base64.b64encode(np.asarray(values).astype(kind).tobytes()).decode()


def main():
    random = np.random.default_rng(20240)
    matrix = random.standard_t(2, (ROWS, COLUMNS)) * np.exp(random.normal(size=(ROWS, 1)))
    matrix[3] = 0
    matrix[5] = 0.25
    matrix[6] = -3
    matrix[7] *= 1e30
    matrix[8] *= 1e-30
    matrix[9] = 1e-40 * random.integers(-5, 6, COLUMNS)
    matrix[10] = np.abs(matrix[10]) + 1
    matrix[11, :-1] = 0
    halves = as_bf16(matrix)
    matrix = from_bf16(halves)

    groups = [progressive(row) for row in matrix]
    fours = [per_channel_4bit(row) for row in matrix]
    eights = [per_channel_8bit(row) for row in matrix]
    golden = {
        "made_by": "make_codec_golden.py",
        "rows": ROWS,
        "columns": COLUMNS,
        "values_bf16": encoded(halves, "<u2"),
        "w4a8-g128": {
            "scales": encoded([g[0] for g in groups], "<f4"),
            "codes": encoded([g[1] for g in groups], "u1"),
            "group_scales": encoded([g[2] for g in groups], "u1"),
            "group_offsets": encoded([g[3] for g in groups], "u1"),
        },
        "w4a8": {
            "scales": encoded([f[0] for f in fours], "<f4"),
            "zeros": encoded([f[1] for f in fours], "u1"),
            "codes": encoded([f[2] for f in fours], "u1"),
        },
        "w8a8": {
            "scales": encoded([e[0] for e in eights], "<f4"),
            "codes": encoded([e[1] for e in eights], "u1"),
        },
    }
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "codec.json")
    with open(path, "w") as file:
        json.dump(golden, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
