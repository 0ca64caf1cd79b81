"""What stands in a row, checked and put into words: text that is text, JSON stored as text, what is missing."""

import json
import math
from collections.abc import Mapping
from typing import Any

from job.training.rows import RowError

SHOWN_COLUMNS, SHOWN_CHARS = 8, 60
_NAMES = {dict: "an object", list: "a list", str: "text", bool: "a boolean", int: "a number", float: "a number",
          bytes: "bytes"}  # fmt: skip


def text(value: str, where: str) -> str:
    """The value itself. Raises RowError where it holds what no text can: JSON can spell it, bytes can be damaged."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(value[error.start])
        # where bytes are no UTF-8, files are read with these standing for them
        what = "bytes that are not UTF-8" if 0xDC80 <= code <= 0xDCFF else "half of a surrogate pair"
        raise RowError(f"{where} holds {what} at character {error.start + 1}: not text") from error
    return value


def is_text(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def column(record: Mapping[str, Any], name: str) -> str:
    """The text of a column, a number written out. Raises RowError."""
    if name not in record:
        raise RowError(f"no column `{name}` ({has(record)})")
    value = record[name]
    if isinstance(value, float) and not math.isfinite(value):
        raise RowError(f"column `{name}` is {value}: a missing value, not text")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise RowError(f"column `{name}` is {kind(value)}, not text")
    return text(value, f"column `{name}`")


def unpacked(value: Any) -> Any:
    """A list or an object that a table without nesting holds as JSON; anything else as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def sound(value: Any, where: str) -> Any:
    """A nested value that templates may write out, all of its texts checked. Raises RowError."""
    try:
        text(json.dumps(value, ensure_ascii=False), where)
    except (TypeError, ValueError, RecursionError) as error:
        raise RowError(f"{where} holds what JSON cannot: {' '.join(str(error).split())}") from error
    return value


def is_given(record: Mapping[str, Any], name: str) -> bool:
    """Whether the column holds something: tables have every column in every row."""
    return record.get(name) not in (None, "", [])


def has(record: Mapping[str, Any]) -> str:
    names = [shown(name) for name in record]
    more = f" and {len(names) - SHOWN_COLUMNS} more" if len(names) > SHOWN_COLUMNS else ""
    return f"it has: {', '.join(names[:SHOWN_COLUMNS])}{more}" if names else "it is empty"


def shown(value: Any) -> str:
    """A value from the data as it may stand in a line of a log."""
    return " ".join(str(value).encode("utf-8", "replace").decode().split())[:SHOWN_CHARS]


def kind(value: Any) -> str:
    if isinstance(value, list | str) and not value:
        return "empty"
    return "null" if value is None else _NAMES.get(type(value), type(value).__name__)
