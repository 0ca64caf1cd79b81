"""Host memory for one snapshot, kept from one to the next.

Fresh memory costs a page fault every 4 KiB, ten times as much as the copy into it; and a GPU copies beside its work
only into memory that is pinned.
"""

import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from job.training.packed import ALIGNMENT, Kinds, Packed, lay_out, layout

PORTABLE = 1  # cudaHostRegisterPortable: pinned for every device of the process


class HostBuffer:
    """The two files of a snapshot side by side; pinned for `gpu`. Not for two threads at once."""

    def __init__(self, gpu: torch.device | None = None) -> None:
        self._gpu = gpu
        self._memory = torch.empty(0, dtype=torch.uint8)
        self._kinds: tuple[Kinds, Kinds] | None = None
        self._files: tuple[Packed, Packed]

    @property
    def size_bytes(self) -> int:
        return self._memory.numel()

    def fit(self, trainable: Kinds, optimizer: Kinds) -> tuple[Packed, Packed]:
        """The two files laid out for tensors of these kinds, which are the same at almost every call: then this only
        compares. Memory that has to be taken is touched, so that no copy waits for it."""
        wanted = (trainable, optimizer)
        if self._kinds != wanted:
            plans = layout(trainable), layout(optimizer)
            second = -(-plans[0].size_bytes // ALIGNMENT) * ALIGNMENT
            needed = second + plans[1].size_bytes
            if needed > self._memory.numel():
                self._memory = _memory(needed, self._gpu)
            self._files = lay_out(self._memory, plans[0]), lay_out(self._memory[second:], plans[1])
            self._kinds = wanted
        return self._files


def _memory(size_bytes: int, gpu: torch.device | None) -> torch.Tensor:
    memory = torch.empty(size_bytes, dtype=torch.uint8)
    memory.zero_()
    if gpu is not None:
        with ThreadPoolExecutor(1) as thread:  # a refusal would stay behind as its thread's last CUDA error
            failed = thread.submit(_pin, memory, gpu).result()
        if failed:  # copies are right all the same, but the training loop waits for them
            warnings.warn(f"host memory for snapshots cannot be pinned (CUDA error {failed})", stacklevel=2)
    return memory


def _pin(memory: torch.Tensor, gpu: torch.device) -> int:
    """Registered rather than taken from torch's own pinned memory, which rounds up to a power of two."""
    cudart: Any = torch.cuda.cudart  # has no types
    cuda = cudart()
    with torch.cuda.device(gpu):
        failed = int(cuda.cudaHostRegister(memory.data_ptr(), memory.numel(), PORTABLE))
    if not failed:
        weakref.finalize(memory, cuda.cudaHostUnregister, memory.data_ptr()).atexit = False
    return failed
