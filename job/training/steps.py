"""A rank's share of each step, the seeding of a step, and the sum by which ranks agree."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist

from job.training.batches import Schedule
from job.training.dataset import PreparedRows
from job.training.layout import lay_out
from job.training.loss import MicroBatch, masked_row, micro_batch


@dataclass(frozen=True)
class Layout:
    """How this attempt spreads a global batch."""

    rank: int
    world_size: int
    token_budget: int
    padded: bool
    device: torch.device


@dataclass(frozen=True)
class StepBatch:
    """This rank's share of one optimizer step."""

    step: int
    micros: list[MicroBatch]
    trained_tokens: int  # of the whole global batch


def share(rows: PreparedRows, ids: Sequence[int], at: Layout) -> list[MicroBatch]:
    """This rank's micro-batches of the rows `ids`, built when they are needed."""
    spread = lay_out([int(rows.lengths[row]) for row in ids], at.world_size, at.token_budget, at.padded)
    micros = [[rows.row(ids[position]) for position in micro] for micro in spread[at.rank]]
    filler = masked_row(rows.row(ids[0]))
    return [micro_batch(micro or [filler], at.padded, at.device) for micro in micros]


class StepLoader:
    """This rank's shares of the steps that are left, up to the end of their epoch; none once the attempt is over."""

    def __init__(self, rows: PreparedRows, schedule: Schedule, at: Layout, done: int, over: Callable[[], bool]) -> None:
        self.dataset = rows
        self._schedule, self._layout, self._done, self._over = schedule, at, done, over

    def __len__(self) -> int:
        return self._schedule.steps_per_epoch

    def __iter__(self) -> Iterator[StepBatch]:
        epoch_end = (self._done // len(self) + 1) * len(self)
        while self._done < min(epoch_end, self._schedule.steps) and not self._over():
            self._done += 1
            ids = self._schedule.rows_of(self._done)
            trained = int(self.dataset.trained[ids].sum())
            yield StepBatch(self._done, share(self.dataset, ids.tolist(), self._layout), trained)


def seed_everything(seed: int, step: int, rank: int) -> None:
    """All randomness of a step is a function of (seed, step, rank): there is no generator state to save."""
    mixed = int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0])
    torch.manual_seed(mixed)
    random.seed(mixed)
    np.random.seed(mixed % 2**32)


class Agreement:
    """Sums a few numbers over all ranks on the CPU."""

    def __init__(self, world_size: int) -> None:
        self._group = None
        if world_size > 1 and dist.get_backend() != "gloo":
            self._group = dist.new_group(backend="gloo")
        self._alone = world_size == 1

    def sum(self, *values: float) -> list[float]:
        numbers = torch.tensor(values, dtype=torch.float64)
        if not self._alone:
            dist.all_reduce(numbers, group=self._group)
        return [float(number) for number in numbers]
