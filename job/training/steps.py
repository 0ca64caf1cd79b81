"""A rank's share of each step, the seeding of a step, and the sum by which ranks agree."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

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


def shares(rows: PreparedRows, ids: Sequence[int], at: Layout) -> Iterator[tuple[list[int], MicroBatch]]:
    """This rank's micro-batches of the rows `ids`, each with its row numbers: none where it only takes part."""
    spread = lay_out([int(rows.lengths[row]) for row in ids], at.world_size, at.token_budget, at.padded)
    for micro in spread[at.rank]:
        numbers = [int(ids[position]) for position in micro]
        laid = [rows.row(number) for number in numbers] or [masked_row(rows.row(ids[0]))]
        yield numbers, micro_batch(laid, at.padded, at.device)


class StepLoader:
    """This rank's shares of the steps that are left, up to the end of their epoch; none once the attempt is over."""

    def __init__(
        self, rows: PreparedRows, schedule: Schedule, at: Callable[[], Layout], done: int, over: Callable[[], bool]
    ) -> None:
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
            micros = [micro for _, micro in shares(self.dataset, ids.tolist(), self._layout())]
            yield StepBatch(self._done, micros, trained)


def seed_everything(seed: int, step: int, rank: int) -> None:
    """All randomness of a step is a function of (seed, step, rank): there is no generator state to save."""
    mixed = int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0])
    # What `torch.manual_seed` does, but without a stack trace for each kind of device that is not there: it takes 1 ms.
    torch.default_generator.manual_seed(mixed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(mixed)
    random.seed(mixed)
    np.random.seed(mixed % 2**32)


class Agreement:
    """What all ranks tell each other on the CPU: sums of a few numbers, and at an evaluation what each found."""

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

    def gather(self, value: Any) -> list[Any] | None:
        """Every rank's value, by rank, on rank 0; None on the others."""
        if self._alone:
            return [value]
        found: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
        dist.gather_object(value, found, group=self._group)
        return found

    def told(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        if self._alone:
            return value
        found = [value]
        dist.broadcast_object_list(found, group=self._group)
        return found[0]
