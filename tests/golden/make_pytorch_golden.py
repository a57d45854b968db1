#!/usr/bin/env python3
"""Writes tests/golden/pytorch: tensors as torch.save stores them, with the same tensors in safetensors files.

Needs torch and safetensors. `nested.bin` holds something else than tensors, `old.bin` is in the format before 1.6.
"""

import collections
import pathlib

import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).resolve().parent / "pytorch"


def tensors():
    torch.manual_seed(5)
    base = torch.randn(7, 5)
    cube = torch.randn(3, 4, 5)
    shared = torch.randn(6, 4).to(torch.bfloat16)
    return collections.OrderedDict([
        ("plain", base), ("parameter", torch.nn.Parameter(torch.randn(4))), ("half", torch.randn(2, 3).half()),
        ("embedding", shared), ("head", shared), ("rows", base[2:5]), ("transposed", base.t()), ("columns", base[:, 1:4]),
        ("steps", base[::3, ::2]), ("permuted", cube.permute(2, 0, 1)), ("scalar", torch.tensor(2.5)),
        ("empty", torch.zeros(0, 3)), ("one", torch.randn(1, 1, 6).transpose(0, 1)), ("double", torch.randn(3).double()),
        ("long", torch.tensor([1, -2, 1 << 40])), ("int", torch.tensor([7, -8], dtype=torch.int32)),
        ("signed", torch.tensor([[-128, 127]], dtype=torch.int8)), ("bytes", torch.tensor([0, 255], dtype=torch.uint8))])


def main():
    HERE.mkdir(exist_ok=True)
    state = tensors()
    state._metadata = collections.OrderedDict([("", {"version": 1}), ("layer", {"version": 1, "other": [1, 2.5, None, True]})])
    torch.save(state, HERE / "tensors.bin")
    torch.save(dict(state), HERE / "protocol4.bin", pickle_protocol=4)
    save_file({name: tensor.detach().contiguous().clone() for name, tensor in state.items()}, HERE / "tensors.safetensors")
    torch.save({"model": {"a": torch.zeros(2)}, "epoch": 3}, HERE / "nested.bin")
    torch.save(torch.nn.Linear(2, 2), HERE / "module.bin")
    torch.save({"a": torch.zeros(2)}, HERE / "old.bin", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    main()
