"""Marked text becomes token ids and labels: a token is trained only if it begins inside a trained span."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from job.training.chat import Marked
from job.training.rows import RowError
from job.training.tokens import Tokenization, Tokens

MASKED = -100  # the label that cross entropy leaves out
SHOWN_TOKENS = 6


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
        self._tokenization = Tokenization(tokenizer)
        self.bos_id: int | None = tokenizer.bos_token_id
        self.eos_id: int | None = tokenizer.eos_token_id
        added = tokenizer.added_tokens_decoder
        self._special = {int(token) for token, added_token in added.items() if added_token.special}
        self._between_texts = (self.eos_id, tokenizer.sep_token_id)
        self._special |= {token for token in (self.bos_id, self.eos_id) if token is not None}
        self._blank: dict[int, bool] = {}
        self._beginning = self._own_beginning()

    def encode(self, rows: Sequence[Marked]) -> list[Encoded | RowError]:
        """One result per row, in order; a row that this tokenizer cannot mark is a RowError."""
        tokenized = self._tokenization.tokenize(rows)
        return [
            tokens if isinstance(tokens, RowError) else self._label(row, tokens)
            for row, tokens in zip(rows, tokenized, strict=True)
        ]

    def _label(self, row: Marked, tokens: Tokens) -> Encoded | RowError:
        if not row.chat:
            tokens = self._framed(row, tokens)
        ids = tokens.ids
        labels = [MASKED] * len(ids)
        ends: list[int] = []
        for first, last in tokens.spans:
            closing = self._closing(ids, first, last)
            if closing and last < len(ids):  # what a template puts between turns is never the model's to write
                last = closing[-1] + 1
            labels[first:last] = ids[first:last]
            ends += [ids[at] for at in closing]
        if doubled := self._doubled_bos(ids, row.chat):
            return doubled
        return Encoded(ids, labels, tuple(dict.fromkeys(ends)), tokens.shared)

    def _doubled_bos(self, ids: list[int], chat: bool) -> RowError | None:
        """Where BOS stands and no text begins. Of chats the template alone writes it: before each turn, if it likes."""
        bos = self.bos_id
        if bos is None or bos in self._between_texts or bos not in ids:
            return None
        if ids[:2] == [bos] * 2:
            return RowError(
                "BOS stands twice at its beginning: chat template and text both write it; take it out of one"
            )
        begun = max(len(self._beginning), 1)
        if chat or bos not in ids[begun:]:
            return None
        at = ids.index(bos, begun)
        before = self._tokenizer.decode(ids[max(0, at - SHOWN_TOKENS) : at])
        return RowError(
            f"BOS stands in the middle of it (token {at + 1} of {len(ids)}, behind {before!r}); "
            f"take {self._tokenizer.bos_token} out of the text, which begins once"
        )

    def _framed(self, row: Marked, tokens: Tokens) -> Tokens:
        """With the tokenizer's own beginning, unless the text wrote it itself, and EOS where it is asked for."""
        beginning = [] if tokens.ids[: len(self._beginning)] == self._beginning else self._beginning
        ending = [self.eos_id] if row.eos and self.eos_id is not None else []
        spans = []
        for (start, end), (first, last) in zip(row.spans, tokens.spans, strict=True):
            # Ahead of the text stands what no span holds, unless the whole row is trained.
            begin = 0 if start == 0 else first + len(beginning)
            spans.append((begin, last + len(beginning) + (len(ending) if end == len(row.text) else 0)))
        return Tokens([*beginning, *tokens.ids, *ending], spans, tokens.shared)

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
        plain, whole = self._tokenization.ids("a"), list(self._tokenizer("a")["input_ids"])
        for at in range(len(whole) - len(plain) + 1):
            if plain and whole[at : at + len(plain)] == plain:
                return whole[:at]
        return []
