"""What builds turns is the template's to write: a text that spells it would open or close a turn itself."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from job.training.rendering import Message
from job.training.rows import RowError

_NEVER = re.compile("(?!)")


class Reserved:
    """Which texts no message may hold, for one tokenizer and its chat template.

    In every message: what begins and ends a turn or a text (`structure`, tokens or not, and BOS and EOS). In what the
    model is given (system, user, tool, tools), also every other special token that the template knows, such as the
    marks of a tool's answer; in an answer those are the model's to write. Special tokens that no template writes
    (<unk>, padding) mean nothing there and are let through.
    """

    def __init__(self, tokenizer: Any, template: str, structure: Iterable[str]) -> None:
        special = set(special_tokens(tokenizer))
        ends = {token for token in (tokenizer.bos_token, tokenizer.eos_token) if token}
        self.structure = frozenset(structure) | ends
        known = {token for token in special if token in template}
        self._answered, self._given = pattern(self.structure), pattern(self.structure | known)
        # Most texts hold not even the first character of one.
        self._first = tuple({token[0] for token in self.structure | known})
        self._tokens = frozenset(added_tokens(tokenizer))

    def check(self, messages: Sequence[Message], tools: Any = None) -> None:
        """Raises RowError for the first text that spells a reserved token."""
        for number, message in enumerate(messages, start=1):
            content = message.get("content")
            if len(message) == 2 and isinstance(content, str):
                if any(first in content for first in self._first):
                    self._look(content, message["role"], f"turn {number} ({message['role']})")
                continue
            for name, value in message.items():
                if name != "role":
                    for text in _texts(value):
                        self._look(text, message["role"], f"turn {number} ({message['role']})")
        for text in _texts(tools):
            self._look(text, "tools", "the list of tools")

    def _look(self, text: str, role: str, where: str) -> None:
        if found := (self._answered if role == "assistant" else self._given).search(text):
            token = found.group() in self._tokens
            why = "the tokenizer reads as a special token" if token else "the chat template writes around turns"
            raise RowError(
                f"{where} holds the text {found.group()}, which {why}, so the text "
                "would open or end a turn itself; write it otherwise, or leave the row out"
            )


def special_tokens(tokenizer: Any) -> list[str]:
    """The texts of all special tokens, but for white space."""
    added = tokenizer.added_tokens_decoder.values()
    named = [token for token in (tokenizer.bos_token, tokenizer.eos_token) if token]
    listed = [token.content for token in added if token.special] + named
    return list(dict.fromkeys(token for token in listed if token.strip()))


def added_tokens(tokenizer: Any) -> list[str]:
    """The texts of all tokens that stand outside the model of the tokenizer, special or not, but for white space."""
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.content.strip()]
    return list(dict.fromkeys(added + special_tokens(tokenizer)))


def pattern(tokens: Iterable[str]) -> re.Pattern[str]:
    """Finds each of `tokens`, the longest first, as tokenizers do."""
    longest_first = sorted((token for token in tokens if token), key=lambda token: (-len(token), token))
    return re.compile("|".join(map(re.escape, longest_first))) if longest_first else _NEVER


def _texts(value: Any) -> Iterator[str]:
    """Every string inside JSON-like data, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(key)
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
