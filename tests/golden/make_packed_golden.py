#!/usr/bin/env python3
"""Packed checkpoints of every kind that Tessera reads, and the matrices that they stand for.

Writes packed/cases.json (settings and what each matrix is), packed/NAME.safetensors (the packed tensors of a few
layers, as the format's own package or its published formula makes them) and packed/expected.safetensors (their values
in f32: "NAME:tensor").

Codes come from the formats' own packages where those have a packer that runs without a GPU: compressed-tensors 0.20,
bitsandbytes 0.50, hqq 0.2.8, AutoAWQ 0.2.9 and AutoGPTQ 0.7.1. Values are what the packages compute in f32, or for
AutoGPTQ and AutoAWQ, whose kernels need a GPU, scale * (code - zero point) of the codes that were given to them.
Written in numpy by the published formula, as no package writes them any more or without a GPU: GPTQ's newer zero
points, uneven groups, activation order and padded words of older compressed-tensors, fp8 with weight_scale_inv.

Usage: python3 -m venv V && V/bin/pip install numpy torch transformers safetensors compressed-tensors bitsandbytes hqq &&
V/bin/pip install --no-deps auto-gptq==0.7.1 autoawq==0.2.9 && V/bin/python make_packed_golden.py
"""

import importlib.util
import json
import pathlib
import sys
import types

import numpy as np
import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).resolve().parent
LAYER = "model.layers.0."
K, V, DOWN = LAYER + "self_attn.k_proj", LAYER + "self_attn.v_proj", LAYER + "mlp.down_proj"
SHAPES = {K: (32, 32), V: (32, 32), DOWN: (32, 128)}
random = np.random.default_rng(20261201)


def without_init(*packages):
    """Lets modules of packages be imported whose __init__ would import far more than they need."""
    for name in packages:
        module = types.ModuleType(name)
        module.__path__ = list(importlib.util.find_spec(name).submodule_search_locations)
        sys.modules[name] = module


without_init("awq", "awq.modules", "awq.modules.linear", "auto_gptq", "auto_gptq.nn_modules",
             "auto_gptq.nn_modules.qlinear")

import bitsandbytes.functional as bnb  # noqa: E402
from auto_gptq.nn_modules.qlinear.qlinear_cuda import QuantLinear  # noqa: E402
from awq.modules.linear.gemm import WQLinear_GEMM  # noqa: E402
from awq.modules.linear.gemv import WQLinear_GEMV  # noqa: E402
from compressed_tensors.compressors.naive_quantized.base import NaiveQuantizationCompressor  # noqa: E402
from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor  # noqa: E402
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme  # noqa: E402
from hqq.core.quantize import BaseQuantizeConfig, HQQLinear  # noqa: E402

cases, expected = {}, {}


def add(name, settings, tensors, matrices, file="config.json"):
    """matrices: name of a layer -> (type, whether it has codes, values in f32)."""
    tensors = {key: torch.as_tensor(value).contiguous() for key, value in tensors.items()}
    save_file(tensors, HERE / "packed" / f"{name}.safetensors")
    cases[name] = {"file": file, "settings": settings,
                   "matrices": {layer + ".weight": {"type": kind, "codes": codes}
                                for layer, (kind, codes, _) in matrices.items()}}
    for layer, (_, _, values) in matrices.items():
        values = torch.as_tensor(values)
        assert values.dtype == torch.float32 and tuple(values.shape) == SHAPES[layer], (name, layer)
        expected[f"{name}:{layer}.weight"] = values.contiguous().clone()


def weights(layer):
    return torch.from_numpy(random.normal(0, 0.05, SHAPES[layer]).astype(np.float32))


def half_scales(*shape):
    return (random.uniform(0.002, 0.03, shape).astype(np.float16)).astype(np.float32)


