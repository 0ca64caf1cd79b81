"""A safetensors file laid out in host memory before anything is copied into it, so that it is written in one go.

The file: eight bytes that say how long the header is, the header (JSON: dtype, shape and place of every tensor, padded
with spaces to whole eights), then the tensors' bytes without gaps (https://github.com/huggingface/safetensors#format).
Wide types come first, so that every tensor lies where its type may lie.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch

Tensors = dict[str, torch.Tensor]
Kinds = list[tuple[str, torch.dtype, torch.Size]]

ALIGNMENT = 8
NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2", torch.bool: "BOOL",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint64: "U64", torch.uint32: "U32", torch.uint16: "U16", torch.uint8: "U8",
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """Where everything lies in the file; `offsets` counts from the file's first byte."""

    header: bytes
    kinds: Kinds
    offsets: list[int]
    size_bytes: int


class Packed(Tensors):
    """Tensors by name that lie in one file's bytes in memory. `file`: uint8, shape [bytes of the file]."""

    def __init__(self, tensors: Tensors, file: torch.Tensor) -> None:
        super().__init__(tensors)
        self.file = file


def kinds(tensors: Mapping[str, torch.Tensor]) -> Kinds:
    return [(name, tensor.dtype, tensor.shape) for name, tensor in tensors.items()]


def layout(wanted: Kinds) -> Layout:
    ordered = sorted(wanted, key=lambda kind: (-kind[1].itemsize, kind[0]))
    header, offsets, end = {}, [], 0
    for name, dtype, shape in ordered:
        begin, end = end, end + prod(shape) * dtype.itemsize
        header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
        offsets.append(begin)
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    start = 8 + len(text)
    return Layout(len(text).to_bytes(8, "little") + text, ordered, [start + offset for offset in offsets], start + end)


def lay_out(memory: torch.Tensor, plan: Layout) -> Packed:
    """Write the header into the first bytes of `memory` (uint8, at least `size_bytes` long), and make the views."""
    file = memory[: plan.size_bytes]
    file[: len(plan.header)] = torch.frombuffer(bytearray(plan.header), dtype=torch.uint8)
    tensors = {}
    for (name, dtype, shape), offset in zip(plan.kinds, plan.offsets, strict=True):
        length = prod(shape) * dtype.itemsize
        tensors[name] = memory[offset : offset + length].view(dtype).view(shape)
    return Packed(tensors, file)


def pack(tensors: Tensors) -> Packed:
    """A copy in new memory."""
    plan = layout(kinds(tensors))
    packed = lay_out(torch.empty(plan.size_bytes, dtype=torch.uint8), plan)
    for name, tensor in tensors.items():
        packed[name].copy_(tensor)
    return packed
