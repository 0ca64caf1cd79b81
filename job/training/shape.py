"""What a template writes around every answer, learnt from a chat of our own, and the answers found by it in a row's.

A row is not taken to look like the chat of our own: each answer must stand, as the data give it, right between what
opens and what closes a turn, and openings must be as many as answers. All that is left to the comparison of strings.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from job.training.probe import Probe
from job.training.rendering import PLAIN_KEYS, Message, Span
from job.training.reserved import pattern


@dataclass(frozen=True)
class Shape:
    """`opener`: the end of the generation prompt, there once for each answer. `leads`: what may stand between it and
    the answer, such as an empty thinking block. `closer`: what ends each turn; `tail`: what stands behind the last.

    `structure`: the tokens, and what looks like some, outside the text of answers. `unlike`: what the generation prompt
    goes on with and no rendered answer begins with.
    """

    opener: str
    leads: tuple[str, ...]
    closer: str
    tail: str
    structure: frozenset[str]
    unlike: str = ""

    @property
    def opener_is_reserved(self) -> bool:
        return any(token in self.opener for token in self.structure)

    @property
    def closer_is_reserved(self) -> bool:
        return any(token in self.closer for token in self.structure)

    def find(self, text: str, messages: Sequence[Message]) -> list[Span] | None:
        """Where each answer with its end stands in the rendered `text`, or None where that is not certain."""
        guarded = self.opener_is_reserved
        spans = []
        at = 0
        for index, message in enumerate(messages):
            if not guarded and self.opener in str(message.get("content")):
                return None
            if message["role"] != "assistant":
                continue
            opened = text.find(self.opener, at)
            if opened < 0 or message.keys() != PLAIN_KEYS or not isinstance(message["content"], str):
                return None
            start = opened + len(self.opener)
            end = self._end(text, start, message["content"], index == len(messages) - 1)
            if end is None:
                return None
            spans.append((start, end))
            at = end
        return spans if text.find(self.opener, at) < 0 else None

    def _end(self, text: str, start: int, answer: str, is_last: bool) -> int | None:
        for written in _as_written(answer):
            for lead in self.leads:
                end = start + len(lead) + len(written)
                if not text.startswith(lead + written, start):
                    continue
                if is_last and text[end:] == self.tail:
                    return len(text)
                if not is_last and text.startswith(self.closer, end):
                    return end + len(self.closer)
        return None


def _as_written(answer: str) -> tuple[str, ...]:
    """As the data give it and as templates trim it."""
    trimmed = answer.strip()
    return (answer,) if len(trimmed) == len(answer) else (answer, trimmed, answer.lstrip(), answer.rstrip())


def learn(probe: Probe, tokens: Sequence[str]) -> Shape | None:
    """The shape of a template's answers, or None where it shows none. `tokens`: all that may build a turn."""
    _, before, middle, before_last, tail = probe.parts
    prompt, text = probe.prompt, probe.text
    known = pattern([*tokens, *probe.control_words])
    opening = _whole_tokens(_shared(prompt, before), prompt, known)
    opener = _opener(opening, (before, before_last), text, known)
    closer = _whole_tokens(_shared(middle, tail), middle, known)
    if ends := list(known.finditer(closer)):
        closer = closer[: ends[-1].end()]
    if opener is None or not closer:
        return None
    leads = tuple(dict.fromkeys(part.partition(opener)[2] for part in (before_last, before)))
    written = {*known.findall(text), *probe.control_words}
    written -= {token for lead in leads for token in known.findall(lead)}
    unlike = prompt[len(opening) :]
    return Shape(opener, leads, closer, tail, frozenset(written), unlike)


def structure(probe: Probe, tokens: Sequence[str]) -> frozenset[str]:
    """What surely builds turns where a template has no shape: what stands behind answers, and no part of them."""
    known = pattern([*tokens, *probe.control_words])
    return frozenset(known.findall(probe.closing) + known.findall(probe.parts[-1]))


def _shared(one: str, other: str) -> str:
    """What both begin with."""
    length = next((at for at, (left, right) in enumerate(zip(one, other, strict=False)) if left != right), None)
    return one[: min(len(one), len(other)) if length is None else length]


def _whole_tokens(start: str, text: str, known: re.Pattern[str]) -> str:
    """`start` of `text`, without the beginning of a token that it would cut."""
    for found in known.finditer(text):
        if found.start() < len(start) < found.end():
            return start[: found.start()]
    return start


def _opener(opening: str, before: Sequence[str], text: str, known: re.Pattern[str]) -> str | None:
    """The shortest end of the generation prompt that stands once before each answer and nowhere else.

    Shortest, because what stands further ahead closes the turn before it, and that may be the user's or a tool's.
    """
    begins = [found.start() for found in known.finditer(opening)]
    for begin in [*reversed(begins), 0]:
        opener = opening[begin:]
        if opener.strip() and text.count(opener) == len(before) and all(opener in part for part in before):
            return opener
    return None
