"""A chat becomes text by the tokenizer's own template, as transformers renders it, on a day that stands still."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from jinja2 import TemplateSyntaxError, nodes

from job.errors import ConfigError
from job.training.rows import RowError
from job.training.tokenizer import own_chat_template

# What templates are told when they ask for today's date: the same data give the same rows on any day, and every
# rendering of one row agrees. It is the day that Llama 3's templates name where nobody tells them one.
TODAY = datetime(2024, 7, 26)

SHOWN_TURNS = 6
PLAIN_KEYS = frozenset(("role", "content"))
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_HOLDERS = (nodes.Macro, nodes.AssignBlock, nodes.FilterBlock)  # what is written in them does not go out in order
Message = Mapping[str, Any]
Span = tuple[int, int]


def today(pattern: str) -> str:
    """What stands in for the templates' `strftime_now`."""
    return TODAY.strftime(pattern)


class Renderer:
    """Renders chats for one tokenizer. Templates are compiled at their first use."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.source = own_chat_template(tokenizer)
        self._with_tools = _tool_template(tokenizer) or self.source
        self._own_code = _has_own_code(tokenizer)
        self._constants = {**tokenizer.special_tokens_map, "strftime_now": today, "documents": None}
        self._compiled: dict[str, Any] = {}
        self._blocks: dict[str, bool] = {}

    @property
    def tells_date(self) -> bool:
        """Whether the template writes the day it is rendered on, and `TODAY` takes its place."""
        return not self._own_code and "strftime_now" in (self.source or "")

    def render(self, messages: Sequence[Message], tools: Any = None, add_generation_prompt: bool = False) -> str:
        """Raises RowError when the template refuses the messages, ConfigError when it is no template."""
        if self._own_code:
            return self._own_rendering(messages, tools, add_generation_prompt)
        template = self._template(tools)
        chat = _as_given(messages)
        try:
            return str(
                template.render(
                    messages=chat, tools=tools or None, add_generation_prompt=add_generation_prompt, **self._constants
                )
            )
        except Exception as error:  # a template is a program: it may fail in any way
            raise _refusal(error, messages) from error

    def has_blocks(self, tools: Any = None) -> bool:
        """Whether the template says itself, with `{% generation %}`, what of a chat the model writes.

        Not where it does so inside a macro or a captured block: where that text goes is not known then.
        """
        source = self._source(tools)
        if source not in self._blocks:
            found = not self._own_code and bool(_GENERATION.search(source))
            self._blocks[source] = found and not _is_captured(self._template(tools), source)
        return self._blocks[source]

    def render_blocks(self, messages: Sequence[Message], tools: Any = None) -> tuple[str, list[Span]]:
        """(text, its `{% generation %}` blocks as characters [start, end), in order). Raises as `render` does."""
        template = self._template(tools)
        pieces: list[str] = []
        blocks: list[Span] = []
        chat = _as_given(messages)
        try:
            with template.environment.activate_tracker(pieces, blocks):
                for piece in template.generate(
                    messages=chat, tools=tools or None, add_generation_prompt=False, **self._constants
                ):
                    pieces.append(piece)  # as it grows: the tracker measures it at each block
        except Exception as error:
            raise _refusal(error, messages) from error
        return "".join(pieces), blocks

    def _own_rendering(self, messages: Sequence[Message], tools: Any, add_generation_prompt: bool) -> str:
        render = self._tokenizer.apply_chat_template
        try:
            return str(render(list(messages), tools=tools, tokenize=False, add_generation_prompt=add_generation_prompt))
        except Exception as error:
            raise _refusal(error, messages) from error

    def _source(self, tools: Any) -> str:
        return (self._with_tools if tools else self.source) or ""

    def _template(self, tools: Any) -> Any:
        from transformers.utils.chat_template_utils import _compile_jinja_template

        source = self._source(tools)
        if source not in self._compiled:
            try:
                self._compiled[source] = _compile_jinja_template(source)
            except TemplateSyntaxError as error:
                raise ConfigError(
                    f"the chat template is no Jinja template: line {error.lineno}: {error.message}; "
                    "set model.chat_template to another"
                ) from error
        return self._compiled[source]


def roles(messages: Sequence[Message]) -> str:
    more = ", ..." if len(messages) > SHOWN_TURNS else ""
    return "roles: " + ", ".join(str(message["role"]) for message in messages[:SHOWN_TURNS]) + more


def _as_given(messages: Sequence[Message]) -> list[Message]:
    """The messages as transformers hands them to a template: without empty fields, thinking under every name."""
    if all(message.keys() == PLAIN_KEYS for message in messages):
        return list(messages)
    from transformers.utils.chat_template_utils import _alias_reasoning_fields

    kept = [{name: value for name, value in message.items() if value is not None} for message in messages]
    return list(_alias_reasoning_fields(kept))


def _refusal(error: Exception, messages: Sequence[Message]) -> RowError:
    said = " ".join(str(error).split()) or type(error).__name__
    return RowError(f"the chat template refuses it: {said} ({roles(messages)}){_advice(said, messages)}")


def _advice(said: str, messages: Sequence[Message]) -> str:
    used = {str(message["role"]) for message in messages}
    if "tool" in used or any(message.get("tool_calls") for message in messages):
        return "; set a model.chat_template that knows tools"
    alternate = "alternate" in said.lower()
    if "system" in used and ("system" in said.lower() or alternate):
        return "; put the system text into the first user turn, or set another model.chat_template"
    if alternate:
        return "; begin with the user, join neighbouring turns of one role, or set another model.chat_template"
    return "; set another model.chat_template"


def _is_captured(template: Any, source: str) -> bool:
    tree = template.environment.parse(source)
    return any(any(holder.find_all(nodes.ExtensionAttribute)) for holder in tree.find_all(_HOLDERS))


def _tool_template(tokenizer: Any) -> str | None:
    """Of several named templates the one for chats with tools."""
    named = tokenizer.chat_template
    return named.get("tool_use") if isinstance(named, dict) else None


def _has_own_code(tokenizer: Any) -> bool:
    from transformers import PreTrainedTokenizerBase

    return type(tokenizer).apply_chat_template is not PreTrainedTokenizerBase.apply_chat_template
