"""Chat templates by family, as small copies of our own, each with a tokenizer made on the spot that holds its tokens.

What each writes around an answer stands here in words: what a mask has to be is said without the code that makes it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from job.training.tokenizer import chat_template_text

TEMPLATES = Path(__file__).parent / "templates"
MERGED = [
    "the answer",
    "\n\n",
    "  ",
    "user\n\n",
    "assistant\n",
    "model\n ",
    ":\n",
    " the answer is yes. no, it is not",
    "\n \n",
]


def as_it_is(text: str) -> str:
    return text


@dataclass(frozen=True)
class Family:
    """`lead` and `end` stand around an answer, `last_lead` and `tail` around the last; `tail` with an appended EOS."""

    name: str
    kind: str  # bytes: byte-level BPE; pieces: words with ▁, bytes for what the vocabulary lacks
    bos: str | None
    eos: str
    special: tuple[str, ...]
    end: str
    tail: str
    lead: str = ""
    last_lead: str | None = None
    written: Callable[[str], str] = as_it_is
    last_written: Callable[[str], str] | None = None
    plain: tuple[str, ...] = ()  # added tokens that are not special
    marks: tuple[str, ...] = ()  # that build turns, and are no tokens
    system: bool = True

    def expected(self, answers: list[str]) -> str:
        """The trained text of a chat that ends with the last of `answers`, everything trained."""
        earlier = "".join(self.lead + self.written(answer) + self.end for answer in answers[:-1])
        last_lead = self.lead if self.last_lead is None else self.last_lead
        return earlier + last_lead + (self.last_written or self.written)(answers[-1]) + self.tail


GEMMA = ("<start_of_turn>", "<end_of_turn>")
GEMMA4 = ("<|turn>", "<turn|>", "<|tool>", "<tool|>", "<|tool_call>", "<tool_call|>", "<|tool_response>",
          "<tool_response|>", "<|channel>", "<channel|>", '<|"|>')  # fmt: skip
LLAMA3 = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|python_tag|>")
QWEN = ("<|endoftext|>", "<|im_start|>")
CALLS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
MISTRAL = ("[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_CALLS]", "[TOOL_RESULTS]",
           "[/TOOL_RESULTS]")  # fmt: skip
INST = ("[INST]", "[/INST]")
BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
BEGUN = ("calls", "call", "outputs", "output")
DEEPSEEK = ("<｜User｜>", "<｜Assistant｜>", "<｜tool▁sep｜>",
            *(f"<｜tool▁{what}▁{side}｜>" for what in BEGUN for side in ("begin", "end")))  # fmt: skip
IM, EOT = "<|im_end|>", "<|eot_id|>"


def _after_breaks(text: str) -> str:
    return text.lstrip("\n")


FAMILIES = [
    Family("gemma", "pieces", "<bos>", "<eos>", GEMMA, GEMMA[1], GEMMA[1] + "\n<eos>", written=str.strip, system=False),
    Family("gemma3", "pieces", "<bos>", "<eos>", GEMMA, GEMMA[1], GEMMA[1] + "\n<eos>", written=str.strip),
    Family("gemma4", "pieces", "<bos>", "<eos>", GEMMA4, "<turn|>", "<turn|>\n<eos>", written=str.strip),
    Family("llama2", "pieces", "<s>", "</s>", (), " </s>", " </s>", lead=" ", written=str.strip,
           marks=INST),
    Family("llama3", "bytes", "<|begin_of_text|>", EOT, LLAMA3, EOT, EOT, written=str.strip),
    Family("llama31", "bytes", "<|begin_of_text|>", EOT, LLAMA3, EOT, EOT, written=str.strip),
    Family("llama32", "bytes", "<|begin_of_text|>", EOT, LLAMA3, EOT, EOT, written=str.strip),
    Family("qwen25", "bytes", None, IM, QWEN, IM, IM + "\n", plain=CALLS),
    Family("qwen3", "bytes", None, IM, QWEN, IM, IM + "\n", last_lead="<think>\n\n</think>\n\n",
           last_written=_after_breaks, plain=(*CALLS, "<think>", "</think>")),
    Family("mistral1", "pieces", "<s>", "</s>", (), "</s>", "</s> ", system=False, marks=INST),
    Family("mistral3", "pieces", "<s>", "</s>", MISTRAL, "</s>", "</s>", lead=" "),
    Family("phi3", "pieces", "<s>", "<|endoftext|>", ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
           "<|end|>", "<|end|>\n<|endoftext|>"),
    Family("phi4", "bytes", None, IM, ("<|endoftext|>", "<|im_start|>", "<|im_sep|>"), IM, IM),
    Family("deepseek2", "bytes", BOS, EOS, (), EOS, EOS, lead=" "),
    Family("deepseek3", "bytes", BOS, EOS, (), EOS, EOS, plain=DEEPSEEK),
    Family("deepseek_r1", "bytes", BOS, EOS, (), EOS, EOS,
           plain=(*DEEPSEEK, "<think>", "</think>")),
    Family("chatml", "bytes", None, "<|endoftext|>", ("<|im_start|>", IM), IM, IM + "\n<|endoftext|>"),
    Family("generation_inside", "bytes", None, IM, ("<|im_start|>",), IM, IM + "\n"),
    Family("generation_outside", "bytes", None, IM, ("<|im_start|>",), IM, IM + "\n"),
    Family("vicuna", "pieces", "<s>", "</s>", (), "\n", "\n</s>"),
]  # fmt: skip
BY_NAME = {family.name: family for family in FAMILIES}


def template(name: str) -> str:
    own = TEMPLATES / f"{name}.jinja"
    return own.read_text(encoding="utf-8") if own.exists() else str(chat_template_text(name))


@cache
def tokenizer(name: str) -> Any:
    """One for each family, made once: not to be changed."""
    family = BY_NAME[name]
    return make(family.kind, template(name), family.bos, family.eos, family.special, family.plain)


def make(
    kind: str, chat_template: str | None, bos: str | None, eos: str, special: tuple[str, ...] = (),
    plain: tuple[str, ...] = (),
) -> Any:  # fmt: skip
    """A fast tokenizer with some merges, of line breaks too; the named tokens are added to it."""
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerFast

    trained = _byte_level() if kind == "bytes" else _pieces()
    trained.add_special_tokens([token for token in (bos, eos, *special) if token])
    trained.add_tokens([AddedToken(token, normalized=False) for token in plain])
    return PreTrainedTokenizerFast(
        tokenizer_object=trained, bos_token=bos, eos_token=eos, chat_template=chat_template,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def _byte_level() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False)
    trained.train_from_iterator(MERGED * 4, trainer)
    return trained


def _pieces() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted({letter for text in MERGED for letter in text.replace(" ", "▁")} | {"▁"})
    merges = [("▁", "▁"), ("▁", "t"), ("▁t", "h"), ("▁th", "e"), ("\n", "\n"), ("a", "n"), ("an", "s"), ("n", "o")]
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters, *(left + right for left, right in merges)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return made
