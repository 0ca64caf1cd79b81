"""Which rows make up step N: a function of (seed, epoch, step) alone."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from job.config import RunConfig
from job.training.mixture import Order, Part, drawn, epoch_rows, permutation


@dataclass(frozen=True)
class Schedule:
    """The steps of a run. Steps count from 1, as in logs and commits; epochs from 0."""

    rows: int
    global_batch_size: int
    epochs: float
    max_steps: int | None
    seed: int
    parts: tuple[Part, ...] = ()  # (rows, weight) of each source, in the order of its rows; without weights none

    @staticmethod
    def of(config: RunConfig, rows: int, parts: Iterable[Sequence[float]]) -> "Schedule":
        """The run's; `rows` and `parts` as the summary of its prepared rows has them."""
        train, weighed = config.train, tuple((int(count), weight) for count, weight in parts)
        return Schedule(rows, train.global_batch_size, train.epochs, train.max_steps, train.seed, weighed)

    @property
    def epoch_rows(self) -> int:
        """Rows of one epoch: all of them, unless sources have weights."""
        return epoch_rows(self.rows, self.parts)

    @property
    def steps_per_epoch(self) -> int:
        """The last step of an epoch may be partial: no row is padded, repeated or dropped."""
        return math.ceil(self.epoch_rows / self.global_batch_size)

    @property
    def steps(self) -> int:
        # As it is written: in binary, 0.7 epochs of 10 steps are a little more than 7 steps.
        return self.max_steps or max(1, math.ceil(Fraction(str(self.epochs)) * self.steps_per_epoch))

    def epoch(self, step: int) -> float:
        """Epochs done after `step` steps."""
        return step / self.steps_per_epoch

    def rows_of(self, step: int) -> Order:
        """Row numbers of the global batch of `step`, in the epoch's order."""
        epoch, position = divmod(step - 1, self.steps_per_epoch)
        start = position * self.global_batch_size
        return epoch_order(self.rows, self.seed, epoch, self.parts)[start : start + self.global_batch_size]


_last_order: tuple[tuple[int, int, int, tuple[Part, ...]], Order] | None = None


def epoch_order(rows: int, seed: int, epoch: int, parts: tuple[Part, ...] = ()) -> Order:
    """The row numbers of one epoch in their order, shape [epoch_rows]: without weights a permutation of range(rows)."""
    global _last_order
    key = (rows, seed, epoch, parts)
    if _last_order is None or _last_order[0] != key:
        order = permutation(epoch_rows(rows, parts), seed, epoch)
        if parts:
            order = drawn(parts, seed, epoch)[order]
        order.flags.writeable = False  # it is handed out again and again
        _last_order = (key, order)
    return _last_order[1]
