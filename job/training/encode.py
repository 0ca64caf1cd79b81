"""Marked text becomes token ids and labels: a token is trained only if it begins inside a trained span."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from job.training.chat import Marked
from job.training.rows import RowError

MASKED = -100  # the label that cross entropy leaves out


@dataclass(frozen=True)
class Encoded:
    """One row. `labels` are the ids where trained, else -100, not shifted.

    `ends`: the special tokens, in order, that close an assistant turn among the trained tokens.
    `shared`: a token lies across the beginning of a trained span, and so is not trained.
    """

    input_ids: list[int]
    labels: list[int]
    ends: tuple[int, ...]
    shared: bool = False

    @property
    def trained(self) -> int:
        """Tokens that are targets: the first token of a row is never predicted."""
        return len(self.labels) - 1 - self.labels[1:].count(MASKED) if self.labels else 0

    def cut(self, max_length: int) -> "Encoded":
        labels = self.labels[:max_length]
        ends = tuple(end for end in self.ends if end in labels)
        return Encoded(self.input_ids[:max_length], labels, ends, self.shared)


class Encoder:
    """Encodes marked texts with one tokenizer, many at once where the tokenizer can."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.bos_id: int | None = tokenizer.bos_token_id
        self.eos_id: int | None = tokenizer.eos_token_id
        added = tokenizer.added_tokens_decoder
        self._special = {int(token) for token, added_token in added.items() if added_token.special}
        self._special |= {token for token in (self.bos_id, self.eos_id) if token is not None}
        self._fast = _without_additions(tokenizer) if tokenizer.is_fast else None
        self._blank: dict[int, bool] = {}
        self._beginning = self._own_beginning()

    def encode(self, rows: Sequence[Marked]) -> list[Encoded | RowError]:
        """One result per row, in order; a row that this tokenizer cannot mark is a RowError."""
        results: list[Encoded | RowError] = []
        for row, tokens in zip(rows, self._tokens(rows), strict=True):
            results.append(tokens if isinstance(tokens, RowError) else self._label(row, *tokens))
        return results

    def _tokens(self, rows: Sequence[Marked]) -> list[tuple[list[int], list[int]] | RowError]:
        """Per row (ids, the character each token begins at)."""
        if self._fast is None:
            return [self._slow_tokens(row) for row in rows]
        encodings = self._fast.encode_batch([row.text for row in rows], add_special_tokens=False)
        return [(encoding.ids, [start for start, _ in encoding.offsets]) for encoding in encodings]

    def _slow_tokens(self, row: Marked) -> tuple[list[int], list[int]] | RowError:
        """Without offsets: the pieces between the boundaries must give the ids of the whole text."""
        borders = sorted({0, len(row.text), *(border for span in row.spans for border in span)})
        ids: list[int] = []
        starts: list[int] = []
        for start, end in pairwise(borders):
            piece = self._ids(row.text[start:end])
            ids += piece
            starts += [start] * len(piece)
        if ids != self._ids(row.text):
            return RowError(
                "this tokenizer gives no offsets, and a token lies across the border of a trained part, so the mask "
                "cannot be known; use a tokenizer with a tokenizer.json, or data.loss: all"
            )
        return ids, starts

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _label(self, row: Marked, ids: list[int], starts: list[int]) -> Encoded | RowError:
        if not row.chat:
            ids, starts = self._framed(row, ids, starts)
        labels = [MASKED] * len(ids)
        ends: list[int] = []
        shared = False
        for number, (start, end) in enumerate(row.spans):
            first = bisect_left(starts, start)
            last = bisect_left(starts, end) if end < len(row.text) else len(ids)
            shared = shared or (starts[first] if first < len(ids) else end) > start
            closing = self._closing(ids, first, last)
            if closing and number < len(row.spans) - 1:
                last = closing[-1] + 1
            labels[first:last] = ids[first:last]
            ends += [ids[at] for at in closing]
        if self.bos_id is not None and self.bos_id != self.eos_id and ids[:2] == [self.bos_id] * 2:
            return RowError(
                "BOS stands twice at its beginning: chat template and text both write it; take it out of one"
            )
        return Encoded(ids, labels, tuple(dict.fromkeys(ends)), shared)

    def _framed(self, row: Marked, ids: list[int], starts: list[int]) -> tuple[list[int], list[int]]:
        """With the tokenizer's own beginning, unless the text wrote it itself, and EOS where it is asked for."""
        beginning = [] if ids[: len(self._beginning)] == self._beginning else self._beginning
        ending = [self.eos_id] if row.eos and self.eos_id is not None else []
        # Ahead of the text stands what no span holds, unless the whole row is trained.
        before = 0 if row.spans[0][0] == 0 else -1
        return (
            [*beginning, *ids, *ending],
            [*([before] * len(beginning)), *starts, *([len(row.text)] * len(ending))],
        )

    def _closing(self, ids: list[int], first: int, last: int) -> list[int]:
        """Positions of the special tokens that end a trained span, with or without white space behind them."""
        found: list[int] = []
        for at in range(last - 1, first - 1, -1):
            if ids[at] in self._special:
                found.append(at)
            elif not self._is_blank(ids[at]):
                break
        return found[::-1]

    def _is_blank(self, token: int) -> bool:
        """Whether the token is white space only."""
        if token not in self._blank:
            self._blank[token] = not self._tokenizer.decode([token]).strip()
        return self._blank[token]

    def _own_beginning(self) -> list[int]:
        """What the tokenizer puts before plain text (BOS, for most that have one)."""
        plain, whole = self._ids("a"), list(self._tokenizer("a")["input_ids"])
        for at in range(len(whole) - len(plain) + 1):
            if plain and whole[at : at + len(plain)] == plain:
                return whole[:at]
        return []


def _without_additions(tokenizer: Any) -> Any:
    """A copy of the fast tokenizer that gives plain offsets: some post-processors take white space out of them."""
    from tokenizers import Tokenizer

    copy = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    copy.post_processor = None
    copy.no_truncation()
    copy.no_padding()
    return copy
