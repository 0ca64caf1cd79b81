"""The rows of all files as batches of a bounded size, each row with the split it goes to: the same for any workers."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from job.errors import DataError
from job.filetypes import TABLES
from job.training.files import Raw, count, kind_of, raw_records
from job.training.rows import Source

TRAIN, EVAL = 0, 1
SPLITS = ("train", "eval")  # their names, in files too
BATCH_ROWS = 1000
BATCH_BYTES = 1_000_000  # about, of what was read; a row is never split
COUNTED_ROWS = 10_000  # between two looks at whether to stop
SPLIT_STREAM = 2**63  # keeps the split apart from every epoch's order, which draws from (seed, epoch)


@dataclass(frozen=True)
class Batch:
    """Rows in the order of the data. `lines`: (place of its source among all, its number there, what was read)."""

    lines: list[tuple[int, int, Raw]] = field(default_factory=list)
    splits: bytearray = field(default_factory=bytearray)  # of each line: TRAIN or EVAL


def held_out(rows: int, share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Which of `rows` rows are evaluation's, shape [rows]: by place and seed alone; their number is rounded up.

    Sorts a raw Philox stream, which numpy promises to keep the same between versions (NEP 19).
    Raises DataError when no row is left to train on.
    """
    split_off = math.ceil(rows * share)
    if rows and split_off >= rows:
        raise DataError(f"data.eval: {share} of {rows} rows leaves none to train on; give more data or a smaller share")
    raw = np.random.Philox(key=np.array([seed, SPLIT_STREAM], dtype=np.uint64)).random_raw(rows)
    chosen = np.zeros(rows, dtype=np.bool_)
    chosen[np.argsort(raw, kind="stable")[:split_off]] = True
    return chosen


def counted(source: Source, poll: Callable[[], None]) -> int:
    """How many rows `source` holds; `poll` may raise to end the counting. Raises DataError."""
    if kind_of(source) in TABLES.values():
        return count(source)
    rows = 0
    for rows, _ in enumerate(raw_records(source), start=1):
        if rows % COUNTED_ROWS == 0:
            poll()
    return rows


def batches(train: Sequence[Source], evaluation: Sequence[Source], for_eval: npt.NDArray[np.bool_]) -> Iterator[Batch]:
    """All rows; a source's place is the one in `[*train, *evaluation]`.

    `for_eval`: which rows of `train` are evaluation's, by their place among all of them; empty where none are.
    """
    batch, size = Batch(), 0
    row = 0
    for place, source in enumerate([*train, *evaluation]):
        for number, raw in raw_records(source):
            is_eval = place >= len(train) or (len(for_eval) > 0 and bool(for_eval[row]))
            batch.lines.append((place, number, raw))
            batch.splits.append(EVAL if is_eval else TRAIN)
            row += 1
            size += len(raw) if isinstance(raw, bytes) else _size(raw)
            if len(batch.lines) == BATCH_ROWS or size >= BATCH_BYTES:
                yield batch
                batch, size = Batch(), 0
    if batch.lines:
        yield batch


def _size(value: Any) -> int:
    """About how much memory the texts of a record take, in bytes."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, list) else 8
