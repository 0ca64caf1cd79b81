"""Rows as a person looks at them: their tokens, what they teach, and the global batch in which they are trained."""

from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from typing import Any

from job.inspection import Batch, BatchRow, Example, Lesson, Piece
from job.training.batches import Schedule, epoch_order
from job.training.dataset import PreparedRows
from job.training.layout import lay_out
from job.training.pieces import Pieces

WORDS_TOKENS, WORDS_CHARS = 60, 80
Place = tuple[int, int]  # step, from 1; epoch, from 0


class Examples:
    """Looks rows up by their number among the training rows."""

    def __init__(self, rows: PreparedRows, schedule: Schedule, tokenizer: Any) -> None:
        self._rows, self._schedule, self._pieces = rows, schedule, Pieces(tokenizer)

    def example(self, row: int) -> Example:
        ids, labels = self._rows.row(row)
        pieces = self._pieces.of(ids.tolist(), labels.tolist())
        step, epoch = self._place(row) or (None, None)
        return {
            "row": row,
            "source": self._rows.source(row),
            "tokens": len(ids),
            "trained": int(self._rows.trained[row]),
            "step": step,
            "epoch": epoch,
            "pieces": pieces,
            "learns": list(lessons(pieces)),
        }

    def batch(self, step: int, ranks: int, token_budget: int) -> Batch:
        """The global batch of `step`, laid out as so many ranks would have it."""
        numbers = [int(row) for row in self._schedule.rows_of(step)]
        spread = lay_out([int(self._rows.lengths[row]) for row in numbers], ranks, token_budget)
        return {
            "step": step,
            "epoch": (step - 1) // self._schedule.steps_per_epoch,
            "rows": [self._batch_row(row) for row in numbers],
            "ranks": [[[numbers[at] for at in micro] for micro in micros if micro] for micros in spread],
        }

    def first(self, count: int) -> list[int]:
        """The first rows in the order in which they are trained, none of them twice."""
        return list(islice(self._in_order(), count))

    def _in_order(self) -> Iterator[int]:
        met: set[int] = set()
        for step in range(1, self._schedule.steps + 1):
            for row in self._schedule.rows_of(step).tolist():
                if row not in met:
                    met.add(row)
                    yield row
            if len(met) == len(self._rows):
                return

    def _place(self, row: int) -> Place | None:
        """The first step that trains the row. Where sources have weights, an epoch may leave it to a later one."""
        schedule = self._schedule
        epochs = -(-schedule.steps // schedule.steps_per_epoch)
        for epoch in range(epochs):
            found = (epoch_order(schedule.rows, schedule.seed, epoch, schedule.parts) == row).nonzero()[0]
            if len(found):
                step = epoch * schedule.steps_per_epoch + int(found[0]) // schedule.global_batch_size + 1
                return (step, epoch) if step <= schedule.steps else None
        return None

    def _batch_row(self, row: int) -> BatchRow:
        ids, labels = (part[:WORDS_TOKENS].tolist() for part in self._rows.row(row))
        pieces = self._pieces.of(ids, labels)
        words = " ".join("".join(piece["text"] for piece in pieces if piece["kind"] == "text").split())
        return {
            "row": row,
            "source": self._rows.source(row),
            "tokens": int(self._rows.lengths[row]),
            "trained": int(self._rows.trained[row]),
            "words": words[:WORDS_CHARS],
        }


def lessons(pieces: Sequence[Piece]) -> Iterator[Lesson]:
    """What is trained, a stretch of tokens at a time."""
    for trained, stretch in groupby(pieces, key=lambda piece: piece["trained"]):
        if trained:
            parts = list(stretch)
            last = parts[-1]["first"] + len(parts[-1]["ids"]) - 1
            yield {"first": parts[0]["first"], "last": last, "text": "".join(piece["text"] for piece in parts)}
