"""What is written batch by batch is read back row by row."""

from pathlib import Path

import numpy as np
import pytest

from job.errors import DataError
from job.training.dataset import PreparedRows, RowWriter, Summary
from job.training.encode import Encoded

ROWS = [
    (Encoded([1, 2, 3], [-100, 2, 3], ()), "chat-1.jsonl:1"),
    (Encoded([4], [4], ()), "chat-1.jsonl:2"),
    (Encoded([5, 6], [5, 6], ()), "资料.jsonl:7"),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    writer = RowWriter(tmp_path / "train.arrow")
    writer.write(ROWS[:2])
    writer.write([])
    writer.write(ROWS[2:])
    writer.close()
    return tmp_path / "train.arrow"


def test_rows_come_back_with_their_sources_from_several_batches(path: Path) -> None:
    rows = PreparedRows(path)
    assert len(rows) == 3
    for number, (row, source) in enumerate(ROWS):
        ids, labels = rows.row(number)
        assert (ids.tolist(), labels.tolist(), rows.source(number)) == (row.input_ids, row.labels, source)
        assert ids.dtype == labels.dtype == np.int32


def test_trained_tokens_are_counted_after_the_shift(path: Path) -> None:
    rows = PreparedRows(path)
    assert rows.lengths.tolist() == [3, 1, 2]
    assert rows.trained.tolist() == [2, 0, 1]  # the first token of a row is never a target


def test_a_row_cannot_be_changed(path: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        PreparedRows(path).row(0)[0][:] = 9


def test_a_row_that_is_not_there_is_an_index_error(path: Path) -> None:
    for number in (3, -1):
        with pytest.raises(IndexError):
            PreparedRows(path).row(number)


def test_no_rows_are_no_rows(tmp_path: Path) -> None:
    RowWriter(tmp_path / "empty.arrow").close()
    rows = PreparedRows(tmp_path / "empty.arrow")
    assert (len(rows), rows.lengths.tolist(), rows.trained.tolist()) == (0, [], [])


def test_a_file_that_was_never_closed_or_is_cut_is_a_data_error(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"train\.arrow cannot be read"):
        PreparedRows(path)
    with pytest.raises(DataError, match="cannot be read"):
        PreparedRows(path.with_name("missing.arrow"))


def test_the_summary_comes_back(tmp_path: Path) -> None:
    summary = Summary(
        "ab" * 32, ["messages"], 3, 0, 6, 3, 3, 107, {"overlong": 1}, 0, ["一行"], [107, 1], [1, 1], 10, True, "{{ x }}"
    )
    summary.write(tmp_path / "summary.json")
    assert Summary.read(tmp_path / "summary.json") == summary
