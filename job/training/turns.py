"""Where the answers of a chat stand in its rendered text: by three proofs, the cheapest first, or not at all.

1. By shape: every answer stands word for word between what opens and what closes a turn (shape.py).
2. By marks: the chat is rendered once more with a mark behind the content of each message. Without the marks it must be
   the same text, so the marks show where the template put each message. Between two of them a turn must open once; or
   else what the prompt before an answer, and the chat up to it, have behind the mark of the message before must stand
   there in the whole. This holds for tool calls, for thinking left out of earlier turns, for system prompts that move.
3. By prefix: the rendering of the prompt before an answer, and of the chat up to and with it, must both be prefixes of
   the whole. What lies between is the answer.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from job.training.marks import Marks, mark
from job.training.rendering import Message, Renderer, Span
from job.training.rows import RowError
from job.training.shape import Shape


class Turns:
    """Finds answers in the chats of one template. `shape`: None where it shows none; then prefixes alone are left.

    `eos`: where it stands right behind an answer it is the answer's end, even if it begins the user's turn.
    """

    def __init__(self, renderer: Renderer, shape: Shape | None, eos: str | None) -> None:
        self._renderer, self._shape, self._eos = renderer, shape, eos

    def find(self, text: str, messages: Sequence[Message], tools: Any, wanted: Sequence[int]) -> list[Span]:
        """The span of each wanted answer (places in `messages`) with its end, in the chat's rendered `text`.

        Raises RowError where one cannot be proven.
        """
        if self._shape is not None and (all_spans := self._shape.find(text, messages)) is not None:
            answers = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
            by_place = dict(zip(answers, all_spans, strict=True))
            return [by_place[place] for place in wanted]
        marks = mark(self._renderer, text, messages, tools)
        spans: list[Span] = []
        for place in wanted:
            span = marks and (self._between_marks(text, marks, place) or self._behind_mark(text, marks, place))
            spans.append(span or self._by_prefix(text, messages, tools, place))
        if any(before[1] > after[0] for before, after in pairwise(spans)):
            raise _unproven(wanted[-1], len(messages))
        return spans

    def _between_marks(self, text: str, marks: Marks, place: int) -> Span | None:
        shape = self._shape
        if shape is None or not shape.closer_is_reserved:
            return None
        begin, content_end, limit = marks.around(place, len(text))
        within = text[begin : limit if content_end is None else content_end]
        if begin > limit or within.count(shape.opener) != 1:
            return None
        start = begin + within.index(shape.opener) + len(shape.opener)
        if place == len(marks.messages) - 1:
            return start, len(text)
        closed = text.find(shape.closer, start if content_end is None else content_end, limit)
        if closed < 0 or shape.opener in text[start:closed]:
            return None
        return start, closed + len(shape.closer)

    def _behind_mark(self, text: str, marks: Marks, place: int) -> Span | None:
        """As a prefix, but only from the mark of the message before on: what moves stands ahead of that."""
        begin = marks.ends.get(place - 1)
        if begin is None:
            return None
        prompt = marks.behind(place - 1, place, add_generation_prompt=True)
        upto = marks.behind(place - 1, place + 1)
        if prompt is None or upto is None or not (upto.startswith(prompt) and text.startswith(prompt, begin)):
            return None
        if place == len(marks.messages) - 1:
            return begin + len(prompt), len(text)
        return self._with_eos(text, begin + len(prompt), begin + len(upto)) if text.startswith(upto, begin) else None

    def _by_prefix(self, text: str, messages: Sequence[Message], tools: Any, place: int) -> Span:
        try:
            prompt = self._renderer.render(messages[:place], tools, add_generation_prompt=True)
            is_last = place == len(messages) - 1
            upto = text if is_last else self._renderer.render(messages[: place + 1], tools)
        except RowError as error:
            raise _unproven(place, len(messages)) from error
        if not (upto.startswith(prompt) and text.startswith(upto)):
            raise _unproven(place, len(messages))
        return self._with_eos(text, len(prompt), len(upto))

    def _with_eos(self, text: str, start: int, end: int) -> Span:
        if self._eos and text.startswith(self._eos, end) and not text[start:end].rstrip().endswith(self._eos):
            end += len(self._eos)
        return start, end


def _unproven(place: int, messages: int) -> RowError:
    advice = "another" if place == messages - 1 else "data.loss: last, or another"
    return RowError(
        f"the chat template renders turn {place + 1} in a way that does not show where it begins and ends (not as a "
        f"prefix, nor between marks), so the mask cannot be known; set {advice} model.chat_template"
    )
