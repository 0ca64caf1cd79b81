"""Which rows make up step N, and how they fall onto ranks and micro-batches.

The first is a function of (seed, epoch, step) alone. The second is arithmetic that any attempt may do differently:
it never changes the loss of a step, which is a sum over trained tokens divided by their count in the global batch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Schedule:
    """The steps of a run. Steps count from 1, as in logs and commits; epochs from 0."""

    rows: int
    global_batch_size: int
    epochs: float
    max_steps: int | None
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """The last step of an epoch may be partial: no row is padded, repeated or dropped."""
        return math.ceil(self.rows / self.global_batch_size)

    @property
    def steps(self) -> int:
        # As it is written: in binary, 0.7 epochs of 10 steps are a little more than 7 steps.
        return self.max_steps or max(1, math.ceil(Fraction(str(self.epochs)) * self.steps_per_epoch))

    def epoch(self, step: int) -> float:
        """Epochs done after `step` steps."""
        return step / self.steps_per_epoch

    def rows_of(self, step: int) -> npt.NDArray[np.int64]:
        """Row numbers of the global batch of `step`, in the epoch's order."""
        epoch, position = divmod(step - 1, self.steps_per_epoch)
        start = position * self.global_batch_size
        return epoch_order(self.rows, self.seed, epoch)[start : start + self.global_batch_size]


_last_order: tuple[tuple[int, int, int], npt.NDArray[np.int64]] | None = None


def epoch_order(rows: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """A permutation of range(rows) for one epoch, shape [rows].

    Sorts the raw Philox stream of key (seed, epoch): numpy promises that stream, but not the output of
    `Generator.permutation`, to stay the same between versions (NEP 19).
    """
    global _last_order
    key = (rows, seed, epoch)
    if _last_order is None or _last_order[0] != key:
        raw = np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64)).random_raw(rows)
        order = np.argsort(raw, kind="stable").astype(np.int64)
        order.flags.writeable = False  # it is handed out again and again
        _last_order = (key, order)
    return _last_order[1]


def layout(lengths: Sequence[int], world_size: int, token_budget: int, padded: bool = False) -> list[list[list[int]]]:
    """Spread the rows of a global batch: result[rank][micro-batch] lists positions in `lengths`.

    Ranks are balanced by tokens (longest row first, to the least loaded rank); each rank's rows then go best-fit into
    micro-batches of at most `token_budget` tokens. `padded` counts a micro-batch as rows x longest row, for models
    whose attention cannot keep documents apart. A row longer than the budget stands alone. Every rank gets the same
    number of micro-batches; an empty one is trained with a masked row, so that all ranks join every reduction.
    """
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    ranks: list[list[int]] = [[] for _ in range(world_size)]
    loads = [0] * world_size
    for row in order:
        rank = loads.index(min(loads))
        ranks[rank].append(row)
        loads[rank] += lengths[row]
    spread = [_fill(rows, lengths, token_budget, padded) for rows in ranks]
    most = max(len(micros) for micros in spread)
    return [micros + [[] for _ in range(most - len(micros))] for micros in spread]


def _fill(rows: list[int], lengths: Sequence[int], token_budget: int, padded: bool) -> list[list[int]]:
    """Best-fit decreasing; `rows` come longest first, so a bin's first row is its longest."""
    bins: list[list[int]] = []
    used: list[int] = []
    for row in rows:
        costs = [lengths[micro[0]] if padded else lengths[row] for micro in bins]
        fitting = [at for at, cost in enumerate(costs) if used[at] + cost <= token_budget]
        if fitting:
            best = max(fitting, key=lambda at: (used[at], -at))
            bins[best].append(row)
            used[best] += costs[best]
        else:
            bins.append([row])
            used.append(lengths[row])
    return bins
