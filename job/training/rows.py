"""A line of a data file becomes a chat or a prompt with its completion; a line that cannot says why."""

import json
import string
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.errors import ConfigError, DataError

FORMATS = ("auto", "chat", "prompt_completion")
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "model": "assistant", "bot": "assistant"}
TURN_KEYS = ("messages", "conversation", "conversations")
ROLE_KEYS, CONTENT_KEYS = ("role", "from"), ("content", "message", "value")
BOM = b"\xef\xbb\xbf"
SHOWN_COLUMNS = 8


class RowError(Exception):
    """Why one row cannot be used, in words that make sense after `FILE:LINE: `."""


@dataclass(frozen=True)
class Chat:
    messages: list[dict[str, str]]  # role and content; roles in the names that templates use


@dataclass(frozen=True)
class Pair:
    prompt: str
    completion: str


Row = Chat | Pair
Reader = Callable[[dict[str, Any]], Row]


@dataclass(frozen=True, eq=False)  # known by identity: the same file may be given twice
class Source:
    """One local file and how its rows are meant."""

    uri: str  # as the user named it: what messages show
    path: Path
    format: str = "auto"
    columns: Mapping[str, str] | None = None
    loss: str = "auto"

    def place(self, line: int) -> str:
        return f"{self.uri}:{line}"


def lines(source: Source) -> Iterator[tuple[int, bytes]]:
    """(line number from 1, bytes) of each line that is not blank; a byte order mark and CRLF are taken off.

    Raises DataError when the file cannot be read.
    """
    try:
        with source.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if number == 1:
                    line = line.removeprefix(BOM)
                if line := line.strip():
                    yield number, line
    except OSError as error:
        raise DataError(f"{source.uri}: cannot be read ({error.strerror or error})") from error


def parse(line: bytes) -> dict[str, Any]:
    """The JSON object on one line. Raises RowError."""
    try:
        record = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise RowError(f"not UTF-8 text (byte {error.start} of the line)") from error
    except json.JSONDecodeError as error:
        raise RowError(f"not JSON ({error.msg}, character {error.pos + 1}); write one JSON object a line") from error
    except (ValueError, RecursionError) as error:
        raise RowError(f"JSON that cannot be read ({type(error).__name__})") from error
    if not isinstance(record, dict):
        raise RowError(f"it is {_kind(record)}, not an object; write one JSON object a line")
    return record


def reader_for(source: Source, record: dict[str, Any]) -> tuple[str, Reader]:
    """(name of the format, reader of its rows), from what the source says or else from the columns of `record`.

    Raises RowError when no format fits this row, ConfigError when the source asks for one that does not exist.
    """
    if source.format not in FORMATS:
        raise ConfigError(f"data.format: {source.format} is not known; one of {', '.join(FORMATS)}")
    if source.columns is not None:
        return "columns", _pair_reader(source.columns)
    asked, names = source.format, "; name its columns in data.columns" if source.format != "chat" else ""
    if asked != "prompt_completion":
        for key in TURN_KEYS:
            if key in record:
                return key, _chat_reader(key)
    if asked != "chat" and {"prompt", "completion"} <= record.keys():
        return "prompt_completion", _pair_reader({"prompt": "prompt", "completion": "completion"})
    wanted = {"chat": "no `messages`", "prompt_completion": "no `prompt` and `completion`"}
    raise RowError(f"{wanted.get(asked, 'neither `messages` nor `prompt` and `completion`')}{names} ({_has(record)})")


def _chat_reader(key: str) -> Reader:
    def read(record: dict[str, Any]) -> Chat:
        if key not in record:
            raise RowError(f"no `{key}`, which the rows before it have ({_has(record)})")
        turns = record[key]
        if not isinstance(turns, list) or not turns:
            raise RowError(f"`{key}` is {_kind(turns)}, not a list of turns")
        return Chat([_turn(turn, f"{key}[{index}]") for index, turn in enumerate(turns)])

    return read


def _turn(turn: Any, where: str) -> dict[str, str]:
    if not isinstance(turn, dict):
        raise RowError(f"{where} is {_kind(turn)}, not an object with role and content")
    role = next((turn[key] for key in ROLE_KEYS if key in turn), None)
    if not isinstance(role, str):
        raise RowError(f"{where} has no role ({_has(turn)})")
    content = next((turn[key] for key in CONTENT_KEYS if key in turn), None)
    if not isinstance(content, str):
        missing = f"{where} has no text content ({_has(turn)})"
        raise RowError(missing if content is None else f"{where}: its content is {_kind(content)}, not text")
    return {"role": ROLES.get(role.lower(), role), "content": _text(content, where)}


def _pair_reader(columns: Mapping[str, str]) -> Reader:
    """`columns` maps prompt and completion to a column each, or to a template such as `"{text} "`."""
    if set(columns) != {"prompt", "completion"}:
        raise ConfigError("data.columns: give both prompt and completion, each a column's name or a template")
    prompt, completion = _column("prompt", columns["prompt"]), _column("completion", columns["completion"])
    return lambda record: Pair(prompt(record), completion(record))


def _column(name: str, template: str) -> Callable[[dict[str, Any]], str]:
    if "{" not in template and "}" not in template:
        return lambda record: _value(record, template)
    try:
        parts = [(literal, column) for literal, column, _, _ in string.Formatter().parse(template)]
    except ValueError as error:
        raise ConfigError(f"data.columns.{name}: {error}; write {{{{ and }}}} for braces") from error
    return lambda record: "".join(
        literal + (_value(record, column) if column is not None else "") for literal, column in parts
    )


def _value(record: dict[str, Any], column: str) -> str:
    if column not in record:
        raise RowError(f"no column `{column}` ({_has(record)})")
    value = record[column]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise RowError(f"column `{column}` is {_kind(value)}, not text")
    return _text(value, f"column `{column}`")


def _text(value: str, where: str) -> str:
    try:
        value.encode("utf-8")  # JSON can spell half of a surrogate pair, which is no text
    except UnicodeEncodeError as error:
        raise RowError(f"{where} holds half of a surrogate pair at character {error.start + 1}: not text") from error
    return value


def _has(record: Mapping[str, Any]) -> str:
    names = [str(name) for name in record]
    more = f" and {len(names) - SHOWN_COLUMNS} more" if len(names) > SHOWN_COLUMNS else ""
    return f"it has: {', '.join(names[:SHOWN_COLUMNS])}{more}" if names else "it is empty"


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    if value in ([], ""):
        return "empty"
    return "null" if value is None else names.get(type(value), type(value).__name__)
