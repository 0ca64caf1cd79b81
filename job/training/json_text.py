"""JSON of any length, read value by value: no more of it is in memory than the value at hand."""

import codecs
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

CHUNK_BYTES = 1 << 16
VALUE_CHARS = 1 << 26  # of one value: more is no row
AHEAD_CHARS = 3  # a number may go on behind what was read: 1e+ is 1 and something else, until its 6 is there
SPACE = " \t\n\r"


class JsonText:
    """A place in a text, which only moves on. Its methods raise ValueError where the text is no JSON.

    Bytes that are no UTF-8 come as lone surrogates, so that only the rows that hold them suffer.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._text, self._at, self._over = file, "", 0, False
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._json = json.JSONDecoder()

    def peek(self) -> str:
        """The next character that is no white space; "" at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in SPACE:
                    return self._text[self._at]
                self._at += 1
            if self._over:
                return ""
            self._more()

    def take(self, wanted: str) -> None:
        found = self.peek()
        if found != wanted:
            raise ValueError(f"{wanted!r} should stand where {'the file ends' if not found else repr(found) + ' does'}")
        self._at += 1

    def value(self) -> Any:
        """The next value, whole."""
        self.peek()
        before: tuple[str, int] | None = None
        while True:
            try:
                value, end = self._json.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                same = (error.msg, error.pos - self._at)
                # Only what lies within an open string may go on for long; else a mistake stays where it is.
                if self._over or (same == before and not error.msg.startswith("Unterminated")):
                    raise ValueError(error.msg) from error
                before = same
            except RecursionError as error:
                raise ValueError("it is nested too deep") from error
            else:
                if len(self._text) - end >= AHEAD_CHARS or self._over:
                    self._at = end
                    return value
            if len(self._text) - self._at > VALUE_CHARS:
                raise ValueError(f"one value has more than {VALUE_CHARS} characters")
            self._more()

    def items(self) -> Iterator[Any]:
        """The values of the list that begins here."""
        self.take("[")
        while not self._closed("]"):
            yield self.value()
            self._between("]")

    def names(self) -> Iterator[str]:
        """The names of the object that begins here; the value of each is to be taken before the next is asked for."""
        self.take("{")
        while not self._closed("}"):
            name = self.value()
            if not isinstance(name, str):
                raise ValueError("a name in double quotes should begin here")
            self.take(":")
            yield name
            self._between("}")

    def _closed(self, end: str) -> bool:
        """Moves past the end, where it stands here."""
        found = self.peek() == end
        self._at += found
        return found

    def _between(self, end: str) -> None:
        """Moves past a comma, which has to have something behind it; stays before the end."""
        if self.peek() != end:
            self.take(",")
            if self.peek() == end:
                raise ValueError(f"{end!r} stands right behind a comma")

    def _more(self) -> None:
        """As much again as is in memory: so a long value is parsed a few times, not once a chunk."""
        rest = self._text[self._at :]
        chunk = self._file.read(max(CHUNK_BYTES, len(rest)))
        self._text, self._at = rest + self._decoder.decode(chunk, final=not chunk), 0
        self._over = not chunk
