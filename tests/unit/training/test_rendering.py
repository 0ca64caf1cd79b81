"""Chats are rendered as transformers renders them, on one day."""

from typing import Any

import pytest

from job.training.rendering import Renderer
from job.training.rows import RowError
from tests import families
from tests.unit.training.test_turns import ASKED, THOUGHT, TOOLS

NO_TOOLS = [message for message in THOUGHT if message["role"] != "tool"]


@pytest.mark.parametrize("family", [f.name for f in families.FAMILIES if f.name != "llama32"])
@pytest.mark.parametrize("prompt", [False, True])
def test_a_rendering_is_that_of_transformers(family: str, prompt: bool) -> None:
    tokenizer = families.tokenizer(family)
    expected = tokenizer.apply_chat_template(NO_TOOLS, tokenize=False, add_generation_prompt=prompt)
    assert Renderer(tokenizer).render(NO_TOOLS, add_generation_prompt=prompt) == expected


@pytest.mark.parametrize("family", ["qwen25", "qwen3", "mistral3", "llama31", "deepseek3", "gemma4"])
def test_a_rendering_with_tools_is_that_of_transformers(family: str) -> None:
    tokenizer = families.tokenizer(family)
    messages = [{**message, "name": None} for message in ASKED]  # empty fields are left out
    expected = tokenizer.apply_chat_template(messages, TOOLS, tokenize=False)
    assert Renderer(tokenizer).render(messages, TOOLS) == expected


def test_a_template_that_asks_for_the_day_is_always_told_the_same() -> None:
    renderer = Renderer(families.tokenizer("llama32"))
    assert "Today Date: 26 Jul 2024" in renderer.render(NO_TOOLS) and renderer.tells_date
    assert not Renderer(families.tokenizer("llama31")).tells_date


def test_a_template_of_its_own_for_tools_is_used_where_there_are_tools() -> None:
    tokenizer = families.make("bytes", None, None, "</s>")
    tokenizer.chat_template = {"default": "plain", "tool_use": "{{ tools[0].function.name }}"}
    renderer = Renderer(tokenizer)
    assert (renderer.render(NO_TOOLS), renderer.render(NO_TOOLS, TOOLS)) == ("plain", "weather")
    assert renderer.render(NO_TOOLS, []) == "plain"


@pytest.mark.parametrize(
    "fault", ["{{ 1 // 0 }}", "{{ messages.a.b }}", "{{ range(10**9) }}", "{{ raise_exception('no') }}"]
)
def test_whatever_a_template_dies_of_is_a_refusal(fault: str) -> None:
    with pytest.raises(RowError, match=r"the chat template refuses it: .*\(roles: user, assistant"):
        Renderer(families.make("bytes", fault, None, "</s>")).render(NO_TOOLS)


def test_a_tokenizer_with_code_of_its_own_renders_by_it() -> None:
    from transformers import PreTrainedTokenizerFast

    class Own(PreTrainedTokenizerFast):  # type: ignore[misc]
        def apply_chat_template(self, conversation: Any, **options: Any) -> str:
            return f"own {len(conversation)} {options['add_generation_prompt']}"

    plain = families.tokenizer("chatml")
    tokenizer = Own(tokenizer_object=plain.backend_tokenizer, eos_token="<|endoftext|>", chat_template="x")
    assert Renderer(tokenizer).render(NO_TOOLS, add_generation_prompt=True) == "own 4 True"
