"""Ids become the pieces that a person reads: each with its exact text, a character never cut in the middle.

What a token stands for is not always text: in byte-level vocabularies a token is a run of bytes, and others spell a
character that they lack byte by byte. Such tokens are put together until their bytes are whole characters. Every other
token's text is what it adds to that of the piece before: alone, some would lose the space that they begin with.
"""

import codecs
import re
from collections.abc import Iterator, Sequence
from typing import Any

from job.inspection import Piece
from job.training.encode import MASKED

_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_LOST = "\ufffd"
_LONGEST_CHARACTER = 8  # tokens, where no bytes are known


class Pieces:
    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder
        self._added = {int(token): str(known.content) for token, known in added.items()}
        self._special = {int(token) for token, known in added.items() if known.special} | set(tokenizer.all_special_ids)
        backend = getattr(tokenizer, "backend_tokenizer", None)
        decoder = None if backend is None else backend.decoder
        byte_level = decoder is not None and b'"ByteLevel"' in decoder.__getstate__()
        self._byte_of = _byte_level_alphabet() if byte_level else None

    def of(self, ids: Sequence[int], labels: Sequence[int]) -> list[Piece]:
        """The pieces of a row, in order; every token is in one of them."""
        row = [int(token) for token in ids]
        found: list[Piece] = []
        before = at = 0
        while at < len(row):
            end, text, kind = self._next(row, before, at)
            found.append(
                {
                    "first": at,
                    "ids": row[at:end],
                    "labels": [int(label) for label in labels[at:end]],
                    "text": text,
                    "kind": kind,
                    "trained": end > 1 and int(labels[end - 1]) != MASKED,
                }
            )
            before, at = at, end
        return found

    def _next(self, row: list[int], before: int, at: int) -> Any:
        """(end, text, kind) of the piece at `at`. `before`: where the last one began."""
        token = row[at]
        if token in self._special or token in self._added:
            return at + 1, self._added.get(token) or self._raw(token), "special" if token in self._special else "text"
        if self._bytes(token) is not None:
            return self._character(row, at)
        known = self._decode(row[before:at])
        for end in range(at + 1, min(len(row), at + _LONGEST_CHARACTER) + 1):
            text = self._decode(row[before:end])
            text = text[len(known) :] if text.startswith(known) else self._decode(row[at:end])
            if _LOST not in text:
                return end, text or self._raw(token).replace("▁", " "), "text"
        return at + 1, self._raw(token), "bytes"

    def _character(self, row: list[int], at: int) -> Any:
        """Tokens until their bytes are whole characters; one alone where they never are."""
        decoder = codecs.getincrementaldecoder("utf-8")()
        text = ""
        try:
            for end, piece in self._bytes_from(row, at):
                text += decoder.decode(piece)
                if not decoder.getstate()[0]:
                    return end, text, "text"
        except UnicodeDecodeError:
            pass
        return at + 1, (self._bytes(row[at]) or b"").decode("utf-8", "backslashreplace"), "bytes"

    def _bytes_from(self, row: list[int], at: int) -> Iterator[tuple[int, bytes]]:
        for end in range(at, len(row)):
            piece = None if row[end] in self._added else self._bytes(row[end])
            if piece is None:
                return
            yield end + 1, piece

    def _bytes(self, token: int) -> bytes | None:
        """None where a token stands for text."""
        raw = self._raw(token)
        if self._byte_of is not None:
            return bytes(self._byte_of[char] for char in raw) if all(char in self._byte_of for char in raw) else None
        found = _BYTE_PIECE.fullmatch(raw)
        return bytes([int(found[1], 16)]) if found else None

    def _raw(self, token: int) -> str:
        found = self._tokenizer.convert_ids_to_tokens(token)
        return f"[{token}]" if found is None else str(found)

    def _decode(self, ids: list[int]) -> str:
        if not ids:
            return ""
        if getattr(self._tokenizer, "is_fast", False):  # without what transformers does around it, ten times as slow
            return str(self._tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=False))
        return str(self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _byte_level_alphabet() -> dict[str, int]:
    """Which byte a character of a byte-level vocabulary stands for (GPT-2's `bytes_to_unicode`): printable ones for
    themselves, the others, in order, for those from 256 on."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + place): byte for place, byte in enumerate(others)}
