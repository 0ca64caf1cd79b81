"""Pieces of a row become text in which everything can be seen: white space, control characters, where a mask ends.

A character that does not show is written as one that does. A space is written `␣` only where it could be overlooked: at
the beginning or end of a line or a stretch, or beside another one.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from job.inspection import Piece

LEGEND = "␣ space  ↵ newline  ⇥ tab"
SPACE, NOTHING = "␣", "∅"
_NAMED = {"\n": "↵\n", "\t": "⇥", "\x7f": "␡"}
_JOINERS = "\u200c\u200d"  # parts of words and of emoji
_UNSEEN = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs"}
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_RIGHT_TO_LEFT = ("R", "AL")


@dataclass(frozen=True)
class Span:
    """A part of a piece. `mark`: it stands for what does not show. `odd`: every second token, for a shade of its own;
    what is written as one (an accent, the letters of a joined script) stays in one shade."""

    text: str
    piece: Piece
    mark: bool = False
    odd: bool = False


@dataclass(frozen=True)
class Stretch:
    """Spans of one line that are all trained or none, all special or none."""

    spans: list[Span]
    trained: bool
    special: bool
    right_to_left: bool  # some of it: nothing around it may move


def stretches(pieces: Sequence[Piece]) -> Iterator[Stretch]:
    open_spans: list[Span] = []
    for span in _spans(pieces):
        if open_spans and (_ends(open_spans[-1]) or _kind(open_spans[-1].piece) != _kind(span.piece)):
            yield _stretch(open_spans)
            open_spans = []
        open_spans.append(span)
    if open_spans:
        yield _stretch(open_spans)


def folded(pieces: Sequence[Piece], head: int, tail: int) -> Iterator[list[Piece] | int]:
    """Pieces to be shown, and between them how many tokens are not: the middle of what has one mask for too long."""
    shown: list[Piece] = []
    for _, alike in groupby(pieces, key=lambda piece: piece["trained"]):
        parts = list(alike)
        if len(parts) <= head + tail:
            shown += parts
            continue
        yield [*shown, *parts[:head]]
        yield sum(len(piece["ids"]) for piece in parts[head:-tail])
        shown = parts[-tail:]
    yield shown


def visible(text: str) -> str:
    """A text in one line: line breaks are only marked, and spaces are as they are."""
    return "".join(_shown(char) for char in text).replace("\n", "")


def alone(text: str) -> str:
    """A token's text in one line by itself: spaces at its ends are seen, and so is what else joins with a neighbour."""
    led = text.lstrip(" ")
    inner = led.rstrip(" ")
    shown = "".join(f"⟨U+{ord(char):04X}⟩" if char in _JOINERS else char for char in visible(inner))
    carrier = "◌" if shown and unicodedata.category(shown[0]).startswith("M") else ""
    return SPACE * (len(text) - len(led)) + carrier + shown + SPACE * (len(led) - len(inner)) or NOTHING


def has_right_to_left(text: str) -> bool:
    return any(unicodedata.bidirectional(char) in _RIGHT_TO_LEFT for char in text)


def _spans(pieces: Sequence[Piece]) -> Iterator[Span]:
    """White space counts as seen only between two characters of the same stretch."""
    kinds = [_kind(piece) for piece in pieces for _ in piece["text"]]
    text = "".join(piece["text"] for piece in pieces)
    at, odd = 0, False
    for piece in pieces:
        if at and piece["text"] and not _joined(text[at - 1], text[at]):
            odd = not odd
        parts: list[tuple[str, bool]] = []
        for char in piece["text"]:
            shown = SPACE if char == " " and _overlooked(text, kinds, at) else _shown(char)
            mark = shown != char
            if parts and parts[-1][1] == mark and not shown.endswith("\n"):
                parts[-1] = (parts[-1][0] + shown, mark)
            else:
                parts.append((shown, mark))
            at += 1
        for shown, mark in parts or [(NOTHING, True)]:
            yield Span(shown, piece, mark, odd)


def _overlooked(text: str, kinds: Sequence[tuple[bool, bool]], at: int) -> bool:
    def hides(other: int) -> bool:
        return not 0 <= other < len(text) or kinds[other] != kinds[at] or text[other].isspace()

    return hides(at - 1) or hides(at + 1)


def _joined(before: str, char: str) -> bool:
    """Whether the two are written as one, or as parts of a word whose letters join."""
    one = unicodedata.combining(char) or unicodedata.category(char).startswith("M") or ord(char) in _SKIN_TONES
    return (
        bool(one) or char in _JOINERS or before in _JOINERS or (has_right_to_left(before) and has_right_to_left(char))
    )


def _shown(char: str) -> str:
    if char in _NAMED:
        return _NAMED[char]
    if char < " ":
        return chr(0x2400 + ord(char))
    if char == " " or char in _JOINERS or unicodedata.category(char) not in _UNSEEN:
        return char
    return f"⟨U+{ord(char):04X}⟩"


def _kind(piece: Piece) -> tuple[bool, bool]:
    return piece["trained"], piece["kind"] == "special"


def _ends(span: Span) -> bool:
    return span.text.endswith("\n")


def _stretch(spans: list[Span]) -> Stretch:
    trained, special = _kind(spans[0].piece)
    return Stretch(spans, trained, special, has_right_to_left("".join(span.text for span in spans)))
