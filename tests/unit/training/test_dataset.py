"""What is written batch by batch is read back row by row."""

from pathlib import Path

import numpy as np
import pytest

from job.errors import DataError
from job.training.dataset import PreparedRows, RowWriter, table_of
from job.training.encode import Encoded
from job.training.summary import Summary

ROWS = [
    (Encoded([1, 2, 3], [-100, 2, 3], ()), "chat-1.jsonl:1"),
    (Encoded([4], [4], ()), "chat-1.jsonl:2"),
    (Encoded([5, 6], [5, 6], ()), "资料.jsonl:7"),
]


@pytest.fixture(params=[1, 1 << 20])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The rows in two files, or in one."""
    writer = RowWriter(tmp_path, shard_bytes=request.param)
    writer.write(table_of(ROWS[:2]))
    writer.write(table_of(ROWS[2:]))
    writer.close()
    assert len(list(tmp_path.iterdir())) == (2 if request.param == 1 else 1)
    return tmp_path


def test_rows_come_back_with_their_sources_from_several_batches_and_files(folder: Path) -> None:
    rows = PreparedRows(folder)
    assert len(rows) == 3
    for number, (row, source) in enumerate(ROWS):
        ids, labels = rows.row(number)
        assert (ids.tolist(), labels.tolist(), rows.source(number)) == (row.input_ids, row.labels, source)
        assert ids.dtype == labels.dtype == np.int32


def test_trained_tokens_are_counted_after_the_shift(folder: Path) -> None:
    rows = PreparedRows(folder)
    assert rows.lengths.tolist() == [3, 1, 2]
    assert rows.trained.tolist() == [2, 0, 1]  # the first token of a row is never a target


def test_a_row_cannot_be_changed(folder: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        PreparedRows(folder).row(0)[0][:] = 9


def test_a_row_that_is_not_there_is_an_index_error(folder: Path) -> None:
    for number in (3, -1):
        with pytest.raises(IndexError):
            PreparedRows(folder).row(number)


def test_no_rows_are_no_rows(tmp_path: Path) -> None:
    RowWriter(tmp_path).close()
    rows = PreparedRows(tmp_path)
    assert (len(rows), rows.lengths.tolist(), rows.trained.tolist()) == (0, [], [])


def test_a_file_that_was_never_closed_or_is_cut_is_a_data_error(folder: Path) -> None:
    path = folder / "train-00000.arrow"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"train-00000\.arrow cannot be read"):
        PreparedRows(folder)


def test_a_file_that_is_missing_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train-00000\.arrow cannot be read"):
        PreparedRows(tmp_path)
    writer = RowWriter(tmp_path, shard_bytes=1)
    for _ in range(3):
        writer.write(table_of(ROWS))
    writer.close()
    (tmp_path / "train-00001.arrow").unlink()
    with pytest.raises(DataError, match=r"train-00001\.arrow cannot be read"):
        PreparedRows(tmp_path)


def test_evaluation_rows_are_read_where_there_are_some(tmp_path: Path) -> None:
    assert PreparedRows.of_evaluation(tmp_path) is None
    writer = RowWriter(tmp_path, "eval")
    writer.write(table_of(ROWS))
    writer.close()
    found = PreparedRows.of_evaluation(tmp_path)
    assert found is not None and len(found) == 3


def test_the_summary_comes_back(tmp_path: Path) -> None:
    summary = Summary(
        "ab" * 32, ["messages"], 3, 0, 6, 3, 3, 107, {"overlong": 1}, 0, ["一行"], [107, 1], [1, 1], 10, True, "{{ x }}"
    )
    summary.write(tmp_path / "summary.json")
    assert Summary.read(tmp_path / "summary.json") == summary
