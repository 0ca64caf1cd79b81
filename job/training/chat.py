"""A row becomes text in which every character is known to be trained or not.

A chat is rendered once, whole, by the tokenizer's own template. What is trained is what the template itself says with
`{% generation %}`, or else where it puts the answers (turns.py): the mask needs no knowledge of the template, and where
an answer cannot be proven to stand somewhere the row is refused.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from job.errors import ConfigError, DataError
from job.training.blocks import block_spans
from job.training.leftout import check_whole, lost_thoughts
from job.training.messages import ROLES
from job.training.probe import Probe, probe
from job.training.rendering import TODAY, Message, Renderer, Span, roles
from job.training.reserved import Reserved, added_tokens
from job.training.rows import Chat, Instruction, Pair, Row, RowError, Text
from job.training.shape import learn, structure
from job.training.tokenizer import built_in_templates
from job.training.turns import Turns

_ASSISTANTS = [name for name, role in ROLES.items() if role == "assistant"]
CHAT_LOSSES, PAIR_LOSSES, TEXT_LOSSES = "assistant, last, weight, all", "completion, all", "all"


@dataclass(frozen=True)
class Marked:
    """Text with its trained spans: character offsets [start, end), in order, apart from each other.

    Of each span that the text goes on behind, only what stands up to its end-of-turn token is trained: what a template
    puts between turns is never the model's to write. `chat` text holds its special tokens itself; other text gets the
    tokenizer's own beginning (BOS where it has one), and at the end the EOS token where `eos` says so. `must_end`: a
    model trained on such rows is meant to learn where to stop. `empty`: trained answers without any text.
    `unanswered`: it ends with what is not the assistant's, which is not trained.
    """

    text: str
    spans: tuple[Span, ...]
    chat: bool
    eos: bool = False
    must_end: bool = False
    empty: int = 0
    unanswered: bool = False


class Marker:
    """Marks rows for one tokenizer. `append_eos`: "auto", True or False."""

    def __init__(self, tokenizer: Any, append_eos: bool | str = "auto") -> None:
        self._tokenizer, self._append_eos = tokenizer, append_eos
        self._eos: str | None = tokenizer.eos_token
        self._renderer = Renderer(tokenizer)
        self._chats: _Chats | None = None
        self.lost_thoughts = 0  # answers marked so far whose thinking the template leaves out
        self.chat_template = self._renderer.source
        if append_eos is True and self._eos is None:
            raise ConfigError("data.append_eos: this tokenizer has no EOS token; set it to false")

    def mark(self, row: Row | Instruction, loss: str = "auto") -> Marked:
        """Raises RowError for what is wrong with this row, ConfigError and DataError for what is wrong with all."""
        if isinstance(row, Instruction):
            row = row.pair if self.chat_template is None else row.chat
        if isinstance(row, Chat):
            return self._mark_chat(row, loss)
        return self._mark_text(row, loss) if isinstance(row, Text) else self._mark_pair(row, loss)

    def notes(self) -> list[str]:
        """What is to be said about the chats marked so far, one line each."""
        said = []
        if self._chats is not None and self._renderer.tells_date:
            said.append(f"the chat template names the day: rows are rendered as on {TODAY:%d %B %Y}, on every day")
        if self._chats is not None:
            said += self._chats.notes()
        if self.lost_thoughts:
            said.append(
                f"in {self.lost_thoughts} trained answers the chat template leaves out the thinking that the data hold "
                "(data.loss: last trains only answers that most templates keep it in)"
            )
        return said

    def _mark_text(self, row: Text, loss: str) -> Marked:
        if loss not in ("auto", *TEXT_LOSSES.split(", ")):
            raise ConfigError(
                f"data.loss: {loss} needs chats or prompts; of plain text everything is trained: {TEXT_LOSSES}"
            )
        return Marked(row.text, ((0, len(row.text)),), chat=False, eos=self._adds_eos(row.text))

    def _mark_pair(self, row: Pair, loss: str) -> Marked:
        loss = "completion" if loss == "auto" else loss
        if loss not in PAIR_LOSSES.split(", "):
            raise ConfigError(
                f"data.loss: {loss} needs chat rows; for prompt and completion write one of {PAIR_LOSSES}"
            )
        text = row.prompt + row.completion
        start = 0 if loss == "all" else len(row.prompt)
        eos = self._adds_eos(text)
        empty = int(not row.completion.strip())
        return Marked(text, ((start, len(text)),), chat=False, eos=eos, must_end=eos and loss != "all", empty=empty)

    def _mark_chat(self, row: Chat, loss: str) -> Marked:
        chats = self._chats = self._chats or _Chats(self._renderer, self._tokenizer)
        wanted = _wanted(row, loss)
        chats.reserved.check(row.messages, row.tools)
        last = len(row.messages) - 1
        if loss == "all":
            text = self._renderer.render(row.messages, row.tools)
            spans = [(0, len(text))]
        elif self._renderer.has_blocks(row.tools):
            text, spans = block_spans(self._renderer, chats.turns, chats.shape, row, wanted)
        else:
            text = self._renderer.render(row.messages, row.tools)
            spans = chats.turns.find(text, row.messages, row.tools, wanted)
        check_whole(row, text, wanted, spans)
        whole = text + (str(self._eos) if self._adds_eos(text) else "")
        if loss == "all" or wanted[-1] == last:
            spans[-1] = (spans[-1][0], len(whole))
        answers = [row.messages[place] for place in wanted]
        self.lost_thoughts += lost_thoughts(answers, text, spans)
        empty = sum(map(_is_empty, answers))
        unanswered = loss != "all" and row.messages[last]["role"] != "assistant"
        return Marked(whole, tuple(spans), chat=True, must_end=loss != "all", empty=empty, unanswered=unanswered)

    def _adds_eos(self, text: str) -> bool:
        """Whether EOS is to stand behind `text`, which may end with it already; templates put white space behind it."""
        if not self._eos or self._append_eos is False:
            return False
        return self._append_eos is True or not text.rstrip().endswith(self._eos)


class _Chats:
    """What only chats need, learnt at the first of them."""

    def __init__(self, renderer: Renderer, tokenizer: Any) -> None:
        if renderer.source is None:
            raise DataError(
                "the tokenizer has no chat template: set model.chat_template to a file or to a built-in "
                f"({', '.join(built_in_templates())})"
            )
        self._renderer, self._tokenizer, self._known = renderer, tokenizer, added_tokens(tokenizer)
        self._probe = found = probe(renderer)
        self.shape = learn(found, self._known) if found else None
        built = self.shape.structure if self.shape else structure(found, self._known) if found else ()
        self.turns = Turns(renderer, self.shape, tokenizer.eos_token)
        self.reserved = Reserved(tokenizer, renderer.source, built)

    def notes(self) -> Iterator[str]:
        """What is to be said of the template, one line each."""
        if self.shape is not None and self.shape.unlike:
            yield (
                f"the chat template asks for an answer with {self.shape.unlike!r}, but begins none of its answers so: "
                "the model is trained without it and will be asked with it"
            )
        if self._probe is None:
            return
        if unknown := self._unknown(self._probe):
            yield (
                f"the chat template's {', '.join(unknown)} are no tokens of this tokenizer, but text of many tokens, "
                f"and no token ends a turn: set model.add_tokens: {json.dumps(unknown, ensure_ascii=False)}, "
                "or another model.chat_template"
            )
        if header := self._probe.untold:
            how = "is not trained to write" if self._renderer.has_blocks() else "learns to write"
            yield (
                f"the chat template has no generation prompt: the model {how} {header!r} itself ahead of each answer, "
                "and will be asked without it; have the template write it where add_generation_prompt is set"
            )
        bos = self._tokenizer.bos_token
        if bos and bos != self._tokenizer.eos_token and bos in "".join(self._probe.parts[1:]):
            yield f"the chat template writes BOS ({bos}) at the beginning of later turns too, not of the row alone"

    def _unknown(self, found: Probe) -> list[str]:
        """What builds turns, looks like tokens and is none, where no token ends a turn: else a model can do without."""
        ends = self.shape.closer if self.shape else found.closing
        if any(token in ends for token in self._known):
            return []
        built = [word for word in found.control_words if word in self.reserved.structure and word not in self._known]
        return [word for word in built if len(self._tokenizer(word, add_special_tokens=False)["input_ids"]) > 1]


def _wanted(row: Chat, loss: str) -> list[int]:
    """The places of the answers to train. Raises RowError where there is none, ConfigError for another loss."""
    answers = [place for place, message in enumerate(row.messages) if message["role"] == "assistant"]
    if not answers:
        unknown = any(message["role"] not in ROLES.values() for message in row.messages)
        named = f"; an assistant is named {', '.join(_ASSISTANTS)}" if unknown else ""
        raise RowError(f"no assistant turn, so nothing to learn ({roles(row.messages)}){named}")
    if loss == "completion" and row.trained is None:
        raise ConfigError(f"data.loss: {loss} needs prompt and completion; for chat write one of {CHAT_LOSSES}")
    if loss not in ("auto", "completion", *CHAT_LOSSES.split(", ")):
        raise ConfigError(f"data.loss: {loss} is not known; for chat write one of {CHAT_LOSSES}")
    if loss == "weight" and row.trained is None:
        raise RowError("no turn has a `weight`, which data.loss: weight goes by; data.loss: auto does without")
    if loss == "last":
        answers = answers[-1:]
    elif row.trained is not None and loss in ("auto", "weight", "completion"):
        answers = [place for place in answers if row.trained[place]]
        if not answers:
            raise RowError("every assistant turn has weight 0 or belongs to the prompt, so nothing to learn")
    if answers[0] == 0 and loss != "all":
        raise RowError("the conversation begins with an assistant turn, which answers nothing; begin with the user")
    return answers


def _is_empty(message: Message) -> bool:
    return not message.get("tool_calls") and not str(message.get("content") or "").strip()
