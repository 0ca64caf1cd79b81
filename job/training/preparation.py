"""Lines of files go through reading, marking, encoding and the gates into prepared rows, a bounded batch at a time."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from job.errors import DataError
from job.training.chat import Marked, Marker
from job.training.dataset import RowWriter
from job.training.encode import Encoded, Encoder
from job.training.gates import Gates
from job.training.rows import Chat, Reader, RowError, Source, lines, parse, reader_for

BATCH_ROWS = 1000
BATCH_BYTES = 4_000_000  # of lines in memory at once; a row is never split
SPLIT_STREAM = 2**63  # keeps the split apart from every epoch's order, which draws from (seed, epoch)

Line = tuple[Source, int, bytes]


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


class Output:
    """One file of prepared rows, and what went into it."""

    def __init__(self, path: Path, bos_id: int | None) -> None:
        self._writer, self._bos_id = RowWriter(path), bos_id
        self.rows = self.tokens = self.trained = self.longest = self.largest_id = 0
        self.bos: set[int] = set()  # how many of them a row has: each count that was met

    def write(self, rows: Sequence[tuple[Encoded, str]]) -> None:
        self._writer.write(rows)
        self.rows += len(rows)
        for row, _ in rows:
            self.tokens += len(row.input_ids)
            self.trained += row.trained
            self.longest = max(self.longest, len(row.input_ids))
            self.largest_id = max(self.largest_id, *row.input_ids)
            if self._bos_id is not None:
                self.bos.add(row.input_ids.count(self._bos_id))

    def close(self) -> None:
        self._writer.close()


@dataclass(frozen=True)
class _Ready:
    """A row that is marked and waits for its tokens."""

    output: Output
    place: str  # for messages: the whole URI
    source: str  # for the file: its last part
    marked: Marked


class Preparation:
    """`tick(lines done)` is called after each batch, and may raise to end the work."""

    def __init__(self, tokenizer: Any, append_eos: bool | str, gates: Gates, tick: Callable[[int], None]) -> None:
        self.marker, self.encoder = Marker(tokenizer, append_eos), Encoder(tokenizer)
        self._gates, self._tick, self._done = gates, tick, 0
        self._readers: dict[Source, tuple[str, Reader]] = {}
        self.chat = False

    @property
    def formats(self) -> list[str]:
        return list(dict.fromkeys(name for name, _ in self._readers.values()))

    def feed(self, sources: Sequence[Source], output_of: Callable[[int], Output]) -> None:
        """Prepares all rows of `sources`; `output_of` gets a row's place among them, counted from 0."""
        fed = 0
        for batch in _batches(sources):
            ready = []
            for number, line in enumerate(batch, start=fed):
                if (row := self._mark(line, output_of(number))) is not None:
                    ready.append(row)
            self._encode(ready)
            fed += len(batch)
            self._done += len(batch)
            self._tick(self._done)

    def _mark(self, line: Line, output: Output) -> _Ready | None:
        source, number, text = line
        try:
            record = parse(text)
            if source not in self._readers:
                self._readers[source] = reader_for(source, record)
            row = self._readers[source][1](record)
            self.chat = self.chat or isinstance(row, Chat)
            marked = self.marker.mark(row, source.loss)
        except RowError as reason:
            self._gates.bad(source.place(number), str(reason))
            return None
        return _Ready(output, source.place(number), f"{source.uri.rpartition('/')[2]}:{number}", marked)

    def _encode(self, ready: Sequence[_Ready]) -> None:
        admitted: dict[Output, list[tuple[Encoded, str]]] = {}
        for row, encoded in zip(ready, self.encoder.encode([row.marked for row in ready]), strict=True):
            if isinstance(encoded, RowError):
                self._gates.bad(row.place, str(encoded))
            elif (used := self._gates.admit(row.place, row.marked, encoded)) is not None:
                admitted.setdefault(row.output, []).append((used, row.source))
        for output, rows in admitted.items():
            output.write(rows)


def _batches(sources: Sequence[Source]) -> Iterator[list[Line]]:
    batch: list[Line] = []
    size = 0
    for source in sources:
        for number, line in lines(source):
            batch.append((source, number, line))
            size += len(line)
            if len(batch) == BATCH_ROWS or size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch
