"""Many tensors copied on a few cores, each core through a share of its own.

torch would put all its threads to each tensor in turn: where others use the cores too, they wait for each other at each
of hundreds of tensors, and milliseconds become seconds.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

MOST_CORES = 4  # memory is not quicker for more

Pair = tuple[torch.Tensor, torch.Tensor]


class Cores:
    """As many threads as torch has for this thread, at most four."""

    def __init__(self) -> None:
        self._count = min(MOST_CORES, torch.get_num_threads())
        if self._count > 1:
            self._pool = _pool(self._count)

    def copy(self, targets: list[torch.Tensor], sources: list[torch.Tensor]) -> None:
        """Returns when all is copied."""
        if self._count == 1:
            _copy(list(zip(targets, sources, strict=True)))
            return
        for _ in self._pool.map(_copy, _shares(targets, sources, self._count)):
            pass


def _pool(count: int) -> ThreadPoolExecutor:
    """Each of its threads keeps torch to one core; saying so also changes what threads begun later get, so it is said
    again here when all of them have begun."""
    before, begun = torch.get_num_threads(), threading.Barrier(count + 1)
    pool = ThreadPoolExecutor(count, "snapshot-copy", initializer=torch.set_num_threads, initargs=(1,))
    for _ in range(count):
        pool.submit(begun.wait)
    begun.wait()
    torch.set_num_threads(before)
    return pool


def _shares(targets: list[torch.Tensor], sources: list[torch.Tensor], count: int) -> list[list[Pair]]:
    """About as many bytes each."""
    shares: list[list[Pair]] = [[] for _ in range(count)]
    filled_bytes = [0] * count
    for pair in zip(targets, sources, strict=True):
        least = filled_bytes.index(min(filled_bytes))
        shares[least].append(pair)
        filled_bytes[least] += pair[0].nbytes
    return [share for share in shares if share]


@torch.no_grad()
def _copy(share: list[Pair]) -> Any:
    torch._foreach_copy_([target for target, _ in share], [source for _, source in share])
