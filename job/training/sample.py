"""A prompt goes in, only the new text comes out; the model and training's randomness are left as they were."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import jinja2
import numpy
import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from job.errors import DataError

POLL_EVERY_TOKENS = 4
SEED_STRIDE = 1_000_003  # a prompt's sample depends on its own place only, not on how long the others' answers were


@dataclass(frozen=True)
class Sample:
    """One prompt as it was given, and the text the model added to it."""

    prompt: str
    generation: str


class _Stop(StoppingCriteria):  # type: ignore[misc]
    """Looks at the stop request every few tokens: a long answer must not eat up the grace time."""

    def __init__(self, stopped: Callable[[], bool]) -> None:
        self._stopped, self._tokens, self.stopped = stopped, 0, False

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        self._tokens += 1
        if self._tokens % POLL_EVERY_TOKENS == 0:
            self.stopped = self.stopped or self._stopped()
        return torch.full((input_ids.shape[0],), self.stopped, dtype=torch.bool, device=input_ids.device)


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    chat: bool,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
    eos_ids: Sequence[int],
    stopped: Callable[[], bool],
    system: str | None = None,
    autocast: torch.dtype | None = None,
    together: bool = False,
) -> Iterator[Sample]:
    """One `Sample` per prompt, in order; ends early, without the unfinished one, when `stopped()` is true.

    `model` is the unwrapped model, plain or with a peft adapter; at each yield it is in the state it was given in.
    An answer ends at `eos_ids` and at the model's and the tokenizer's own ends. `temperature` 0 is greedy.
    `autocast` is the compute dtype, if any. `together`: all ranks make it, none has the whole model; then `stopped` is
    asked between prompts only, as within one a rank may be done before another.
    Raises DataError for a prompt that the template refuses or that leaves no room for an answer.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    device = next(inner.parameters()).device
    ends = end_ids(inner, tokenizer, eos_ids)
    for index, prompt in enumerate(prompts):
        if stopped():
            return
        ids = encode(tokenizer, prompt, chat=chat, system=system)
        ids = ids or [_first_token(tokenizer, ends)]
        room = _positions(inner.config) - len(ids)
        if room < 1:
            raise DataError(f"a prompt of {len(ids)} tokens leaves no room for an answer in this model; shorten it")
        stop = _Stop(stopped if not together else lambda: False)
        config = _generation_config(tokenizer, min(max_new_tokens, room), temperature, top_p, ends)
        compute = torch.autocast(device.type, autocast) if autocast is not None else nullcontext()
        with _undisturbed(inner, config, device), compute:
            torch.manual_seed((seed * SEED_STRIDE + index) % 2**63)
            batch = torch.tensor([ids], device=device)
            mask = torch.ones_like(batch)
            output = inner.generate(batch, attention_mask=mask, stopping_criteria=StoppingCriteriaList([stop]))
        if stop.stopped:
            return
        yield Sample(prompt, _new_text(tokenizer, ids, output[0, len(ids) :].tolist(), ends, chat))


def end_ids(model: Any, tokenizer: Any, trained: Sequence[int] = ()) -> list[int]:
    """Every token that ends an answer: the model's own, the trained ones, the tokenizer's end of text."""
    own = model.generation_config.eos_token_id
    listed = [*(own if isinstance(own, list) else [own]), *trained, tokenizer.eos_token_id]
    return list(dict.fromkeys(int(token) for token in listed if token is not None))


def encode(tokenizer: Any, prompt: str, *, chat: bool, system: str | None = None) -> list[int]:
    """The prompt's token ids: one user turn and the opening of the answer, or the text as a row of text begins.

    Raises DataError when there is no chat template or the template refuses the turns.
    """
    if not chat:
        return _encode_text(tokenizer, prompt)
    if not tokenizer.chat_template:
        raise DataError("the tokenizer has no chat template, so this model cannot be asked in chat turns")
    turns = [{"role": "user", "content": prompt}]
    if system is not None:
        turns.insert(0, {"role": "system", "content": system})
    try:
        ids = tokenizer.apply_chat_template(turns, tokenize=True, add_generation_prompt=True, return_dict=False)
    except (jinja2.TemplateError, TypeError, ValueError, KeyError) as error:
        raise DataError(f"the model's chat template refuses the prompt: {' '.join(str(error).split())}") from error
    return list(ids)


def _encode_text(tokenizer: Any, text: str) -> list[int]:
    """With what the tokenizer puts before a text (BOS), once, and without what it would put behind it."""
    plain: list[int] = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    framed: list[int] = list(tokenizer(text)["input_ids"])
    for start in range(len(framed) - len(plain) + 1):
        if framed[start : start + len(plain)] == plain:
            return plain if plain[:start] == framed[:start] else framed[: start + len(plain)]
    return plain


@contextmanager
def _undisturbed(inner: Any, config: Any, device: torch.device) -> Iterator[None]:
    """Ready to generate inside; modes, flags, settings and all random states as before outside."""
    modes = [(module, module.training) for module in inner.modules()]
    checkpointing = [module for module in inner.modules() if getattr(module, "gradient_checkpointing", False) is True]
    own_config, python_state, numpy_state = inner.generation_config, random.getstate(), numpy.random.get_state()
    # The KV cache follows the generation config that stands on the model, not `model.config.use_cache`; and a base's
    # own sampling defaults (top_k, penalties) would fill every field that is left unset in one passed to generate().
    inner.generation_config = config
    try:
        inner.eval()
        for module in checkpointing:
            module.gradient_checkpointing = False
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
            yield
    finally:
        inner.generation_config = own_config
        for module in checkpointing:
            module.gradient_checkpointing = True
        for module, training in modes:
            module.training = training
        random.setstate(python_state)
        numpy.random.set_state(numpy_state)


def _generation_config(
    tokenizer: Any, max_new_tokens: int, temperature: float, top_p: float, ends: Sequence[int]
) -> Any:
    sampling = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0} if temperature > 0 else {}
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        use_cache=True,
        eos_token_id=list(ends) or None,
        pad_token_id=_first_token(tokenizer, ends) if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
        **sampling,
    )


def _positions(config: Any) -> int:
    """How many positions the model has; a model that states none has no bound of its own."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    return int(getattr(text, "max_position_embeddings", None) or 2**31)


def _first_token(tokenizer: Any, ends: Sequence[int]) -> int:
    """Where a text begins when nothing was given; generation needs at least one token."""
    for token in (tokenizer.bos_token_id, *ends):
        if token is not None:
            return int(token)
    return 0


def _new_text(tokenizer: Any, ids: list[int], new: list[int], ends: Sequence[int], chat: bool) -> str:
    while new and new[-1] in ends:  # an end-of-turn that is no special token would be shown
        new = new[:-1]
    if chat:
        return _decode(tokenizer, new)
    # Decoded alone, the first piece of some tokenizers loses the space that joins it to the prompt.
    before, whole = _decode(tokenizer, ids), _decode(tokenizer, ids + new)
    return whole.removeprefix(before) if whole.startswith(before) else _decode(tokenizer, new)


def _decode(tokenizer: Any, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
