"""Parquet and Arrow give the rows that were put in, a bounded piece at a time; damaged ones name themselves."""

import io
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from job.errors import DataError
from job.training.rows import RowError, Source
from job.training.tables import count, rows
from tests import datafiles

ROWS = [{"text": f"row {number}"} for number in range(2500)]


def read(tmp_path: Path, data: bytes, kind: str) -> list[Any]:
    path = tmp_path / f"x.{kind}"
    path.write_bytes(data)
    source = Source(f"s3://data/x.{kind}", path)
    found = list(rows(source, kind))
    assert [number for number, _ in found] == list(range(1, len(found) + 1))
    assert count(source, kind) == len(found)
    return [row for _, row in found]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (datafiles.parquet(ROWS, row_group_size=700), "parquet"),
        (datafiles.arrow(ROWS, max_chunksize=300), "arrow"),
        (datafiles.arrow(ROWS, stream=True), "arrow"),
        (datafiles.feather(ROWS), "arrow"),
    ],
    ids=["parquet", "file", "stream", "feather"],
)
def test_rows_come_in_order_over_groups_and_batches(tmp_path: Path, data: bytes, kind: str) -> None:
    assert read(tmp_path, data, kind) == ROWS


def test_what_a_struct_has_only_because_another_row_has_it_is_not_there(tmp_path: Path) -> None:
    nested = [{"a": {"x": 1}, "b": None, "c": [{"p": 1}]}, {"a": {"y": [None, "z"]}, "b": "t", "c": [{"q": {}}]}]
    found = read(tmp_path, datafiles.parquet([nested[0], {**nested[1], "c": []}]), "parquet")
    assert found == [nested[0], {**nested[1], "c": []}]


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
@pytest.mark.parametrize("cut", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_table_is_a_data_error_that_names_the_file(tmp_path: Path, kind: str, cut: float) -> None:
    whole = (datafiles.parquet if kind == "parquet" else datafiles.arrow)(ROWS)
    data = whole[: int(len(whole) * cut)]
    if kind == "arrow" and not data:
        return
    with pytest.raises(DataError, match=rf"^s3://data/x.{kind}: cannot be read"):
        read(tmp_path, data, kind)


@pytest.mark.parametrize("name", ["p.parquet", "f.arrow", "s.arrow", "f.feather"])
def test_flipped_bytes_are_rows_or_a_data_error(tmp_path: Path, name: str) -> None:
    whole = datafiles.TYPES[name]([{"text": f"row {at}", "c": [{"d": at, "é": None}]} for at in range(30)])
    kind = "parquet" if name.endswith("parquet") else "arrow"
    choose = random.Random(7)
    for _ in range(200):
        damaged = bytearray(whole)
        for _ in range(choose.randint(1, 4)):
            damaged[choose.randrange(len(damaged))] = choose.randrange(256)
        (tmp_path / "x").write_bytes(damaged)
        source = Source("s3://data/x", tmp_path / "x")
        try:
            assert all(isinstance(row, dict | RowError) for _, row in rows(source, kind))
        except DataError as error:
            assert str(error).startswith("s3://data/x") and "\n" not in str(error)


def test_wrong_offsets_are_found_before_they_are_followed(tmp_path: Path) -> None:
    whole = bytearray(datafiles.arrow([{"text": "abcdefgh"}] * 4))
    offsets = b"".join(number.to_bytes(4, "little") for number in (0, 8, 16, 24, 32))
    at = whole.index(offsets)
    whole[at + 8 : at + 12] = (1 << 30).to_bytes(4, "little")
    with pytest.raises(DataError, match=r"x\.arrow: cannot be read"):
        read(tmp_path, bytes(whole), "arrow")


def test_text_that_is_no_utf8_stays_with_its_row(tmp_path: Path) -> None:
    array = pa.Array.from_buffers(pa.string(), 2, pa.array([b"\xff", b"ok"], pa.binary()).buffers())
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": array}), sink)
    bad, good = read(tmp_path, sink.getvalue(), "parquet")
    assert isinstance(bad, RowError) and str(bad) == "column `text` is not UTF-8 text"
    assert good == {"text": "ok"}


def test_an_older_feather_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Feather of version 1; write it anew"):
        read(tmp_path, b"FEA1" + b"\0" * 20, "arrow")


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    sink = io.BytesIO()
    table = pa.table([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(DataError, match="two columns of the name 'text'"):
        read(tmp_path, sink.getvalue(), "arrow")
