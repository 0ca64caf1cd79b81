"""Prepared rows: one Arrow file written batch by batch in flat memory, memory-mapped by the ranks.

Labels stand unshifted beside the ids, -100 where a token is not trained.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from job.errors import DataError
from job.rundir import write_atomically
from job.training.encode import Encoded

FORMAT_VERSION = 1  # part of the fingerprint: raise it when the same input gives other rows
SCHEMA = pa.schema(
    [
        ("input_ids", pa.list_(pa.int32())),
        ("labels", pa.list_(pa.int32())),
        ("trained", pa.int32()),  # targets of the row, after the shift
        ("source", pa.string()),  # file name and line: chat-1.jsonl:12
    ]
)


class RowWriter:
    """Writes prepared rows; each `write` is one record batch. The file can be read once it is closed."""

    def __init__(self, path: Path) -> None:
        self._file = pa.ipc.new_file(str(path), SCHEMA)

    def write(self, rows: Sequence[tuple[Encoded, str]]) -> None:
        """`rows`: (row, source)."""
        if rows:
            columns = [
                _lists([row.input_ids for row, _ in rows]),
                _lists([row.labels for row, _ in rows]),
                _numbers(np.array([row.trained for row, _ in rows], np.int32)),
                _strings([source.encode() for _, source in rows]),
            ]
            self._file.write_batch(pa.record_batch(columns, schema=SCHEMA))

    def close(self) -> None:
        self._file.close()


# Arrays are made from buffers: pyarrow's own conversion of lists imports pandas, for half a second.


def _numbers(values: npt.NDArray[np.int32]) -> Any:
    return pa.Array.from_buffers(pa.int32(), len(values), [None, pa.py_buffer(values)])


def _lists(rows: list[list[int]]) -> Any:
    values = np.fromiter(chain.from_iterable(rows), np.int32)
    offsets = pa.py_buffer(_starts([len(row) for row in rows]))
    return pa.Array.from_buffers(pa.list_(pa.int32()), len(rows), [None, offsets], children=[_numbers(values)])


def _strings(texts: list[bytes]) -> Any:
    offsets = pa.py_buffer(_starts([len(text) for text in texts]))
    return pa.Array.from_buffers(pa.string(), len(texts), [None, offsets, pa.py_buffer(b"".join(texts))])


def _starts(lengths: list[int]) -> npt.NDArray[np.int32]:
    return np.cumsum([0, *lengths], dtype=np.int32)


class PreparedRows:
    """The rows of one prepared file, read where they lie.

    `lengths`: tokens of each row, shape [rows]; `trained`: targets of each row after the shift, shape [rows].
    Raises DataError when the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        try:
            file = pa.ipc.open_file(pa.memory_map(str(path)))
            self._batches = [file.get_batch(index) for index in range(file.num_record_batches)]
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f"prepared rows: {path.name} cannot be read ({error})") from error
        self._ends: npt.NDArray[np.int64] = np.cumsum([batch.num_rows for batch in self._batches], dtype=np.int64)
        offsets = [_offsets(batch) for batch in self._batches]
        self._offsets = offsets
        self.lengths: npt.NDArray[np.int64] = _joined([np.diff(of) for of in offsets])
        self.trained: npt.NDArray[np.int64] = _joined([batch["trained"].to_numpy() for batch in self._batches])

    def __len__(self) -> int:
        return len(self.lengths)

    def row(self, index: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """(input ids, labels) of a row, each of shape [tokens]: read-only, they lie in the file."""
        batch, place = self._place(index)
        start, end = self._offsets[batch][place : place + 2]
        ids, labels = (self._batches[batch][name].values.to_numpy()[start:end] for name in ("input_ids", "labels"))
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


def _offsets(batch: Any) -> npt.NDArray[np.int64]:
    found: npt.NDArray[np.int64] = batch["input_ids"].offsets.to_numpy().astype(np.int64)
    return found


def _joined(parts: list[npt.NDArray[Any]]) -> npt.NDArray[np.int64]:
    return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)


@dataclass(frozen=True)
class Summary:
    """What preparation found, in `summary.json` beside the rows."""

    fingerprint: str
    formats: list[str]  # of the sources, in their order, each once
    rows: int
    eval_rows: int
    tokens: int  # of the training rows
    trained_tokens: int  # targets among them
    longest_row: int  # tokens
    largest_id: int  # of any token: the model must have an embedding for it
    dropped: dict[str, int]  # reason -> rows, training and evaluation together
    truncated: int
    warnings: list[str]  # lines for the log
    end_of_turn_ids: list[int]  # what ends an answer in training: generation must stop at each of them
    bos_per_row: list[int]  # [fewest, most]; empty where the tokenizer has no BOS of its own
    vocab_size: int
    chat: bool
    chat_template: str | None  # the text, where chats were rendered or the config gave one

    def write(self, path: Path) -> None:
        write_atomically(path, json.dumps(asdict(self), ensure_ascii=False, indent=1))

    @staticmethod
    def read(path: Path) -> "Summary":
        return Summary(**json.loads(path.read_text(encoding="utf-8")))
