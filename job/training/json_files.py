"""A .json file holds a list of rows, an object with lists of rows by name, or JSON lines: its content says which."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from job.errors import DataError
from job.filetypes import DEFAULT_SPLIT, canonical_split
from job.training.compressed import text_bytes
from job.training.json_text import JsonText
from job.training.rows import Source

LIST, VALUES = "[]", "{}{}"  # shapes of a file, beside the name of the list that holds its rows
LIST_NAMES = ("data", "rows", DEFAULT_SPLIT)
COLUMNS = frozenset(("messages", "conversation", "conversations", "prompt", "completion", "tools"))  # a row's own lists


def values(source: Source, shape: str) -> Iterator[tuple[int, Any]]:
    """(number from 1, row as JSON gives it) of a file of this shape. Raises DataError where it is no JSON."""
    number = 0
    with text_bytes(source) as file, _named(source) as place:
        text = JsonText(file)
        for value in _values(text, shape):
            number += 1
            place[0] = number
            yield number, value


def shape_of(source: Source) -> str:
    """LIST, VALUES, or the name of the list that holds the rows. Raises DataError."""
    with text_bytes(source) as file, _named(source):
        text = JsonText(file)
        start = text.peek()
        lists = _lists(text) if start == "{" else []
        several = start == "{" and text.peek() != ""
    if several or start != "{" or COLUMNS.intersection(lists) or not lists:
        if source.split is not None:
            raise DataError(f"{source.uri} has no splits, so no {source.split}; leave split out")
        return LIST if start == "[" else VALUES
    if source.split is not None:
        wanted = canonical_split(source.split)
        found = [name for name in lists if name == source.split or canonical_split(name) == wanted]
    else:
        found = [name for name in LIST_NAMES if name in lists] or (lists if len(lists) == 1 else [])
    if not found:
        asked = "several lists; choose one with split" if source.split is None else f"no split {source.split}"
        raise DataError(f"{source.uri} has {asked} (it has: {', '.join(lists)})")
    return found[0]


def _lists(text: JsonText) -> list[str]:
    """The names in an object whose values are lists of objects."""
    found = []
    for name in text.names():
        if text.peek() == "[":
            kinds = {type(item) for item in text.items()}
            found += [name] if kinds == {dict} else []
        else:
            text.value()
    return found


def _values(text: JsonText, shape: str) -> Iterator[Any]:
    if shape == LIST:
        yield from text.items()
    elif shape != VALUES:
        for name in text.names():
            if name == shape:
                yield from text.items()
                return
            if text.peek() == "[":
                for _ in text.items():
                    pass
            else:
                text.value()
    if shape == LIST and text.peek():
        raise ValueError("something stands behind the list")
    while shape == VALUES and text.peek():
        yield text.value()


@contextmanager
def _named(source: Source) -> Iterator[list[int]]:
    """A text that is no JSON is a DataError that names the last row before it, which the caller keeps in the list."""
    place = [0]
    try:
        yield place
    except ValueError as error:
        raise DataError(f"{source.uri}: not JSON after row {place[0]}: {error}") from error
