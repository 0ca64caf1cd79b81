"""Rows between commas or tabs: the first line names the columns, quotes hold what they like, all values are text."""

import csv
from collections.abc import Iterator

from job.errors import DataError
from job.training.compressed import text_bytes
from job.training.rows import Record, RowError, Source

FIELD_CHARS = 1 << 26  # a quote that is never closed would take in the whole file


def rows(source: Source, delimiter: str) -> Iterator[tuple[int, Record | RowError]]:
    """(line that the row begins on, row). Raises DataError.

    Bytes that are no UTF-8 come as lone surrogates, so that only the rows that hold them suffer.
    """
    csv.field_size_limit(FIELD_CHARS)
    with text_bytes(source) as file:
        lines = (line.decode("utf-8", "surrogateescape") for line in file)
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        header: list[str] | None = None
        while True:
            line = reader.line_num + 1
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if header is None:
                    raise DataError(f"{source.uri}:{line}: the header cannot be read: {_said(error)}") from error
                yield line, RowError(_said(error))
                continue
            if header is None:
                header = _header(source, line, fields) if fields else None
            elif len(fields) == len(header):
                yield line, dict(zip(header, fields, strict=True))
            elif fields:
                yield line, RowError(f"{len(fields)} fields, but the header names {len(header)}")


def _header(source: Source, line: int, fields: list[str]) -> list[str]:
    names = [name.strip() for name in fields]
    if len(names) == 1 and ";" in names[0]:
        raise DataError(f"{source.uri}:{line}: the header is one name with semicolons: save the file with commas")
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(f"{source.uri}:{line}: the header names {twice[0]!r} twice")
    return names


def _said(error: csv.Error) -> str:
    if "unexpected end of data" in str(error):
        return "a quote that is opened here is never closed"
    if "expected after" in str(error):
        return "text follows a closing quote in this cell: put the whole cell into quotes, and double those inside"
    return str(error).partition(" - ")[0]
