"""The rows of one data file of any type, in flat memory: each is a record, or the reason why it is none."""

import json
from collections.abc import Iterator
from typing import Any

from job.errors import DataError
from job.filetypes import SPOKEN_TYPES, TABLES, type_of
from job.training import csv_files, json_files, tables
from job.training.compressed import compression, reading, text_bytes
from job.training.rows import Record, RowError, Source

DELIMITERS = {"csv": ",", "tsv": "\t"}
START_BYTES, LINE_BYTES = 1 << 16, 1 << 26  # of one row: a whole file of rows may well be one line of any length
TABLE_MAGIC = {b"PAR1": "parquet", b"ARROW1": "arrow"}

Raw = bytes | Record | RowError  # bytes: a line of JSON that nobody has parsed yet


def records(source: Source) -> Iterator[tuple[int, Record | RowError]]:
    """(number from 1, record or why there is none): of the line, or of the row where a file has no lines.

    Raises DataError when the file as a whole cannot be read.
    """
    for number, raw in raw_records(source):
        yield number, parsed(raw)


def raw_records(source: Source) -> Iterator[tuple[int, Raw]]:
    """As `records`, but a line of JSON comes as it stands: what `parsed` makes of it may be made elsewhere."""
    kind = kind_of(source)
    if kind == "jsonl":
        yield from lines(source)
    elif kind == "json":
        shape = json_files.shape_of(source)
        if shape == json_files.VALUES and _has_lines(source):
            yield from lines(source)
        else:
            for number, value in json_files.values(source, shape):
                yield number, value if isinstance(value, dict) else _no_object(value)
    elif kind in DELIMITERS:
        yield from csv_files.rows(source, DELIMITERS[kind])
    else:
        yield from tables.rows(source, kind)


def count(source: Source) -> int:
    """How many rows `records` gives, without parsing where that can be. Raises DataError."""
    kind = kind_of(source)
    return tables.count(source, kind) if kind in TABLES.values() else sum(1 for _ in raw_records(source))


def lines(source: Source) -> Iterator[tuple[int, bytes]]:
    """(line number from 1, bytes) of each line that is not blank; a byte order mark and CRLF are taken off."""
    with text_bytes(source) as file:
        for number, line in enumerate(file, start=1):
            if line := line.strip():
                yield number, line


def parsed(raw: Raw) -> Record | RowError:
    """The record that a line of JSON holds; what is no line comes back as it is."""
    if not isinstance(raw, bytes):
        return raw
    try:
        record = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        return RowError(f"not UTF-8 text (byte {error.start} of the line)")
    except json.JSONDecodeError as error:
        return RowError(f"not JSON ({error.msg}, character {error.pos + 1}); write one JSON object a line")
    except (ValueError, RecursionError) as error:
        return RowError(f"JSON that cannot be read ({type(error).__name__})")
    return record if isinstance(record, dict) else _no_object(record)


def kind_of(source: Source) -> str:
    """jsonl, json, csv, tsv, parquet or arrow: by name, and by content where that says nothing. Raises DataError."""
    with reading(source):
        packed = compression(source.path)
        with source.path.open("rb") as file:
            start = file.read(len(b"ARROW1"))
    table = next((kind for magic, kind in TABLE_MAGIC.items() if start.startswith(magic)), None)
    named = type_of(source.path.name) or table or "json"
    if table and named != table:
        raise DataError(f"{source.uri} is {table} inside; give it the ending .{table}")
    if named in TABLES.values() and packed:
        raise DataError(f"{source.uri}: {named} compresses its own columns; unpack the {packed} around it")
    if named == "json" and type_of(source.path.name) is None and b"\0" in start:
        raise DataError(f"{source.uri} is no data file that is known; use {SPOKEN_TYPES}")
    return named


def _has_lines(source: Source) -> bool:
    """Whether the .json file holds JSON lines: an object that ends with its line, and something behind it."""
    with text_bytes(source) as file:
        first = file.readline(START_BYTES)
        while first.isspace():
            first = file.readline(START_BYTES)
        if not first.lstrip().startswith(b"{"):
            return False
        first = first if first.endswith(b"\n") else first + file.readline(LINE_BYTES)
        if not first.rstrip(b"\r\n\t ").endswith(b"}") or not isinstance(parsed(first), dict):
            return False
        return any(not line.isspace() for line in iter(lambda: file.readline(START_BYTES), b""))


def _no_object(value: Any) -> RowError:
    names = {list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return RowError(f"it is {names.get(type(value), 'null')}, not an object; write one JSON object a line")
