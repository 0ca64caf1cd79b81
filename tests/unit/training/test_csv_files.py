"""Commas, tabs and quotes as spreadsheets and libraries write them; what is wrong is told with its line."""

from pathlib import Path
from typing import Any

import pytest

from job.errors import DataError
from job.training.csv_files import rows
from job.training.rows import RowError, Source


def read(tmp_path: Path, data: bytes, delimiter: str = ",") -> list[Any]:
    path = tmp_path / "x.csv"
    path.write_bytes(data)
    found = rows(Source("x.csv", path), delimiter)
    return [(line, str(row) if isinstance(row, RowError) else row) for line, row in found]


def test_quotes_hold_commas_newlines_and_quotes(tmp_path: Path) -> None:
    data = b'a,b\r\n"1,\r\n2","say ""hi"""\r\n3,\r\n'
    assert read(tmp_path, data) == [(2, {"a": "1,\r\n2", "b": 'say "hi"'}), (4, {"a": "3", "b": ""})]


def test_names_are_trimmed_and_values_are_not(tmp_path: Path) -> None:
    assert read(tmp_path, b"a, b\n1, 2 \n") == [(2, {"a": "1", "b": " 2 "})]


def test_tabs_part_fields_and_commas_do_not(tmp_path: Path) -> None:
    assert read(tmp_path, b'a\tb\n1,5\t"x\ty"\n', "\t") == [(2, {"a": "1,5", "b": "x\ty"})]


def test_a_wrong_number_of_fields_names_the_line_and_the_rows_after_it_stand(tmp_path: Path) -> None:
    assert read(tmp_path, b'a,b\n"1\n2",3\n4,5,6\n7\n8,9\n') == [
        (2, {"a": "1\n2", "b": "3"}),
        (4, "3 fields, but the header names 2"),
        (5, "1 fields, but the header names 2"),
        (6, {"a": "8", "b": "9"}),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (
            b'"1"x,2',
            "text follows a closing quote in this cell: put the whole cell into quotes, and double those inside",
        ),
        (b"1\r2,3", "new-line character seen in unquoted field"),
    ],
)
def test_a_line_that_cannot_be_read_says_why(tmp_path: Path, line: bytes, reason: str) -> None:
    assert read(tmp_path, b"a,b\n" + line + b"\n8,9\n") == [(2, reason), (3, {"a": "8", "b": "9"})]


def test_a_quote_that_is_never_closed_is_named_where_it_opens(tmp_path: Path) -> None:
    assert read(tmp_path, b'a,b\n1,2\n3,"4\n5,6\n') == [
        (2, {"a": "1", "b": "2"}),
        (3, "a quote that is opened here is never closed"),
    ]


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"a,b,a\n", r"x\.csv:1: the header names 'a' twice"), (b'\n"a"b\n', r"x\.csv:2: the header cannot be read")],
)
def test_a_header_that_names_no_columns_is_a_data_error(tmp_path: Path, data: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        read(tmp_path, data)


def test_bytes_that_are_no_text_stay_with_their_row(tmp_path: Path) -> None:
    (_, bad), (line, good) = read(tmp_path, b"a\n\xe9\n\xc3\xa9\n")
    assert bad["a"] == "\udce9" and (line, good) == (3, {"a": "é"})
