"""How the rows of a global batch fall onto ranks and micro-batches.

Arithmetic that any attempt may do differently: it never changes the loss of a step, which is a sum over trained tokens
divided by their count in the global batch. The same lengths always give the same layout.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heapreplace

Spread = list[list[list[int]]]  # [rank][micro-batch]: positions of rows in the global batch


def lay_out(lengths: Sequence[int], world_size: int, token_budget: int, padded: bool = False) -> Spread:
    """Spread rows of `lengths` tokens: result[rank][micro-batch] lists positions in `lengths`.

    Ranks are balanced by tokens (longest row first, to the least loaded rank); each rank's rows then go best-fit into
    micro-batches of at most `token_budget` tokens. `padded` counts a micro-batch as rows x longest row, for models
    whose attention cannot keep documents apart. A row longer than the budget stands alone. Every rank gets the same
    number of micro-batches; an empty one is trained with a masked row, so that all ranks join every reduction.
    """
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    fill = _fill_padded if padded else _fill
    spread = [fill(rows, lengths, token_budget) for rows in _balanced(order, lengths, world_size)]
    most = max(len(micros) for micros in spread)
    return [micros + [[] for _ in range(most - len(micros))] for micros in spread]


def _balanced(order: list[int], lengths: Sequence[int], world_size: int) -> list[list[int]]:
    """Longest first, to the least loaded: at most 4/3 of the best (R. L. Graham, SIAM J. Appl. Math. 17, 1969)."""
    if world_size == 1:
        return [order]
    ranks: list[list[int]] = [[] for _ in range(world_size)]
    loads = [(0, rank) for rank in range(world_size)]  # a heap: of equal loads the lowest rank comes first
    for row in order:
        load, rank = loads[0]
        ranks[rank].append(row)
        heapreplace(loads, (load + lengths[row], rank))
    return ranks


def _fill(rows: list[int], lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Best-fit decreasing: each row goes where it leaves the least room."""
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens left, bin), sorted: the first that fits leaves the least
    for row in rows:
        length = lengths[row]
        at = bisect_left(room, (length, -1))
        if at < len(room):
            left, number = room.pop(at)
            bins[number].append(row)
        else:
            left, number = token_budget, len(bins)
            bins.append([row])
        if left > length:
            insort(room, (left - length, number))
    return bins


def _fill_padded(rows: list[int], lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """The same where each row costs as much as the longest of its bin: the first, as rows come longest first."""
    bins: list[list[int]] = []
    for row in rows:
        fitting = [micro for micro in bins if (len(micro) + 1) * lengths[micro[0]] <= token_budget]
        if fitting:
            max(fitting, key=lambda micro: len(micro) * lengths[micro[0]]).append(row)
        else:
            bins.append([row])
    return bins


@dataclass(frozen=True)
class Quality:
    """How well layouts use the devices; all are shares, in [0, 1] but for the last."""

    filled: float  # tokens over the budgets of all micro-batches that hold any
    in_full: float  # of the tokens, those in micro-batches too full for the shortest row of their rank
    imbalance: float  # by how much the most loaded rank exceeds the mean, weighted by tokens


def quality(steps: Iterable[tuple[Sequence[int], Spread]], token_budget: int) -> Quality:
    """Of padding-free layouts, one per step: (lengths, spread). At least one row in all."""
    tokens = budgets = in_full = excess = 0.0
    for lengths, spread in steps:
        loads = []
        for rank in spread:
            sums = [sum(lengths[row] for row in micro) for micro in rank if micro]
            shortest = min((lengths[row] for micro in rank for row in micro), default=0)
            in_full += sum(size for size in sums if token_budget - size < shortest)
            budgets += sum(max(token_budget, size) for size in sums)
            loads.append(sum(sums))
        tokens += sum(loads)
        excess += max(loads) * len(loads) - sum(loads)
    return Quality(tokens / budgets, in_full / tokens, excess / tokens)
