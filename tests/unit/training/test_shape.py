"""What is not certain by shape or by marks is said not to be."""

import pytest

from job.training.marks import mark
from job.training.probe import probe
from job.training.rendering import Renderer
from job.training.reserved import added_tokens
from job.training.shape import Shape, learn
from tests import families

TALK = [
    {"role": "user", "content": "Rain?"},
    {"role": "assistant", "content": "No."},
    {"role": "user", "content": "Sun?"},
]


def shape(family: str) -> Shape:
    tokenizer = families.tokenizer(family)
    shown = probe(Renderer(tokenizer))
    found = shown and learn(shown, added_tokens(tokenizer))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("family", "opener", "leads", "closer", "tail"),
    [
        ("gemma", "<start_of_turn>model\n", ("",), "<end_of_turn>", "<end_of_turn>\n"),
        ("llama2", "[/INST]", (" ",), " </s>", " </s>"),
        ("llama3", "<|start_header_id|>assistant<|end_header_id|>\n\n", ("",), "<|eot_id|>", "<|eot_id|>"),
        ("qwen3", "<|im_start|>assistant\n", ("<think>\n\n</think>\n\n", ""), "<|im_end|>", "<|im_end|>\n"),
        ("phi3", "<|assistant|>\n", ("",), "<|end|>", "<|end|>\n<|endoftext|>"),
        ("deepseek_r1", "<｜Assistant｜>", ("",), "<｜end▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    ],
)
def test_a_template_shows_what_it_writes_around_an_answer(
    family: str, opener: str, leads: tuple[str, ...], closer: str, tail: str
) -> None:
    found = shape(family)
    assert (found.opener, found.leads, found.closer, found.tail) == (opener, leads, closer, tail)


def test_an_opening_too_many_is_no_proof() -> None:
    text = Renderer(families.tokenizer("chatml")).render(TALK)
    assert shape("chatml").find(text, TALK) is not None
    assert shape("chatml").find(text + "<|im_start|>assistant\n", TALK) is None
    assert shape("chatml").find(text.replace("No.", "No"), TALK) is None


def test_a_question_that_holds_an_opening_is_no_proof() -> None:
    asked = [{"role": "user", "content": "What is [/INST]?"}, *TALK[1:]]
    text = Renderer(families.tokenizer("mistral1")).render(asked)
    assert shape("mistral1").find(text, asked) is None


def test_marks_that_change_what_is_rendered_are_no_proof() -> None:
    template = "{% for m in messages %}{{ '(short) ' if m.content | length < 4 }}{{ m.content }}</s>{% endfor %}"
    renderer = Renderer(families.make("bytes", template, None, "</s>"))
    assert mark(renderer, renderer.render(TALK), TALK, None) is None
    longer = [{**message, "content": message["content"] * 2} for message in TALK]
    found = mark(renderer, renderer.render(longer), longer, None)
    assert found is not None and found.ends == {0: 10, 1: 20, 2: 32}


def test_a_message_rendered_twice_is_no_proof() -> None:
    template = "{{ messages[0].content }}{% for m in messages %}{{ m.content }}</s>{% endfor %}"
    renderer = Renderer(families.make("bytes", template, None, "</s>"))
    assert mark(renderer, renderer.render(TALK), TALK, None) is None
