"""Prepared rows: Arrow files of a bounded size, written in flat memory and memory-mapped by the ranks.

The rows of a split lie, in their order, in train-00000.arrow, train-00001.arrow and so on. Labels stand unshifted
beside the ids, -100 where a token is not trained.
"""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from job.errors import DataError
from job.training.encode import MASKED, Encoded

FORMAT_VERSION = 3  # part of the fingerprint: raise it when the same input gives other rows
SHARD_BYTES = 256 << 20
SCHEMA = pa.schema(
    [
        ("input_ids", pa.list_(pa.int32())),
        ("labels", pa.list_(pa.int32())),
        ("trained", pa.int32()),  # targets of the row, after the shift
        ("source", pa.string()),  # file name and line: chat-1.jsonl:12
    ]
)


def table_of(rows: Sequence[tuple[Encoded, str]]) -> Any:
    """One record batch of at least one (row, source), each of at least one token."""
    starts = _starts([len(row.input_ids) for row, _ in rows])
    ids, labels = (
        np.fromiter(chain.from_iterable(lists), np.int32, starts[-1])
        for lists in ((row.input_ids for row, _ in rows), (row.labels for row, _ in rows))
    )
    is_target = labels != MASKED
    is_target[starts[:-1]] = False  # the first token of a row is never predicted
    columns = [
        _lists(ids, starts),
        _lists(labels, starts),
        _numbers(np.add.reduceat(is_target, starts[:-1], dtype=np.int32)),
        _strings([source.encode() for _, source in rows]),
    ]
    return pa.record_batch(columns, schema=SCHEMA)


# Arrays are made from buffers, and looked at in them: pyarrow's own conversions import pandas, for half a second.


def _numbers(values: npt.NDArray[np.int32]) -> Any:
    return pa.Array.from_buffers(pa.int32(), len(values), [None, pa.py_buffer(values)])


def _lists(values: npt.NDArray[np.int32], starts: npt.NDArray[np.int32]) -> Any:
    offsets = [None, pa.py_buffer(starts)]
    return pa.Array.from_buffers(pa.list_(pa.int32()), len(starts) - 1, offsets, children=[_numbers(values)])


def _strings(texts: list[bytes]) -> Any:
    offsets = pa.py_buffer(_starts([len(text) for text in texts]))
    return pa.Array.from_buffers(pa.string(), len(texts), [None, offsets, pa.py_buffer(b"".join(texts))])


def _starts(lengths: list[int]) -> npt.NDArray[np.int32]:
    return np.cumsum([0, *lengths], dtype=np.int32)


def numbers_in(array: Any) -> npt.NDArray[np.int32]:
    """The values of an Arrow array of int32 where they lie, read-only."""
    values = np.frombuffer(array.buffers()[1] or b"", np.int32)[array.offset : array.offset + len(array)]
    values.flags.writeable = False
    return values


class RowWriter:
    """Writes the rows of a split into `folder`. They can be read once it is closed; without rows there is one file."""

    def __init__(self, folder: Path, split: str = "train", shard_bytes: int = SHARD_BYTES) -> None:
        self._folder, self._split, self._shard_bytes = folder, split, shard_bytes
        self._shards = self._bytes = 0
        self._file = self._next()

    def write(self, table: Any) -> None:
        """`table`: as `table_of` makes it; it stays in one file."""
        if self._bytes >= self._shard_bytes:
            self._file.close()
            self._file = self._next()
        self._file.write_batch(table)
        self._bytes += table.nbytes

    def close(self) -> None:
        self._file.close()

    def _next(self) -> Any:
        path = _shard(self._folder, self._split, self._shards)
        self._shards, self._bytes = self._shards + 1, 0
        return pa.ipc.new_file(str(path), SCHEMA)


def _shard(folder: Path, split: str, number: int) -> Path:
    return folder / f"{split}-{number:05d}.arrow"


class PreparedRows:
    """The rows of a split, read where they lie.

    `lengths`: tokens of each row, shape [rows]; `trained`: targets of each row after the shift, shape [rows].
    Raises DataError when a file is damaged or missing.
    """

    def __init__(self, folder: Path, split: str = "train") -> None:
        paths = sorted(folder.glob(f"{split}-*.arrow"))
        expected = [_shard(folder, split, number) for number in range(max(1, len(paths)))]
        if missing := sorted(set(expected) - set(paths)):
            raise DataError(f"prepared rows: {missing[0].name} cannot be read (it is not there)")
        self._batches = [batch for path in paths for batch in _batches(path)]
        self._ends: npt.NDArray[np.int64] = np.cumsum([batch.num_rows for batch in self._batches], dtype=np.int64)
        offsets = [_offsets(batch) for batch in self._batches]
        self._offsets = offsets
        self.lengths: npt.NDArray[np.int64] = _joined([np.diff(of) for of in offsets])
        self.trained: npt.NDArray[np.int64] = _joined([numbers_in(batch["trained"]) for batch in self._batches])

    @staticmethod
    def of_evaluation(folder: Path) -> "PreparedRows | None":
        """None where none were asked for."""
        return PreparedRows(folder, "eval") if _shard(folder, "eval", 0).exists() else None

    def __len__(self) -> int:
        return len(self.lengths)

    def row(self, index: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """(input ids, labels) of a row, each of shape [tokens]: read-only, they lie in the file."""
        batch, place = self._place(index)
        start, end = self._offsets[batch][place : place + 2]
        ids, labels = (numbers_in(self._batches[batch][name].values)[start:end] for name in ("input_ids", "labels"))
        return ids, labels

    def source(self, index: int) -> str:
        """Where the row stands in the data: file name and line."""
        batch, place = self._place(index)
        return str(self._batches[batch]["source"][place].as_py())

    def _place(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        batch = int(np.searchsorted(self._ends, index, side="right"))
        return batch, index - (int(self._ends[batch - 1]) if batch else 0)


def _batches(path: Path) -> list[Any]:
    try:
        file = pa.ipc.open_file(pa.memory_map(str(path)))
        return [file.get_batch(index) for index in range(file.num_record_batches)]
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"prepared rows: {path.name} cannot be read ({error})") from error


def _offsets(batch: Any) -> npt.NDArray[np.int64]:
    return numbers_in(batch["input_ids"].offsets).astype(np.int64)


def _joined(parts: list[npt.NDArray[Any]]) -> npt.NDArray[np.int64]:
    return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)
