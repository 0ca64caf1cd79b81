"""Rows that occur more than once, found in 8 bytes a row: digests of tokens and labels, sorted when all are there."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Digests = npt.NDArray[np.uint64]
Pair = tuple[int, int]  # numbers of two rows that are the same


@dataclass(frozen=True)
class Repeats:
    """`rows`: how many rows came before, here or in the other set. `first`: (the first of them, what it repeats)."""

    rows: int
    first: Pair | None


def digest(ids: npt.NDArray[np.int32], labels: npt.NDArray[np.int32]) -> bytes:
    """8 bytes. Of a million different rows two have the same with a probability of 3e-8."""
    return hashlib.blake2b(ids.tobytes() + labels.tobytes(), digest_size=8).digest()


def digests(of_rows: Iterable[bytes]) -> Digests:
    return np.frombuffer(b"".join(of_rows), np.uint64)


def repeats(rows: Digests) -> Repeats:
    """Rows that are the same as an earlier one."""
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    again = order[1:][ordered[1:] == ordered[:-1]]
    if not len(again):
        return Repeats(0, None)
    first = int(again.min())
    return Repeats(len(again), (first, int(order[np.searchsorted(ordered, rows[first])])))


def overlap(rows: Digests, others: Digests) -> Repeats:
    """Rows of `rows` that stand among `others` too; the pair is (row, row of `others`)."""
    if not len(others):
        return Repeats(0, None)
    order = np.argsort(others, kind="stable")
    ordered = others[order]
    at = np.minimum(np.searchsorted(ordered, rows), len(ordered) - 1)
    both = np.flatnonzero(ordered[at] == rows)
    if not len(both):
        return Repeats(0, None)
    first = int(both[0])
    return Repeats(len(both), (first, int(order[at[first]])))
