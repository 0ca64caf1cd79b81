"""A row that is too long becomes several: each trained token a target in one of them, each answer with its question.

An answer that fits stays whole, with as many of the tokens ahead of it as fit, and with the answers behind it that do.
What stands between two parts begins the later one, from the opening of the next turn on. An answer that is longer by
itself is cut into pieces. What follows a cut begins as the row does, with BOS; without one, and where an answer goes
on, the last token before the cut stands there again to predict from. Neither is trained. Parts in which nothing is
trained are left out, and so are those that would train white space and special tokens only.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

from job.training.encode import MASKED, Encoded

MOST_ASKED = 0.75  # of a part for the question of an answer that does not fit


@dataclass(frozen=True)
class Silence:
    """Which tokens say nothing: `blank` tells white space, `special` are those that texts are made without."""

    blank: Callable[[int], bool]
    special: Collection[int]

    def holds(self, token: int) -> bool:
        return token in self.special or self.blank(token)


@dataclass(frozen=True)
class Split:
    """What became of one row. `lost`: targets that are in no part."""

    parts: list[Encoded]
    inside: int = 0  # parts that begin in the middle of an answer
    unopened: int = 0  # parts that lack the beginning of their first question
    lost: int = 0


@dataclass
class _Piece:
    """Tokens [start, end) of a row."""

    start: int
    end: int
    inside: bool = False
    unopened: bool = False


def silence_of(tokenizer: Any) -> Silence:
    special = {int(token) for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    special |= {token for token in (tokenizer.bos_token_id, tokenizer.eos_token_id) if token is not None}
    return Silence(cache(lambda token: not tokenizer.decode([token]).strip()), frozenset(special))


def split(row: Encoded, max_length: int, bos_id: int | None, silence: Silence) -> Split:
    """Rows of at most `max_length` tokens; none where that is below 2.

    A row that is trained from its first token on, as plain text is, has no questions: windows of it are no loss.
    """
    if max_length < 2:
        return Split([], lost=row.trained)
    cutter = _Cutter(row, max_length, bos_id, silence)
    pieces = [(piece, cutter.part(piece)) for piece in cutter.pieces()]
    kept = [(piece, part) for piece, part in pieces if any(map(cutter.speaks, part.labels[1:]))]
    asks = row.trained < len(row.labels) - 1
    return Split(
        [part for _, part in kept],
        sum(piece.inside for piece, _ in kept) if asks else 0,
        sum(piece.unopened for piece, _ in kept),
        row.trained - sum(part.trained for _, part in kept),
    )


class _Cutter:
    """Finds where one row is cut."""

    def __init__(self, row: Encoded, max_length: int, bos_id: int | None, silence: Silence) -> None:
        self._row, self._ids, self._max_length = row, row.input_ids, max_length
        self._beginning = self._ids[:1] if bos_id is not None and self._ids[:1] == [bos_id] else []
        self._silence = silence
        # an answer may be a special token by itself; then that is what the row says
        self._all_silent = all(label == MASKED or silence.holds(label) for label in row.labels[1:])

    def speaks(self, label: int) -> bool:
        return label != MASKED and (self._all_silent or not self._silence.holds(label))

    def pieces(self) -> list[_Piece]:
        pieces: list[_Piece] = []
        border = 0  # of the turn that leads to the answer
        for first, last in _answers(self._row.labels):
            border = self._opening(border, first)
            length = last - first + (1 if first else 0)  # with a token to predict the first from
            if pieces and len(self._context(pieces[-1].start)) + last - pieces[-1].start <= self._max_length:
                pieces[-1].end = last
            elif length <= self._max_length:
                whole = len(self._context(border)) + last - border <= self._max_length
                start = border if whole else last - self._max_length + len(self._beginning)
                pieces.append(_Piece(start, last, unopened=self._is_cut(border, start)))
            else:
                pieces += self._cut(border, first, last)
            border = last
        return pieces

    def part(self, piece: _Piece) -> Encoded:
        context = self._context(piece.start)
        labels = [MASKED] * len(context) + self._row.labels[piece.start : piece.end]
        ends = tuple(token for token in self._row.ends if token in labels)
        return Encoded(context + self._ids[piece.start : piece.end], labels, ends, self._row.shared)

    def _context(self, start: int) -> list[int]:
        if not start or self._ids[start : start + 1] == self._beginning:
            return []
        if not self._beginning and self._row.labels[start] != MASKED:
            return self._ids[start - 1 : start]
        return self._beginning

    def _opening(self, behind: int, first: int) -> int:
        """Where the next turn opens: behind the white space between the turns, and before the answer at `first`."""
        while 0 < behind < first - 1 and self._silence.blank(self._ids[behind]):
            behind += 1
        return behind

    def _is_cut(self, border: int, start: int) -> bool:
        begins = bool(self._beginning) and self._ids[border] == self._beginning[0]  # which stands there again
        return start > border + begins

    def _cut(self, border: int, first: int, last: int) -> list[_Piece]:
        """Of an answer that does not fit by itself; its question has at most MOST_ASKED of the first piece."""
        start = max(border, first - int(MOST_ASKED * self._max_length) + len(self._beginning))
        step = self._max_length - 1
        places = [*range(start + self._max_length - len(self._context(start)), last, step), last]
        before = places[-3] if len(places) > 2 else first
        if not any(map(self.speaks, self._row.labels[places[-2] : last])):
            said = [at for at in range(before, last) if self.speaks(self._row.labels[at])]
            if len(said) > 1 and last - (middle := said[len(said) // 2]) <= step:
                places[-2] = middle  # an end of turn that is left over goes with what it ends
        begun = _Piece(start, places[0], unopened=self._is_cut(border, start))
        return [begun, *(_Piece(begin, end, inside=True) for begin, end in pairwise(places))]


def _answers(labels: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The trained stretches: tokens [first, last)."""
    borders = [at for at in range(len(labels)) if (labels[at] == MASKED) != (not at or labels[at - 1] == MASKED)]
    ends = [*borders, len(labels)] if len(borders) % 2 else borders
    return zip(ends[::2], ends[1::2], strict=True)
