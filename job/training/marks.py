"""A mark behind the content of each message shows where a template puts it, as long as nothing else changes by it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from job.training.rendering import Message, Renderer
from job.training.rows import RowError

NO_CHARACTERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]  # which Unicode keeps out of every proper text


@dataclass(frozen=True)
class Marks:
    """`messages`: with their marks. `ends`: where the content of each message ends in the text, for those with any."""

    renderer: Renderer
    tools: Any
    messages: list[Message]
    sign: re.Pattern[str]
    ends: Mapping[int, int]

    def around(self, place: int, length: int) -> tuple[int, int | None, int]:
        """(end of what stands before a message, end of its content, end of the next one's content)."""
        # A system prompt may stand anywhere, so it bounds nothing.
        ends = {at: end for at, end in self.ends.items() if self.messages[at]["role"] != "system"}
        begin = max((end for at, end in ends.items() if at < place), default=0)
        return begin, ends.get(place), min((end for at, end in ends.items() if at > place), default=length)

    def behind(self, place: int, count: int, add_generation_prompt: bool = False) -> str | None:
        """What stands behind the mark of a message where the first `count` are rendered by themselves."""
        try:
            text = self.renderer.render(self.messages[:count], self.tools, add_generation_prompt)
        except RowError:
            return None
        found = [mark.end() for mark in self.sign.finditer(text) if int(mark.group(1)) == place]
        return self.sign.sub("", text[found[0] :]) if len(found) == 1 else None


def mark(renderer: Renderer, text: str, messages: Sequence[Message], tools: Any) -> Marks | None:
    """None where the chat with marks is, apart from them, not its rendered `text`, or a message stands there twice."""
    sign = next((sign for sign in NO_CHARACTERS if sign not in text), None)
    if sign is None:
        return None
    pattern = re.compile(f"{sign}([0-9]+){sign}")
    marked = [_marked(f"{sign}{place}{sign}", message) for place, message in enumerate(messages)]
    try:
        rendered = renderer.render(marked, tools)
    except RowError:
        return None
    if pattern.sub("", rendered) != text:
        return None
    ends: dict[int, int] = {}
    removed = 0
    for found in pattern.finditer(rendered):
        place = int(found.group(1))
        if place in ends:
            return None
        ends[place] = found.start() - removed
        removed += len(found.group())
    return Marks(renderer, tools, marked, pattern, ends)


def _marked(sign: str, message: Message) -> Message:
    content = message.get("content")
    if not isinstance(content, str) or not (core := content.rstrip()):
        return message
    # Ahead of white space at the end, which a template may trim.
    return {**message, "content": f"{core}{sign}{content[len(core) :]}"}
