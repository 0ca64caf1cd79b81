"""The kinds of rows that data hold, whatever file and format they come from, and the file they come from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class RowError(Exception):
    """Why one row cannot be used, in words that make sense after `FILE:LINE: `."""


@dataclass(frozen=True)
class Chat:
    """A conversation as chat templates take it: role, content, and where there are some tool_calls, name and so on.

    `tools`: what the model is told it may call. `trained`: which messages the data allow to be trained; None where they
    don't say.
    """

    messages: list[dict[str, Any]]
    tools: list[Any] | None = None
    trained: tuple[bool, ...] | None = None


@dataclass(frozen=True)
class Pair:
    prompt: str
    completion: str


@dataclass(frozen=True)
class Text:
    """Plain text: all of it is trained."""

    text: str


@dataclass(frozen=True)
class Instruction:
    """An instruction with its answer: a chat for a tokenizer with a chat template, else prompt and completion."""

    chat: Chat
    pair: Pair


Row = Chat | Pair | Text
Record = dict[str, Any]
Reader = Callable[[Record], Row | Instruction]


@dataclass(frozen=True, eq=False)  # known by identity: the same file may be given twice
class Source:
    """One local file and how its rows are meant."""

    uri: str  # as the user named it: what messages show
    path: Path
    format: str = "auto"
    columns: Mapping[str, str] | None = None
    loss: str = "auto"
    weight: float = 1.0  # its rows stand so often in an epoch
    split: str | None = None  # to be chosen inside the file
    part: int = 0  # files that one entry of data.train named belong together

    def place(self, number: int) -> str:
        """`number`: of the line, or of the row in a file without lines; from 1."""
        return f"{self.uri}:{number}"
