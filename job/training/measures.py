"""What the prepared rows come to as a whole: how long they are, and how well they fill the devices."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from job.inspection import Layout, Lengths
from job.inspection import Schedule as Planned
from job.training.batches import Schedule
from job.training.layout import Spread, lay_out, quality

MOST_BINS = 12
CROWDED, SPREAD = 0.6, 8
MEASURED_STEPS = 200  # tell what an epoch is like; a layout is cheap, but not for nothing


def lengths(tokens: npt.NDArray[np.int64]) -> Lengths:
    """`tokens` of each row, shape [rows], at least one."""
    shortest, longest = int(tokens.min()), int(tokens.max())
    edges = _even(shortest, longest)
    counts = _counts(tokens, edges)
    if (
        counts.max() > CROWDED * len(tokens) and longest > SPREAD * shortest
    ):  # a few long rows would hide all the others
        edges = _doubling(shortest, longest)
        counts = _counts(tokens, edges)
    median, p95 = (int(value) for value in np.percentile(tokens, (50, 95), method="closest_observation"))
    bins = [(first, after - 1, int(rows)) for (first, after), rows in zip(pairwise(edges), counts, strict=True)]
    return {"shortest": shortest, "median": median, "p95": p95, "longest": longest, "bins": bins}


def _even(shortest: int, longest: int) -> list[int]:
    """Edges of bins of the same width, a power of two."""
    width = 1
    while longest // width - shortest // width >= MOST_BINS:
        width *= 2
    return [number * width for number in range(shortest // width, longest // width + 2)]


def _doubling(shortest: int, longest: int) -> list[int]:
    """Edges of bins each of which begins at twice the one before."""
    return [1 << power for power in range(shortest.bit_length() - 1, longest.bit_length() + 1)]


def _counts(tokens: npt.NDArray[np.int64], edges: list[int]) -> npt.NDArray[np.int64]:
    return np.bincount(np.searchsorted(edges, tokens, side="right") - 1, minlength=len(edges) - 1)


def planned(schedule: Schedule) -> Planned:
    return {
        "steps": schedule.steps,
        "steps_per_epoch": schedule.steps_per_epoch,
        "epochs": schedule.epoch(schedule.steps),
        "epoch_rows": schedule.epoch_rows,
        "global_batch_size": schedule.global_batch_size,
    }


def layout(tokens: npt.NDArray[np.int64], schedule: Schedule, ranks: int, token_budget: int) -> Layout:
    """How the first steps fall onto so many ranks: padding-free, as every attention keeps documents apart here."""
    steps = min(schedule.steps, schedule.steps_per_epoch, MEASURED_STEPS)
    laid = list(_laid(tokens, schedule, steps, ranks, token_budget))
    found = quality(laid, token_budget)
    micros = sum(len(rank) for _, spread in laid for rank in spread) / (steps * ranks)
    return {
        "ranks": ranks,
        "token_budget": token_budget,
        "steps": steps,
        "micro_batches": micros,
        "filled": found.filled,
        "in_full": found.in_full,
        "imbalance": found.imbalance,
    }


def _laid(
    tokens: npt.NDArray[np.int64], schedule: Schedule, steps: int, ranks: int, token_budget: int
) -> Iterator[tuple[list[int], Spread]]:
    for step in range(1, steps + 1):
        of_step = tokens[schedule.rows_of(step)].tolist()
        yield of_step, lay_out(of_step, ranks, token_budget)
