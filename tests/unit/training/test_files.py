"""The same rows come out of every type of file; what is no row says why, and what is no file names itself."""

import gzip
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from job.errors import DataError
from job.training.files import count, kind_of, records
from job.training.formats import reader_for
from job.training.rows import RowError, Source
from tests import datafiles

SCRIPTS = "naïve 微调测试 עִברית العربية हिन्दी 🙂 \u2028 \t \x85 'quoted \"text\"'\r\nsecond, line"
PAIRS = [{"prompt": f"{number}: {SCRIPTS}", "completion": text} for number, text in enumerate((SCRIPTS, "b", "c,d"))]
CHATS = [
    {"messages": [{"role": "user", "content": SCRIPTS}, {"role": "assistant", "content": f"answer {number}"}],
     "system": "s" * (number % 2)}
    for number in range(3)
]  # fmt: skip

Make = Callable[..., Source]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def made(data: bytes, name: str = "x.jsonl", **options: Any) -> Source:
        (tmp_path / name).write_bytes(data)
        return Source(f"s3://data/{name}", tmp_path / name, **options)

    return made


def found(source: Source) -> list[tuple[int, Any]]:
    listed = [(number, str(row) if isinstance(row, RowError) else row) for number, row in records(source)]
    assert count(source) == len(listed)
    return listed


def rows_of(source: Source) -> list[Any]:
    rows = [record for _, record in records(source)]
    assert all(isinstance(row, dict) for row in rows), rows
    reader = reader_for(source, rows[0])[1]  # type: ignore[arg-type]
    return [reader(row) for row in rows]  # type: ignore[arg-type]


@pytest.mark.parametrize("rows", [PAIRS, CHATS], ids=["pairs", "chats"])
@pytest.mark.parametrize("name", datafiles.TYPES)
def test_every_type_of_file_gives_the_same_rows(tmp_path: Path, make: Make, name: str, rows: Any) -> None:
    expected = rows_of(make(datafiles.jsonl(rows)))
    source = Source(name, datafiles.write(tmp_path, name, rows))
    assert rows_of(source) == expected
    assert count(source) == len(rows)


@pytest.mark.parametrize("name", [name for name in datafiles.TYPES if "splits" not in name and name != "data.json"])
def test_a_file_without_rows_has_none(tmp_path: Path, name: str) -> None:
    assert found(Source(name, datafiles.write(tmp_path, name, []))) == []


def test_numbers_are_those_of_lines_where_there_are_lines(make: Make) -> None:
    blank = b"\xef\xbb\xbf" + b'{"a": 1}\r\n\r\n  \n{"a": 2}'
    assert found(make(blank)) == [(1, {"a": 1}), (4, {"a": 2})]
    table = b'a,b\n"one\ntwo",2\n\n3,4\n'
    assert found(make(table, "x.csv")) == [(2, {"a": "one\ntwo", "b": "2"}), (5, {"a": "3", "b": "4"})]
    assert [number for number, _ in found(make(datafiles.parquet(PAIRS), "x.parquet"))] == [1, 2, 3]
    assert [number for number, _ in found(make(b'[{"a": 1},\n\n{"a": 2}]', "x.json"))] == [1, 2]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a": ', "not JSON (Expecting value, character 6)"),
        (b"[1]", "it is a list, not an object"),
        (b'{"a": "\xff"}', "not UTF-8 text (byte 7"),
        (b"[" * 200_000, "JSON that cannot be read"),
        (b'{"a": ' + b"9" * 5000 + b"}", "JSON that cannot be read"),
    ],
    ids=["cut", "list", "latin-1", "deep", "long number"],
)
def test_a_line_that_is_no_json_object_says_so_and_the_others_stand(make: Make, line: bytes, reason: str) -> None:
    before, (number, said), after = found(make(b'{"a": 1}\n' + line + b'\n{"a": 2}\n'))
    assert (before, after, number) == ((1, {"a": 1}), (3, {"a": 2}), 2)
    assert reason in said


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-be"])
@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.csv"])
def test_another_encoding_is_named(make: Make, encoding: str, name: str) -> None:
    data = f"\ufeff{'[{}]'}".encode(encoding.removesuffix("x")) if "be" in encoding else "[{}]".encode(encoding)
    with pytest.raises(DataError, match=rf"s3://data/{name} is {encoding[:6].upper()} text; save it as UTF-8"):
        found(make(data, name))


BIG = b"".join(b'{"text": "%d %s"}\n' % (number, b"x" * (number % 50)) for number in range(20_000))


