"""A snapshot's files, as every rank reads them: rank 0 from disk, tensor by tensor, the others from rank 0.

Only the leader's node has the files, and no rank ever holds more than one tensor that is not its own.
"""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import safe_open

from job.training.packed import NAMES

DTYPES = {name: dtype for dtype, name in NAMES.items()}


class Stored:
    """The tensors in the safetensors file at `path`. `shared`: all ranks ask for the same ones in the same order, and
    only rank 0 has the file; else this process alone reads."""

    def __init__(self, path: Path, device: torch.device | None = None, shared: bool = False) -> None:
        self._device = device or torch.device("cpu")
        self._shared = shared
        self._reads = not shared or dist.get_rank() == 0
        self._file: Any = safe_open(path, framework="pt") if self._reads else None
        found: list[Any] = [self._described() if self._reads else None]
        if self._shared:
            dist.broadcast_object_list(found, 0)
        self.shapes: dict[str, tuple[torch.dtype, list[int]]] = found[0]

    def _described(self) -> dict[str, tuple[torch.dtype, list[int]]]:
        found = {}
        for name in self._file.keys():  # noqa: SIM118 - it is no dict
            part = self._file.get_slice(name)
            found[name] = DTYPES[part.get_dtype()], list(part.get_shape())
        return found

    def tensor(self, name: str) -> torch.Tensor:
        """On the device, a new one on every call."""
        if not self._shared:
            return self._read(name)
        dtype, shape = self.shapes[name]
        tensor = self._read(name) if self._reads else torch.empty(shape, dtype=dtype, device=self._device)
        dist.broadcast(tensor, 0)
        return tensor

    def _read(self, name: str) -> torch.Tensor:
        tensor: torch.Tensor = self._file.get_tensor(name)
        return tensor.to(self._device).contiguous()
