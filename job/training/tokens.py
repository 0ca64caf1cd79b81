"""Text becomes token ids in which it is known where each trained span begins and ends.

The ids are those of the whole text. A border lies between two tokens where the text up to it, from the last special
token on, has by itself the ids that follow that token in the whole: so a model meets a prompt, and it costs less than
to follow every character through the tokenizer. Only where that does not hold are characters followed.
"""

from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from job.training.chat import Marked
from job.training.reserved import pattern
from job.training.rows import RowError

LENGTHS_WORTH = 2.0  # tokenizing so many lengths of the text again costs as much as following its characters
SHORT, KEPT = 64, 1000  # characters, pieces: short ones come again in other rows, so the ids of the first are kept
AHEAD = ("\n", "a", ".")  # what may stand ahead of a piece that is tokenized as the middle of a text


@dataclass(frozen=True)
class Tokens:
    """`spans`: of each trained span the tokens [first, last). `shared`: a token lies across the beginning of one."""

    ids: list[int]
    spans: list[tuple[int, int]]
    shared: bool = False


@dataclass(frozen=True)
class _Border:
    """A place in a text: `piece` is what stands between it and token `at`, a special token or the text's beginning."""

    place: int
    at: int
    piece: str


class Tokenization:
    """Tokenizes marked texts with one tokenizer, many at once where the tokenizer can."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._fast = _without_additions(tokenizer) if tokenizer.is_fast else None
        self._pieces: dict[str, list[int]] = {}
        added = tokenizer.added_tokens_decoder.items()
        anchors = {token.content: int(id_) for id_, token in added if token.special and token.content.strip()}
        self._anchors, self._anchor_ids = pattern(anchors), frozenset(anchors.values())

    def tokenize(self, rows: Sequence[Marked]) -> list[Tokens | RowError]:
        """One result per row, in order, without anything ahead of the text or behind it."""
        if self._fast is None:
            return [self._without_offsets(row) for row in rows]
        whole = [encoding.ids for encoding in self._fast.encode_batch_fast(_texts(rows), add_special_tokens=False)]
        borders = [self._borders(row, ids) for row, ids in zip(rows, whole, strict=True)]
        pieces = self._of_pieces({border.piece for found in borders for border in found or ()})
        results = [
            None if found is None else _by_pieces(row, ids, found, pieces)
            for row, ids, found in zip(rows, whole, borders, strict=True)
        ]
        followed = [at for at, result in enumerate(results) if result is None]
        encodings = self._fast.encode_batch(_texts([rows[at] for at in followed]), add_special_tokens=False)
        offsets = iter([self._by_offsets(rows[at], encoding) for at, encoding in zip(followed, encodings, strict=True)])
        return [result or next(offsets) for result in results]

    def _borders(self, row: Marked, ids: list[int]) -> list[_Border] | None:
        """Of each span inside the text, or None where it is cheaper, or needed, to follow the characters."""
        places = _borders(row)
        if not places:
            return []
        starts = [found.start() for found in self._anchors.finditer(row.text)]
        tokens = [at for at, token in enumerate(ids) if token in self._anchor_ids]
        if len(starts) != len(tokens):
            return None
        found = []
        for place in places:
            number = bisect_left(starts, place) - 1
            start, at = (starts[number], tokens[number]) if number >= 0 else (0, 0)
            found.append(_Border(place, at, row.text[start:place]))
        worth = sum(len(border.piece) for border in found) <= LENGTHS_WORTH * len(row.text)
        return found if worth else None

    def _of_pieces(self, pieces: Collection[str]) -> dict[str, list[int]]:
        """The ids of each piece by itself."""
        new = [piece for piece in pieces if piece not in self._pieces]
        encodings = self._fast.encode_batch_fast(new, add_special_tokens=False)  # type: ignore[union-attr]
        found = {piece: encoding.ids for piece, encoding in zip(new, encodings, strict=True)}
        if len(self._pieces) < KEPT:
            self._pieces |= {piece: ids for piece, ids in found.items() if len(piece) <= SHORT}
        return self._pieces | found

    def ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _by_offsets(self, row: Marked, encoding: Any) -> Tokens:
        ids, starts = encoding.ids, [start for start, _ in encoding.offsets]
        found = _spans(row, ids, starts)
        # A model gets the prompt of a chat as tokens of its own, so no token of its answer began in it.
        if found.shared and row.chat and (split := self._split(row)) is not None:
            return split
        return found

    def _split(self, row: Marked) -> Tokens | None:
        """Tokenized anew at the beginning of each span; None where the tokenizer does not take a piece by itself."""
        borders = sorted({0, len(row.text), *(start for start, _ in row.spans)})
        ids: list[int] = []
        starts: list[int] = []
        for begin, end in pairwise(borders):
            piece = self._piece(row.text[begin:end], begin > 0)
            if piece is None:
                return None
            ids += piece[0]
            starts += [begin + start for start in piece[1]]
        return _spans(row, ids, starts)

    def _piece(self, text: str, in_the_middle: bool) -> tuple[list[int], list[int]] | None:
        """(ids, the character each begins at), without what tokenizers put ahead of a text."""
        for ahead in AHEAD if in_the_middle else ("",):
            encoding = self._fast.encode(ahead + text, add_special_tokens=False)  # type: ignore[union-attr]
            starts = [start for start, _ in encoding.offsets]
            first = bisect_left(starts, len(ahead))
            if first < len(starts) and starts[first] == len(ahead):
                return encoding.ids[first:], [start - len(ahead) for start in starts[first:]]
        return None

    def _without_offsets(self, row: Marked) -> Tokens | RowError:
        """The pieces between the borders must give the ids of the whole text."""
        borders = [0, *_borders(row), len(row.text)]
        ids: list[int] = []
        starts: list[int] = []
        for begin, end in pairwise(borders):
            piece = self.ids(row.text[begin:end])
            ids += piece
            starts += [begin] * len(piece)
        if ids != self.ids(row.text):
            return RowError(
                "this tokenizer gives no offsets, and a token lies across the border of a trained part, so the mask "
                "cannot be known; use a tokenizer with a tokenizer.json, or data.loss: all"
            )
        return _spans(row, ids, starts)


def _borders(row: Marked) -> list[int]:
    """Where spans begin and end inside the text."""
    return sorted({border for span in row.spans for border in span if 0 < border < len(row.text)})


def _by_pieces(row: Marked, ids: list[int], borders: list[_Border], pieces: dict[str, list[int]]) -> Tokens | None:
    """None where a piece by itself has other ids than in the whole."""
    places = {0: 0, len(row.text): len(ids)}
    for border in borders:
        piece = pieces[border.piece]
        end = border.at + len(piece)
        if ids[border.at : end] != piece:
            return None
        places[border.place] = end
    return Tokens(ids, [(places[start], places[end]) for start, end in row.spans])


def _texts(rows: Sequence[Marked]) -> list[str]:
    return [row.text for row in rows]


def _spans(row: Marked, ids: list[int], starts: list[int]) -> Tokens:
    spans: list[tuple[int, int]] = []
    shared = False
    for start, end in row.spans:
        first = bisect_left(starts, start)
        shared = shared or (starts[first] if first < len(ids) else end) > start
        spans.append((first, bisect_left(starts, end) if end < len(row.text) else len(ids)))
    return Tokens(ids, spans, shared)


def _without_additions(tokenizer: Any) -> Any:
    """A copy of the fast tokenizer that gives plain offsets: some post-processors take white space out of them."""
    from tokenizers import Tokenizer

    copy = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    copy.post_processor = None
    copy.no_truncation()
    copy.no_padding()
    return copy