@pytest.mark.parametrize("name", ["x.jsonl.gz", "x.csv.gz", "x.json.gz", "x.jsonl.zst", "x.jsonl"])
@pytest.mark.parametrize("cut", [0.01, 0.5, 0.999])
def test_a_truncated_archive_is_a_data_error_that_names_the_file(make: Make, name: str, cut: float) -> None:
    whole = datafiles.zstd(BIG) if name.endswith("zst") else gzip.compress(BIG)
    with pytest.raises(DataError, match=rf"^s3://data/{name}: (cannot be read|not JSON)"):
        found(make(whole[: int(len(whole) * cut)], name))


def test_a_damaged_archive_is_a_data_error(make: Make) -> None:
    whole = bytearray(gzip.compress(BIG))
    whole[-6] ^= 1  # its checksum
    with pytest.raises(DataError, match=r"^s3://data/x.jsonl.gz: cannot be read"):
        found(make(bytes(whole), "x.jsonl.gz"))


def test_archives_of_several_parts_are_read_whole(make: Make) -> None:
    part = b'{"text": "a"}\n'
    assert len(found(make(gzip.compress(part) * 3, "x.jsonl.gz"))) == 3
    assert len(found(make(datafiles.zstd(part) * 3, "x.jsonl.zst"))) == 3


def test_compression_is_known_whatever_the_name_says(make: Make) -> None:
    assert found(make(gzip.compress(b'{"a": 1}\n'), "x.jsonl")) == [(1, {"a": 1})]
    assert found(make(b'{"a": 1}\n', "x.jsonl.gz")) == [(1, {"a": 1})]


def test_a_name_that_belies_its_content_is_told(make: Make) -> None:
    with pytest.raises(DataError, match=r"x\.csv is parquet inside; give it the ending \.parquet"):
        found(make(datafiles.parquet(PAIRS), "x.csv"))
    with pytest.raises(DataError, match="unpack the gzip around it"):
        found(make(gzip.compress(datafiles.parquet(PAIRS)), "x.parquet"))
    with pytest.raises(DataError, match="no data file that is known; use jsonl"):
        found(make(b"\x7fELF\0\0\0\0", "x.bin"))


def test_a_file_that_is_not_there_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"s3://a: cannot be read \(No such file"):
        found(Source("s3://a", tmp_path / "nothing.jsonl"))


@pytest.mark.parametrize("name", ["a.jsonl", "list.json", "data.json", "c.csv", "p.parquet", "s.arrow", "a.jsonl.gz"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, name: str) -> None:
    def peak(rows: int) -> int:
        path = tmp_path / str(rows) / name
        path.parent.mkdir()
        path.write_bytes(datafiles.TYPES[name]([{"text": f"{number} {'x' * 200}"} for number in range(rows)]))
        source = Source(name, path)
        tracemalloc.start()
        try:
            assert sum(1 for _ in records(source)) == rows
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1)
    assert peak(40_000) < peak(8_000) + 1_000_000


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=60)
    | st.lists(st.sampled_from([b'{"text": "a"}', b"[", b"]", b"{", b"}", b",", b'"', b"\n", b"\r", b"\t", b"1", b":",
                                b'"data":', b"\xef\xbb\xbf", b"\xff", b"\xff\xfe", b"\0", b"\\ud800", b"null"]),
               max_size=12).map(b"".join),
    st.sampled_from(["x.jsonl", "x.json", "x.csv", "x.tsv", "x.jsonl.gz", "x.jsonl.zst", "x.parquet", "x.arrow", "x"]),
)  # fmt: skip
def test_any_bytes_are_rows_or_reasons(make: Make, data: bytes, name: str) -> None:
    source = make(data, name)
    try:
        listed = found(source)
    except DataError as error:
        assert str(error).startswith(source.uri) and "\n" not in str(error)
        str(error).encode()
        return
    for number, row in listed:
        assert number >= 1 and isinstance(row, dict | str)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(st.text(max_size=3), st.text(max_size=6) | st.integers(), max_size=3), max_size=6),
       st.booleans())  # fmt: skip
def test_what_json_says_is_what_is_read(make: Make, rows: list[dict[str, Any]], ascii_only: bool) -> None:
    lines = "\n".join(json.dumps(row, ensure_ascii=ascii_only) for row in rows).encode("utf-8", "surrogatepass")
    if b"\xed" in lines:  # half of a surrogate pair has no UTF-8
        return
    assert [row for _, row in found(make(lines))] == rows
    whole = json.dumps(rows, ensure_ascii=ascii_only, indent=1).encode()
    assert [row for _, row in found(make(whole, "x.json"))] == rows


def test_kinds_are_known_by_name(make: Make) -> None:
    names = {"x.JSONL": "jsonl", "x.csv.gz": "csv", "x.tsv": "tsv", "x.json.zst": "json", "x.feather": "arrow"}
    assert {name: kind_of(make(b"", name)) for name in names} == names
