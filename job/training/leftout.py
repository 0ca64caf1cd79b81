"""What the data hold has to stand in the rendered chat: a template leaves out in silence what it does not know of."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from job.training.rendering import Message, Span
from job.training.rows import Chat, RowError

THOUGHT = "</think>"
LAST_WORD, LOOKED_AT = re.compile(r"\w+\W*$"), 40  # characters


def check_whole(row: Chat, text: str, wanted: Sequence[int], spans: Sequence[Span]) -> None:
    """Raises RowError where the template leaves out tools, or a part of an answer, that the data hold."""
    for name in _names(row.tools):
        if name not in text:
            raise RowError(f"the chat template leaves out the tool {name}; set a model.chat_template that knows tools")
    trained = [text[start:end] for start, end in spans]
    for place in wanted:
        message = row.messages[place]
        for name in _names(message.get("tool_calls")):
            if not any(name in part for part in trained):
                raise RowError(
                    f"the chat template leaves out the call of {name} in turn {place + 1}; "
                    "set a model.chat_template that knows tools"
                )
        end = "" if message.get("tool_calls") else _end(message.get("content"))
        if not any(end in part for part in trained) and not any(_last_word(end) in part for part in trained):
            raise RowError(
                f"the chat template leaves out the answer of turn {place + 1} (it may want content as a list of "
                "parts); set another model.chat_template"
            )


def _end(content: Any) -> str:
    """Of an answer with thinking ahead of it, which templates may leave out, what stands behind."""
    return content.rpartition(THOUGHT)[2].rstrip()[-LOOKED_AT:] if isinstance(content, str) else ""


def _last_word(answer: str) -> str:
    found = LAST_WORD.search(answer)
    return found.group() if found else answer[-1:]


def _names(tools: Any) -> Iterator[str]:
    for tool in tools or ():
        inner = tool.get("function", tool) if isinstance(tool, dict) else None
        name = inner.get("name") if isinstance(inner, dict) else None
        if isinstance(name, str):
            yield name


def lost_thoughts(answers: Sequence[Message], text: str, spans: Sequence[Span]) -> int:
    """Of how many of these answers, each trained in its span, the template leaves out the thinking."""
    if len(answers) != len(spans):
        return 0
    kept = [THOUGHT in text[start:end] for start, end in spans]
    return sum(
        THOUGHT in str(answer.get("content")) and not is_kept for answer, is_kept in zip(answers, kept, strict=True)
    )
