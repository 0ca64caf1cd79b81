"""A row becomes text in which every character is known to be trained or not.

A chat is rendered once, whole, by the tokenizer's own template. An assistant turn is what the rendering of the
conversation up to and with it adds to the rendering of the prompt before it: so the mask needs no knowledge of the
template, only that both are prefixes of the whole, and that is checked for each row.
"""

from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from job.errors import ConfigError, DataError
from job.training.rows import Chat, Pair, Row, RowError
from job.training.tokenizer import own_chat_template

CHAT_LOSSES, PAIR_LOSSES = "assistant, last, all", "completion, all"
SHOWN_TURNS = 6
Span = tuple[int, int]


@dataclass(frozen=True)
class Marked:
    """Text with its trained spans: character offsets [start, end), in order, apart from each other.

    Of each span but the last, only what stands up to its end-of-turn token is trained: what a template puts between
    turns is never the model's to write. `chat` text holds its special tokens itself; other text gets the tokenizer's
    own beginning (BOS where it has one), and at the end the EOS token where `eos` says so. `must_end`: a model trained
    on such rows is meant to learn where to stop.
    """

    text: str
    spans: tuple[Span, ...]
    chat: bool
    eos: bool = False
    must_end: bool = False


class Marker:
    """Marks rows for one tokenizer. `append_eos`: "auto", True or False."""

    def __init__(self, tokenizer: Any, append_eos: bool | str = "auto") -> None:
        self._tokenizer, self._append_eos = tokenizer, append_eos
        self._eos: str | None = tokenizer.eos_token
        self.chat_template = own_chat_template(tokenizer)
        if append_eos is True and self._eos is None:
            raise ConfigError("data.append_eos: this tokenizer has no EOS token; set it to false")

    def mark(self, row: Row, loss: str = "auto") -> Marked:
        """Raises RowError for what is wrong with this row, ConfigError and DataError for what is wrong with all."""
        return self._mark_chat(row, loss) if isinstance(row, Chat) else self._mark_pair(row, loss)

    def _mark_pair(self, row: Pair, loss: str) -> Marked:
        loss = "completion" if loss == "auto" else loss
        if loss not in PAIR_LOSSES.split(", "):
            raise ConfigError(
                f"data.loss: {loss} needs chat rows; for prompt and completion write one of {PAIR_LOSSES}"
            )
        text = row.prompt + row.completion
        start = 0 if loss == "all" else len(row.prompt)
        eos = self._eos is not None and self._append_eos is not False
        if self._append_eos == "auto" and self._ends(text):
            eos = False
        return Marked(text, ((start, len(text)),), chat=False, eos=eos, must_end=eos and loss != "all")

    def _mark_chat(self, row: Chat, loss: str) -> Marked:
        loss = "assistant" if loss == "auto" else loss
        if loss not in CHAT_LOSSES.split(", "):
            raise ConfigError(f"data.loss: {loss} needs prompt and completion; for chat write one of {CHAT_LOSSES}")
        if self.chat_template is None:
            raise DataError(
                "the tokenizer has no chat template: set model.chat_template to a file or to a built-in (chatml, gemma)"
            )
        turns = [index for index, message in enumerate(row.messages) if message["role"] == "assistant"]
        if not turns:
            raise RowError(f"no assistant turn, so nothing to learn ({_roles(row.messages)})")
        text = self._render(row.messages)
        whole = text
        if self._append_eos is True or (self._append_eos == "auto" and self._eos and not self._ends(text)):
            whole += self._eos or ""
        if loss == "all":
            return Marked(whole, ((0, len(whole)),), chat=True)
        spans = [self._turn(row.messages, index, text) for index in (turns[-1:] if loss == "last" else turns)]
        if turns[-1] == len(row.messages) - 1:
            spans[-1] = (spans[-1][0], len(whole))
        return Marked(whole, tuple(spans), chat=True, must_end=True)

    def _turn(self, messages: list[dict[str, str]], index: int, text: str) -> Span:
        if index == 0:
            raise RowError("the conversation begins with an assistant turn, which answers nothing; begin with the user")
        prompt = self._render(messages[:index], add_generation_prompt=True)
        upto = text if index == len(messages) - 1 else self._render(messages[: index + 1])
        if not (upto.startswith(prompt) and text.startswith(upto)):
            advice = "another" if text == upto else "data.loss: last, or another"
            raise RowError(
                f"the chat template renders turn {index + 1} otherwise inside the conversation than at its end "
                "(it must render a prefix as a prefix), so the mask cannot be known; "
                f"set {advice} model.chat_template"
            )
        return len(prompt), len(upto)

    def _render(self, messages: list[dict[str, str]], add_generation_prompt: bool = False) -> str:
        render = self._tokenizer.apply_chat_template
        try:
            return str(render(messages, tokenize=False, add_generation_prompt=add_generation_prompt))
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            said = " ".join(str(error).split())
            raise RowError(f"the chat template refuses it: {said} ({_roles(messages)})") from error

    def _ends(self, text: str) -> bool:
        """Whether the text ends with EOS already; templates put white space behind it."""
        return bool(self._eos) and text.rstrip().endswith(str(self._eos))


def _roles(messages: list[dict[str, str]]) -> str:
    more = ", ..." if len(messages) > SHOWN_TURNS else ""
    return "roles: " + ", ".join(message["role"] for message in messages[:SHOWN_TURNS]) + more
