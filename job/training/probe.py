"""What a template writes around questions and answers, seen in a chat of our own."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from job.training.rendering import Message, Renderer
from job.training.rows import RowError

ASKED, ANSWERED, ASKED_AGAIN, ANSWERED_AGAIN = WORDS = ("qzxa", "azxb", "qzxc", "azxd")
TOLD = "szxe"
# What looks like a token though the tokenizer may not know it: <|im_end|>, <turn|>, </s>, <<SYS>>, [INST].
_CONTROL = re.compile(r"<[|｜/]?\w[\w.▁-]{0,40}[|｜]?>|<</?[A-Z]+>>|\[/?[A-Z][A-Z_]*\]")


@dataclass(frozen=True)
class Probe:
    """`text`: the chat rendered. `parts`: what stands in it before, between and behind `WORDS`. `prompt`: what stands
    behind a question where an answer is asked for; `unasked`: where none is. `head`: what stands before a question
    where a system prompt does, or else before the first one.
    """

    text: str
    parts: tuple[str, ...]
    prompt: str
    unasked: str
    head: str

    @property
    def closing(self) -> str:
        """What stands between an answer and the next question."""
        return self.parts[2]

    @property
    def untold(self) -> str:
        """What the model has to write ahead of its answers itself, because no generation prompt does."""
        before = self.parts[1]
        if self.prompt != self.unasked or not before.startswith(self.prompt):
            return ""
        header = before[len(self.prompt) :]
        return header if header.strip() else ""

    @property
    def control_words(self) -> list[str]:
        """What builds turns and looks like a token, whether it is one or not, in the order of its first place."""
        # A head may name them in running text, such as instructions how to think: there only those that begin a line.
        at_line_starts = [word for line in self.head.splitlines() for word in _leading(line)]
        body = "".join(self.parts[1:])
        return sorted({*at_line_starts, *_CONTROL.findall(body)}, key=(self.head + body).index)


def probe(renderer: Renderer) -> Probe | None:
    """None where the template does not show each question and answer once, in their order."""
    try:
        text = renderer.render(_chat(WORDS))
        asked = renderer.render(_chat(WORDS[:1]), add_generation_prompt=True)
        unasked = renderer.render(_chat(WORDS[:1]))
    except RowError:
        return None
    if any(text.count(word) != 1 for word in WORDS) or asked.count(ASKED) != 1:
        return None
    places = [text.index(word) for word in WORDS]
    if places != sorted(places):
        return None
    parts = _between(text, places)
    head = _told(renderer) or parts[0]
    return Probe(text, parts, asked.partition(ASKED)[2], unasked.partition(ASKED)[2], head)


def _told(renderer: Renderer) -> str | None:
    """What stands before a question where there is a system prompt; it would take the place of the template's own."""
    try:
        text = renderer.render([{"role": "system", "content": TOLD}, *_chat(WORDS[:1])])
    except RowError:
        return None
    head, found, _ = text.partition(ASKED)
    return head if found and TOLD in head else None


def _chat(words: Sequence[str]) -> list[Message]:
    return [{"role": ("user", "assistant")[at % 2], "content": word} for at, word in enumerate(words)]


def _between(text: str, places: Sequence[int]) -> tuple[str, ...]:
    ends = [0, *(place + len(word) for place, word in zip(places, WORDS, strict=True))]
    return tuple(text[end:place] for end, place in zip(ends, [*places, len(text)], strict=True))


def _leading(line: str) -> list[str]:
    """The control words that a line begins with."""
    found = []
    # What a system prompt ends with stands right behind it.
    at = len(TOLD) if line.startswith(TOLD) else 0
    while match := _CONTROL.match(line, at):
        found.append(match.group())
        at = match.end()
    return found
