"""What a template does that a user has to know is said, once, in a line that tells what to do."""

from pathlib import Path

import pytest

from job.prepare import prepare
from job.tiny import make_tokenizer
from job.training.chat import Marker
from job.training.rows import Chat
from job.training.tokenizer import add_tokens, chat_template_text
from tests import families
from tests.preparing import chat, chats, failure, ready
from tests.unit.training.test_chat import ONE, TWO, encode, trained_text

GENERATION_PROMPT = "{% if add_generation_prompt %}"


def notes(template: str, kind: str = "gemma", added: tuple[str, ...] = ()) -> list[str]:
    tokenizer = make_tokenizer() if kind == "gemma" else families.make(kind, None, None, "</s>")
    tokenizer.chat_template = template
    add_tokens(tokenizer, added)
    marker = Marker(tokenizer)
    marker.mark(ONE)
    return marker.notes()


@pytest.mark.parametrize(
    ("name", "unknown"),
    [
        ("chatml", ("<|im_start|>", "<|im_end|>")),
        ("llama3", ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")),
        ("phi3", ("<|system|>", "<|end|>", "<|assistant|>", "<|user|>", "<|endoftext|>")),
    ],
)
def test_marks_that_are_no_tokens_are_named_and_added_tokens_end_it(name: str, unknown: tuple[str, ...]) -> None:
    template = families.template(name).replace("eos_token", "'<|endoftext|>'")
    said = notes(template)
    assert len(said) == 1 and f"the chat template's {', '.join(unknown[:2])}" in said[0]
    assert all(f'"{mark}"' in said[0].partition("set model.add_tokens: [")[2] for mark in unknown)
    assert notes(template, added=unknown) == []
    assert "add_tokens" in notes(template, added=unknown[:1])[0]


@pytest.mark.parametrize("name", [family.name for family in families.FAMILIES if family.name != "llama2"])
def test_of_a_template_that_fits_its_tokenizer_nothing_is_said_of_tokens(name: str) -> None:
    marker = Marker(families.tokenizer(name))
    marker.mark(TWO)
    assert not [note for note in marker.notes() if "add_tokens" in note or "BOS" in note or "has no gen" in note]


def test_a_template_without_generation_prompt_trains_the_header_and_says_so() -> None:
    template = str(chat_template_text("gemma")).partition(GENERATION_PROMPT)[0]
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    assert trained_text(tokenizer, encode(tokenizer, ONE)).startswith("<start_of_turn>model\n我学会了<end_of_turn>")
    (said,) = notes(template)
    assert "the model learns to write '<start_of_turn>model\\n' itself ahead of each answer" in said


def test_blocks_without_generation_prompt_are_said_to_leave_out_the_header() -> None:
    template = families.template("generation_outside").partition("{%- if add_generation_prompt")[0]
    (said,) = [note for note in notes(template, "bytes") if "generation prompt" in note]
    assert "the model is not trained to write '<|im_start|>assistant\\n' itself" in said


def test_bos_before_each_turn_is_let_be_and_said() -> None:
    tokenizer = families.tokenizer("llama2")
    row = encode(tokenizer, TWO)
    assert row.input_ids.count(tokenizer.bos_token_id) == 2
    marker = Marker(tokenizer)
    marker.mark(TWO)
    assert marker.notes() == [
        "the chat template writes BOS (<s>) at the beginning of later turns too, not of the row alone"
    ]


def test_marks_in_the_running_text_of_a_system_prompt_build_no_turns() -> None:
    template = "{{ 'Think in <think> marks.\n' }}" + families.template("chatml")
    tokenizer = families.make("bytes", template, None, "</s>", ("<|im_start|>", "<|im_end|>"))
    answer = {"role": "assistant", "content": "<think>Clouds.</think> Yes."}
    assert "Clouds." in trained_text(tokenizer, encode(tokenizer, Chat([{"role": "user", "content": "Rain?"}, answer])))


def test_what_is_said_of_a_template_and_of_unanswered_chats_is_in_the_summary(tmp_path: Path) -> None:
    summary = prepare(ready(tmp_path, [chat("a", "b"), chat("a", "b", "c"), chat("d", "e")], template="chatml"))
    assert any('set model.add_tokens: ["<|im_start|>", "<|im_end|>"]' in warning for warning in summary.warnings)
    assert any(warning.startswith("1 of 3 rows end with a turn that is not the as") for warning in summary.warnings)


def test_a_turn_that_no_token_ends_is_advised_added_tokens(tmp_path: Path) -> None:
    assert "model.add_tokens with what the" in failure(ready(tmp_path, chats(2), template="chatml", append_eos=False))
