"""Rows of a Parquet or Arrow file, a bounded piece at a time; a null inside a value is as if it were not there.

In a table every struct has every field that any row has, so null and absent look alike: JSON's meaning is restored.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from job.errors import DataError
from job.training.compressed import reading
from job.training.rows import Record, RowError, Source
from job.training.values import shown

PIECE_ROWS, PIECE_BYTES = 1000, 4_000_000
IPC_FILE, FEATHER_1 = b"ARROW1", b"FEA1"


def rows(source: Source, kind: str) -> Iterator[tuple[int, Record | RowError]]:
    """(row from 1, row); `kind` is parquet or arrow. Raises DataError."""
    number = 0
    for batch in _batches(source, kind):
        size = max(1, min(PIECE_ROWS, PIECE_BYTES * batch.num_rows // max(batch.nbytes, 1)))
        for start in range(0, batch.num_rows, size):
            for row in _rows(batch.slice(start, size)):
                number += 1
                yield number, row


def count(source: Source, kind: str) -> int:
    """How many rows `rows` gives. Raises DataError."""
    if kind == "arrow":
        return sum(batch.num_rows for batch in _batches(source, kind))
    import pyarrow.parquet as pq

    with _damaged(source), pq.ParquetFile(str(source.path)) as file:
        return int(file.metadata.num_rows)


def _batches(source: Source, kind: str) -> Iterator[Any]:
    with _damaged(source):
        for batch in _parquet(source) if kind == "parquet" else _arrow(source):
            _check_names(source, batch.schema.names)
            yield batch


@contextmanager
def _damaged(source: Source) -> Iterator[None]:
    """Whatever pyarrow stumbles over in a damaged file is a DataError: names that are no text, types that are none."""
    try:
        with reading(source):
            yield
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{source.uri}: cannot be read ({type(error).__name__}: {shown(error)})") from error


def _parquet(source: Source) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(str(source.path), memory_map=True) as file:
        yield from file.iter_batches(batch_size=PIECE_ROWS)


def _arrow(source: Source) -> Iterator[Any]:
    import pyarrow as pa

    with source.path.open("rb") as file:
        start = file.read(len(IPC_FILE))
    if start.startswith(FEATHER_1):
        raise DataError(f"{source.uri} is Feather of version 1; write it anew as version 2 or as Parquet")
    with closing(pa.memory_map(str(source.path))) as mapped:
        if start == IPC_FILE:
            with pa.ipc.open_file(mapped) as file:
                for index in range(file.num_record_batches):
                    yield _validated(file.get_batch(index))
        elif start:
            with pa.ipc.open_stream(mapped) as stream:
                yield from map(_validated, stream)


def _validated(batch: Any) -> Any:
    batch.validate(full=True)  # nothing else looks at the offsets, and wrong ones read whatever lies there
    return batch


def _rows(batch: Any) -> list[Record | RowError]:
    try:
        return [{name: _present(value) for name, value in row.items()} for row in batch.to_pylist()]
    except (UnicodeDecodeError, ValueError, OverflowError, ArithmeticError):
        return [_row(batch, index) for index in range(batch.num_rows)]


def _row(batch: Any, index: int) -> Record | RowError:
    row = {}
    for name in batch.schema.names:
        try:
            row[name] = _present(batch[name][index].as_py())
        except UnicodeDecodeError:
            return RowError(f"column `{name}` is not UTF-8 text")
        except (ValueError, OverflowError, ArithmeticError) as error:
            return RowError(f"column `{name}` cannot be read ({' '.join(str(error).split())})")
    return row


def _present(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _present(inner) for name, inner in value.items() if inner is not None}
    return [_present(inner) for inner in value] if isinstance(value, list) else value


def _check_names(source: Source, names: list[str]) -> None:
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(f"{source.uri} has two columns of the name {twice[0]!r}")