def stream(codes, bits):
    """Rows of codes as little-endian streams of bits in 32-bit words."""
    lines, count = codes.shape
    words = np.zeros((lines, (count * bits + 31) // 32 + 1), np.uint64)
    for i in range(count):
        word, shift = divmod(i * bits, 32)
        wide = codes[:, i].astype(np.uint64) << np.uint64(shift)
        words[:, word] |= wide & np.uint64(0xFFFFFFFF)
        words[:, word + 1] |= wide >> np.uint64(32)
    return words[:, :-1].astype(np.uint32).view(np.int32)


# GPTQ


def gptq(layer, bits, group, zeros="any", order=None, packer="AutoGPTQ", plain_zeros=False):
    """Tensors of one layer and its values. order: columns sorted by their groups."""
    rows, columns = SHAPES[layer]
    size = columns if group == -1 else group
    groups = (columns + size - 1) // size
    half = 1 << (bits - 1)
    codes = random.integers(0, 1 << bits, (rows, columns))
    zero = np.full((rows, groups), half) if zeros == "half" else random.integers(1, 1 << bits, (rows, groups))
    if packer == "numpy" and zeros != "half":
        zero[0, 0] = 0  # stored less 1 it is the greatest code
    scale = half_scales(rows, groups)
    index = np.zeros(columns, np.int64)
    index[np.arange(columns) if order is None else order] = np.arange(columns) // size
    values = scale[:, index] * (codes - zero[:, index]).astype(np.float32)
    if packer == "AutoGPTQ":
        linear = torch.nn.Linear(columns, rows, bias=False)
        linear.weight.data = torch.from_numpy(values)
        packed = QuantLinear(bits, group, columns, rows, False, weight_dtype=torch.float32)
        packed.pack(linear, torch.from_numpy(scale), torch.from_numpy(zero.astype(np.float32)),
                    torch.from_numpy(index.astype(np.int32)))
        tensors = {"qweight": packed.qweight, "qzeros": packed.qzeros, "scales": packed.scales.half(),
                   "g_idx": packed.g_idx}
        assert (packed.qweight.numpy() == stream(codes, bits).T).all()
    else:
        tensors = {"qweight": stream(codes, bits).T, "scales": scale.T.astype(np.float16),
                   "qzeros": stream((zero.T - 1) % (1 << bits), bits), "g_idx": index.astype(np.int32)}
    if plain_zeros:
        tensors["qzeros"] = stream(zero.T.copy(), bits)
    return {f"{layer}.{part}": torch.as_tensor(np.ascontiguousarray(value)) for part, value in tensors.items()}, values


def gptq_settings(bits, group, sym, **more):
    return {"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": False, "sym": sym,
            "damp_percent": 0.01, **more}


def gptq_cases():
    def one(name, layer, bits, group, sym, settings=None, **how):
        tensors, values = gptq(layer, bits, group, zeros="half" if sym else "any", **how)
        add(name, gptq_settings(bits, group, sym, **(settings or {})), tensors,
            {layer: (f"GPTQ-{bits}", True, values)})

    one("gptq-4", K, 4, 16, False)
    one("gptq-4-symmetric", K, 4, 16, True)
    one("gptq-4-symmetric-plain-zeros", K, 4, 16, True, plain_zeros=True)
    one("gptq-4-v2", K, 4, 16, False, {"checkpoint_format": "gptq_v2"}, packer="numpy", plain_zeros=True)
    one("gptq-4-zero-0", K, 4, 16, False, packer="numpy")
    one("gptq-4-act-order", DOWN, 4, 32, False, {"desc_act": True}, order=random.permutation(128))
    one("gptq-3-act-order", DOWN, 3, 48, True, {"desc_act": True}, order=random.permutation(128), packer="numpy")
    one("gptq-3", K, 3, 16, False)
    one("gptq-2", K, 2, 16, False)
    one("gptq-8-row", K, 8, -1, False)

    tensors, values = gptq(K, 4, 16, zeros="half")
    more, other = gptq(V, 8, -1, zeros="half")
    add("gptq-dynamic",
        gptq_settings(4, 16, True,
                      dynamic={"-:.*q_proj": {}, r"+:.*\.v_proj": {"bits": 8, "group_size": -1}, "lm_head": {"bits": 3}}),
        {**tensors, **more}, {K: ("GPTQ-4", True, values), V: ("GPTQ-8", True, other)})

    tensors, values = gptq(K, 4, 16)
    del tensors[K + ".g_idx"]
    settings = gptq_settings(4, 16, False)
    del settings["quant_method"]
    add("gptq-side-file", settings, tensors, {K: ("GPTQ-4", True, values)}, file="quantize_config.json")

    # Groups of 20 and 12 columns, which lie anywhere: values, but no codes that a group scheme could take.
    rows, columns = SHAPES[K]
    index = random.permutation(np.repeat([0, 1], [20, 12]))
    codes, zero = random.integers(0, 16, (rows, columns)), random.integers(1, 16, (rows, 2))
    scale = half_scales(rows, 2)
    tensors = {"qweight": stream(codes, 4).T, "scales": scale.T.astype(np.float16), "qzeros": stream(zero.T - 1, 4),
               "g_idx": index.astype(np.int32)}
    add("gptq-uneven-groups", gptq_settings(4, 16, False),
        {f"{K}.{part}": np.ascontiguousarray(value) for part, value in tensors.items()},
        {K: ("GPTQ-4", False, scale[:, index] * (codes - zero[:, index]).astype(np.float32))})


# AWQ


def awq(layer, kind, group):
    rows, columns = SHAPES[layer]
    size = columns if group == -1 else group
    codes = random.integers(0, 16, (rows, columns))
    zero = random.integers(0, 16, (rows, columns // size)).astype(np.float32)
    scale = half_scales(rows, columns // size)
    index = np.arange(columns) // size
    values = scale[:, index] * (codes - zero[:, index]).astype(np.float32)
    linear = torch.nn.Linear(columns, rows, bias=False)
    linear.weight.data = torch.from_numpy(values)
    flip = (lambda array: torch.from_numpy(array.T.copy())) if kind is WQLinear_GEMM else torch.from_numpy
    packed = kind.from_linear(linear, 4, size, scales=flip(scale), zeros=flip(zero))
    return {f"{layer}.{part}": getattr(packed, part) for part in ("qweight", "qzeros", "scales")}, values


def awq_cases():
    settings = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True}
    tensors, values = awq(DOWN, WQLinear_GEMM, 32)
    add("awq-gemm", {**settings, "version": "gemm", "modules_to_not_convert": ["self_attn", "lm_head"]}, tensors,
        {DOWN: ("AWQ-4", True, values)})
    tensors, values = awq(DOWN, WQLinear_GEMV, 32)
    add("awq-gemv", {**settings, "version": "gemv"}, tensors, {DOWN: ("AWQ-4", True, values)})
    tensors, values = awq(K, WQLinear_GEMM, -1)
    add("awq-side-file", {"zero_point": True, "q_group_size": -1, "w_bit": 4, "version": "GEMM"}, tensors,
        {K: ("AWQ-4", True, values)}, file="quant_config.json")


# bitsandbytes


def four_bit(layer, kind, nested, storage=torch.uint8):
    original = weights(layer)
    packed, state = bnb.quantize_4bit(original, blocksize=64, quant_type=kind, compress_statistics=nested,
                                      quant_storage=storage)
    tensors = {layer + ".weight": packed}
    tensors.update({f"{layer}.weight.{part}": value for part, value in state.as_dict(packed=True).items()})
    scale = state.absmax
    if nested:  # in f32, step by step
        scale = state.state2.code[scale.long()] * state.state2.absmax.repeat_interleave(256)[:scale.numel()]
        scale = scale + state.offset
    codes = packed.view(torch.uint8).reshape(-1)
    codes = torch.stack([codes >> 4, codes & 15], 1).reshape(-1).long()
    values = (state.code[codes] * scale.repeat_interleave(64)).reshape(SHAPES[layer])
    theirs = bnb.dequantize_4bit(packed, state)
    if SHAPES[layer][1] % 64 == 0:
        assert torch.equal(values, theirs)
    else:  # there the package's CPU kernel takes the wrong scales: only quantizing minds blocks that cross rows
        assert (values - original).abs().max() < 0.5 * (theirs - original).abs().max()
    return tensors, values


def bitsandbytes_cases():
    def settings(kind, nested):
        return {"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False, "bnb_4bit_quant_type": kind,
                "bnb_4bit_use_double_quant": nested, "bnb_4bit_compute_dtype": "bfloat16"}

    for name, layer, kind, nested, storage in (("bnb-nf4", DOWN, "nf4", False, torch.uint8),
                                               ("bnb-nf4-nested", K, "nf4", True, torch.uint8),
                                               ("bnb-nf4-bf16-storage", DOWN, "nf4", True, torch.bfloat16),
                                               ("bnb-fp4", K, "fp4", False, torch.uint8),
                                               ("bnb-fp4-nested", DOWN, "fp4", True, torch.uint8)):
        tensors, values = four_bit(layer, kind, nested, storage)
        add(name, settings(kind, nested), tensors, {layer: (kind.upper(), True, values)})
    codes, maxima, _ = torch.ops.bitsandbytes.int8_vectorwise_quant.default(weights(K).half())
    # bitsandbytes multiplies by SCB and then by 1/127; here it is one scale, which differs in the last bits.
    scale = maxima / torch.tensor(127, dtype=torch.float32)
    values = codes.float() * scale[:, None]
    theirs = torch.ops.bitsandbytes.int8_vectorwise_dequant.default(codes, maxima)
    assert torch.allclose(values, theirs, rtol=2**-22, atol=0)
    add("bnb-int8", {"quant_method": "bitsandbytes", "load_in_8bit": True, "llm_int8_threshold": 6.0},
        {K + ".weight": codes, K + ".SCB": maxima, K + ".weight_format": torch.tensor(0, dtype=torch.uint8)},
        {K: ("BNB-8", True, values)})


# compressed-tensors


def compressed(layer, compressor, scale_type=torch.bfloat16, **arguments):
    rows, columns = SHAPES[layer]
    args = QuantizationArgs(**arguments)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    strategy = args.strategy
    shape = {"tensor": (1,), "channel": (rows, 1), "group": (rows, columns // (args.group_size or columns)),
             "block": tuple(-(-size // block) for size, block in zip((rows, columns), args.block_structure or (1, 1)))}
    span = 0.3 if args.type == "int" else 0.3 * 7 / 448
    spread = span / (1 << (args.num_bits - 1)) if args.type == "int" else span / 7
    scale = torch.from_numpy(random.uniform(0.5, 1.5, shape[strategy]) * spread).to(scale_type)
    zero = torch.zeros(shape[strategy], dtype=torch.int8 if args.type == "int" else torch.float8_e4m3fn)
    if not args.symmetric:
        half = 1 << (args.num_bits - 1)
        zero = torch.from_numpy(random.integers(-half, half, shape[strategy]).astype(np.int8))
    state = compressor.compress({"weight": weights(layer), "weight_scale": scale, "weight_zero_point": zero}, scheme)
    wide = {key: value.float() if key == "weight_scale" else value for key, value in state.items()}
    values = compressor.decompress(wide, scheme)["weight"]
    return {f"{layer}.{part}": value for part, value in state.items()}, values, args.model_dump(mode="json")


def compressed_settings(style, *groups, ignore=("lm_head",), **more):
    """groups: (targets, weights, format or None)."""
    return {"quant_method": "compressed-tensors", "format": style, "quantization_status": "compressed",
            "ignore": list(ignore), "kv_cache_scheme": None,
            "config_groups": {f"group_{i}": {"targets": targets, "weights": arguments, "input_activations": None,
                                             **({"format": own} if own else {})}
                              for i, (targets, arguments, own) in enumerate(groups)}, **more}


def compressed_cases():
    pack, plain = PackedQuantizationCompressor, NaiveQuantizationCompressor

    def one(name, kind, style, compressor, layer=K, codes=True, extra=None, **arguments):
        tensors, values, dumped = compressed(layer, compressor, **arguments)
        add(name, compressed_settings(style, (["Linear"], dumped, None), ignore=["lm_head", "re:.*q_proj$"]),
            {**tensors, **(extra or {})}, {layer: (kind, codes, values)})

    one("ct-pack-4", "CT-INT4", "pack-quantized", pack, num_bits=4, strategy="group", group_size=16)
    one("ct-pack-4-asymmetric", "CT-INT4", "pack-quantized", pack, layer=DOWN, num_bits=4, strategy="group",
        group_size=32, symmetric=False)
    one("ct-pack-3-asymmetric", "CT-INT3", "pack-quantized", pack, num_bits=3, strategy="channel", symmetric=False)
    one("ct-pack-5", "CT-INT5", "pack-quantized", pack, layer=DOWN, num_bits=5, strategy="tensor",
        scale_type=torch.float32)
    one("ct-pack-8", "CT-INT8", "pack-quantized", pack, num_bits=8, strategy="group", group_size=8,
        scale_type=torch.float16)
    unused = {K + ".input_scale": torch.ones(1), LAYER + "self_attn.k_scale": torch.ones(1)}
    one("ct-int8", "CT-INT8", "int-quantized", plain, num_bits=8, strategy="channel", extra=unused)
    one("ct-int8-asymmetric", "CT-INT8", "naive-quantized", plain, num_bits=8, strategy="group", group_size=16,
        symmetric=False)
    one("ct-int8-block", "CT-INT8", "int-quantized", plain, layer=DOWN, codes=False, num_bits=8, strategy="block",
        block_structure=[24, 40])
    fp8 = dict(codes=False, num_bits=8, type="float")
    one("ct-fp8-tensor", "FP8", "float-quantized", plain, strategy="tensor", **fp8)
    one("ct-fp8-channel", "FP8", "float-quantized", plain, strategy="channel", **fp8)
    one("ct-fp8-block", "FP8", "float-quantized", plain, layer=DOWN, strategy="block", block_structure=[24, 40], **fp8)

    four, values, arguments = compressed(K, pack, num_bits=4, strategy="group", group_size=16)
    eight, others, more = compressed(V, plain, num_bits=8, type="float", strategy="channel")
    add("ct-mixed", compressed_settings("mixed-precision", ([r"re:.*\.k_proj"], arguments, "pack-quantized"),
                                        (["Linear"], more, "float-quantized")),
        {**four, **eight}, {K: ("CT-INT4", True, values), V: ("FP8", False, others)})

    # Words that hold ten codes of 3 bits each, as versions before dense packing wrote them.
    rows, columns = SHAPES[K]
    codes, scale = random.integers(0, 8, (rows, columns)), half_scales(rows, 2)
    words = np.zeros((rows, 4), np.uint32)
    for k in range(columns):
        words[:, k // 10] |= codes[:, k].astype(np.uint32) << np.uint32(k % 10 * 3)
    tensors = {"weight_packed": words.view(np.int32), "weight_scale": scale.astype(np.float16),
               "weight_shape": np.array([rows, columns])}
    group = {"num_bits": 3, "type": "int", "symmetric": True, "strategy": "group", "group_size": 16}
    add("ct-pack-3-padded", compressed_settings("pack-quantized", (["Linear"], group, None)),
        {f"{K}.{part}": value for part, value in tensors.items()},
        {K: ("CT-INT3", True, scale[:, np.arange(columns) // 16] * (codes - 4).astype(np.float32))})

    # Activation order by groups, which versions until 2026 wrote.
    rows, columns = SHAPES[DOWN]
    codes, scale = random.integers(0, 16, (rows, columns)), half_scales(rows, 4)
    index = np.zeros(columns, np.int64)
    index[random.permutation(columns)] = np.arange(columns) // 32
    tensors = {"weight_packed": stream(codes, 4), "weight_scale": scale.astype(np.float16),
               "weight_shape": np.array([rows, columns]), "weight_g_idx": index.astype(np.int32)}
    group = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32,
             "actorder": "group"}
    add("ct-pack-4-act-order", compressed_settings("pack-quantized", (["Linear"], group, None)),
        {f"{DOWN}.{part}": value for part, value in tensors.items()},
        {DOWN: ("CT-INT4", True, scale[:, index] * (codes - 8).astype(np.float32))})


# fp8


def fp8_cases():
    rows, columns = SHAPES[DOWN]
    bytes_ = torch.from_numpy(random.integers(0, 256, (rows, columns)).astype(np.uint8))
    bytes_ = torch.where(bytes_ & 127 == 127, bytes_ & 0x80, bytes_)  # no NaN
    numbers = bytes_.view(torch.float8_e4m3fn)
    scale = torch.from_numpy(random.uniform(1e-4, 4e-4, (2, 4)).astype(np.float32))
    wide = scale.repeat_interleave(24, 0)[:rows].repeat_interleave(40, 1)[:, :columns]
    add("fp8-block", {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3", "weight_block_size": [24, 40],
                      "modules_to_not_convert": ["lm_head", "model.layers.0.mlp.gate"]},
        {DOWN + ".weight": numbers, DOWN + ".weight_scale_inv": scale},
        {DOWN: ("FP8", False, numbers.float() * wide)})
    numbers = (weights(K) * 1000).to(torch.float8_e4m3fn)
    scale = torch.tensor(1e-3, dtype=torch.float32)
    add("fp8-tensor", {"quant_method": "fp8", "activation_scheme": "static"},
        {K + ".weight": numbers, K + ".weight_scale": scale, K + ".input_scale": torch.tensor(1.0)},
        {K: ("FP8", False, numbers.float() * scale)})


# HQQ


def hqq_cases():
    for name, layer, bits, group, axis, kind in (("hqq-4", DOWN, 4, 32, 1, torch.float16),
                                                 ("hqq-3", K, 3, 16, 1, torch.bfloat16),
                                                 ("hqq-2", K, 2, 16, 1, torch.float16),
                                                 ("hqq-1", K, 1, 16, 1, torch.float16),
                                                 ("hqq-8", K, 8, 32, 1, torch.float32),
                                                 ("hqq-5", K, 5, 16, 1, torch.float16),
                                                 ("hqq-4-axis-0", DOWN, 4, 64, 0, torch.float16),
                                                 ("hqq-3-axis-0", K, 3, 16, 0, torch.float16)):
        linear = torch.nn.Linear(*reversed(SHAPES[layer]), bias=False)
        linear.weight.data = weights(layer)
        settings = BaseQuantizeConfig(nbits=bits, group_size=group, axis=axis)
        packed = HQQLinear(linear, quant_config=settings, compute_dtype=kind, device="cpu")
        tensors = {f"{layer}.{part}": value for part, value in packed.state_dict().items()
                   if isinstance(value, torch.Tensor)}
        for part in ("scale", "zero"):
            packed.meta[part] = packed.meta[part].float()
        packed.meta["compute_dtype"] = torch.float32
        values = packed.dequantize()
        add(name, {"quant_method": "hqq", "quant_config": settings, "skip_modules": ["lm_head"]}, tensors,
            {layer: (f"HQQ-{bits}", axis == 1, values)})


def main():
    for make in (gptq_cases, awq_cases, bitsandbytes_cases, compressed_cases, fp8_cases, hqq_cases):
        torch.manual_seed(1)
        make()
    save_file(expected, HERE / "packed/expected.safetensors")
    with open(HERE / "packed/cases.json", "w") as file:
        json.dump({"made_by": "make_packed_golden.py", "cases": cases}, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
