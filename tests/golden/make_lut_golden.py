"""Tables, codes, scales and reconstructions of table schemes from a numpy implementation of docs/quantization.md.

Writes lut.json beside this script. Quantiles of the normal distribution come from Python's own statistics module. The
matrix travels as bf16 so that every reader starts from the same floats.
Usage: python3 make_lut_golden.py
"""

import base64
import json
import os
from statistics import NormalDist

import numpy as np

F = np.float32
ROWS, COLUMNS = 19, 150  # multiples of neither 16 nor a group
SCHEMES = [(bits, group, a8, False) for bits, group in ((2, 32), (3, 64), (4, 128)) for a8 in (False, True)]
SCHEMES += [(4, 64, False, True), (4, 32, True, True)]


def as_bf16(values):
    bits = np.asarray(values).astype(F).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bf16(halves):
    return (halves.astype(np.uint32) << 16).view(F)


def normal_float(bits, a8):
    delta = (1 / 32 + 1 / 30) / 2
    half = 2 ** (bits - 1)
    quantile = NormalDist().inv_cdf
    negative = [-quantile(p) for p in np.linspace(1 - delta, 0.5, half)]
    positive = [quantile(p) for p in np.linspace(0.5, 1 - delta, half + 1)[1:]]
    values = np.array(negative + positive) / max(positive) + 0.0  # without a negative zero
    assert values[half - 1] == 0
    return (np.rint(values * 127) / 127).astype(F) if a8 else from_bf16(as_bf16(values))


def nearest(scaled, table):
    """The nearest entry; halfway, in f32, the even code."""
    codes = np.zeros(scaled.shape, np.int64)
    for i in range(table.size - 1):
        middle = F((table[i] + table[i + 1]) * F(0.5))
        codes += (scaled > middle) | ((scaled == middle) & (i % 2 == 1))
    return codes


def table_group(part, table):
    scale = np.float16(np.abs(part).max())  # the largest entry is 1
    if scale == 0:
        return scale, np.full(part.size, nearest(np.zeros(1, F), table)[0])
    return scale, nearest((part / F(scale)).astype(F), table)


def zero_point_group(part):
    low, high = min(part.min(), F(0)), max(part.max(), F(0))
    scale = np.float16(F((np.float64(high) - np.float64(low)) / 15))
    if scale == 0:
        return scale, np.float16(0), np.zeros(part.size, np.int64)
    zero = np.float16(F(np.clip((0.0 - np.float64(low)) / np.float64(scale), 0, 15)))
    return scale, zero, np.clip(np.rint((part / F(scale)).astype(F) + F(zero)), 0, 15).astype(np.int64)


def encoded(values, kind):
    return base64.b64encode(np.asarray(values).astype(kind).tobytes()).decode()


def main():
    random = np.random.default_rng(41)
    matrix = random.standard_t(3, (ROWS, COLUMNS)) * np.exp(random.normal(size=(ROWS, 1)))
    matrix[3] = 0
    matrix[5] = 0.25
    matrix[6] = -3
    matrix[7] *= 100
    matrix[8] *= 1e-5  # scales that f16 holds without full precision
    matrix[9] = 1e-9
    matrix[10] = np.abs(matrix[10]) + 1
    matrix[11, :-1] = 0
    matrix[12, :32] = np.linspace(-1, 1, 32)
    halves = as_bf16(matrix)
    matrix = from_bf16(halves)

    golden = {"made_by": "make_lut_golden.py", "rows": ROWS, "columns": COLUMNS,
              "values_bf16": encoded(halves, "<u2"), "schemes": {}}
    for bits, group, a8, zero_points in SCHEMES:
        name = f"{'int' if zero_points else 'lut'}{bits}-g{group}{'-a8' if a8 else ''}"
        table = None if zero_points else normal_float(bits, a8)
        scales, zeros, codes, meanings = [], [], [], []
        for row in matrix:
            for start in range(0, COLUMNS, group):
                part = row[start:start + group]
                if zero_points:
                    scale, zero, chosen = zero_point_group(part)
                    zeros.append(zero)
                    meaning = np.float64(scale) * (chosen - np.float64(zero))
                else:
                    scale, chosen = table_group(part, table)
                    meaning = np.float64(scale) * table[chosen].astype(np.float64)
                scales.append(scale)
                codes.append(chosen)
                meanings.append(meaning)
        golden["schemes"][name] = {
            "scales": encoded(scales, "<f2"),
            "codes": encoded(np.concatenate(codes), "u1"),
            "meanings": encoded(np.concatenate(meanings), "<f4"),
        }
        if zero_points:
            golden["schemes"][name]["zeros"] = encoded(zeros, "<f2")
        else:
            golden["schemes"][name]["table"] = encoded(table, "<f4")
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "lut.json")
    with open(path, "w") as file:
        json.dump(golden, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
