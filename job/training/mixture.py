"""What a weight means: an epoch takes weight x rows of a source, and takes them in turn.

The rows of a source pass by in one endless sequence, each pass in an order of its own, and every epoch takes the next
weight x rows (rounded, halves up, at least one) of it. So a weight of 2 gives each row twice an epoch, 0.5 gives half
of them and the next epoch the other half, and no row comes again before every other row of its source has come.
"""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

Part = tuple[int, float]  # rows of a source, and its weight
Order = npt.NDArray[np.int64]
PASSES = 2**62  # keeps these orders apart from every epoch's, which draws from (seed, epoch)


def taken(rows: int, weight: float) -> int:
    """How many rows an epoch takes of a source of `rows`; the weight as it is written, not as binary rounds it."""
    return max(1, math.floor(Fraction(str(weight)) * rows + Fraction(1, 2))) if rows else 0


def epoch_rows(rows: int, parts: Sequence[Part]) -> int:
    """Rows of one epoch over `rows` prepared rows; `parts`: of the sources in their order, empty without weights."""
    return sum(taken(*part) for part in parts) if parts else rows


def drawn(parts: Sequence[Part], seed: int, epoch: int) -> Order:
    """Row numbers that an epoch takes, source after source, shape [epoch_rows]."""
    chosen = []
    first = 0
    for number, (rows, weight) in enumerate(parts):
        size = taken(rows, weight)
        start = epoch * size
        while size:
            round_, place = divmod(start, rows)
            order = permutation(rows, seed, PASSES + (number << 32) + round_)[place : place + size]
            chosen.append(first + order)
            start, size = start + len(order), size - len(order)
        first += rows
    return np.concatenate(chosen) if chosen else np.zeros(0, np.int64)


def permutation(rows: int, seed: int, stream: int) -> Order:
    """A permutation of range(rows), shape [rows].

    Sorts the raw Philox stream of key (seed, stream): numpy promises that stream, but not the output of
    `Generator.permutation`, to stay the same between versions (NEP 19).
    """
    raw = np.random.Philox(key=np.array([seed, stream], dtype=np.uint64)).random_raw(rows)
    return np.argsort(raw, kind="stable").astype(np.int64)
