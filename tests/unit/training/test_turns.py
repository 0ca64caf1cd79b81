"""Tools, thinking, moved prompts and ends that differ: an answer is found where the whole chat shows it, or refused."""

from typing import Any

import pytest

from job.training.chat import Marker
from job.training.encode import MASKED, Encoded, Encoder
from job.training.rows import Chat, RowError
from tests import families

TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
CALL = {"id": "call00001", "type": "function", "function": {"name": "weather", "arguments": {"city": "Rom"}}}
ASKED = [
    {"role": "user", "content": "Rain?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "name": "weather", "tool_call_id": "call00001", "content": "It rains."},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "And now?"},
    {"role": "assistant", "content": "No."},
]
QWEN_CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rom"}}\n</tool_call><|im_end|>'
HARMONY = ("<|start|>", "<|end|>", "<|message|>", "<|channel|>")


def encode(tokenizer: Any, row: Chat, loss: str = "auto") -> Encoded:
    (encoded,) = Encoder(tokenizer).encode([Marker(tokenizer).mark(row, loss)])
    assert isinstance(encoded, Encoded)
    return encoded


def parts(tokenizer: Any, row: Encoded) -> list[str]:
    """The trained text, cut where something masked lies between."""
    found: list[list[int]] = [[]]
    for label in row.labels:
        if label == MASKED:
            found.append([])
        else:
            found[-1].append(label)
    return [tokenizer.decode(ids) for ids in found if ids]


def trained(name: str, messages: list[dict[str, Any]], tools: Any = None, loss: str = "auto") -> list[str]:
    tokenizer = families.tokenizer(name)
    return parts(tokenizer, encode(tokenizer, Chat(messages, tools), loss))


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("qwen25", [QWEN_CALL, "Yes.<|im_end|>", "No.<|im_end|>\n"]),
        ("qwen3", [QWEN_CALL, "Yes.<|im_end|>", "<think>\n\n</think>\n\nNo.<|im_end|>\n"]),
        ("mistral3", ['[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Rom"}}]</s>', " Yes.</s>", " No.</s>"]),
        (
            "llama31",
            ['{"name": "weather", "parameters": {"city": "Rom"}}<|eot_id|>', "Yes.<|eot_id|>", "No.<|eot_id|>"],
        ),
        (
            "deepseek3",
            [
                "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n"
                '{"city": "Rom"}<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>',
                "Yes.<｜end▁of▁sentence｜>",
                "No.<｜end▁of▁sentence｜>",
            ],
        ),
        (
            "gemma4",
            ['<|tool_call>call:weather{city:<|"|>Rom<|"|>}<tool_call|>', "Yes.<turn|>", "No.<turn|>\n<eos>"],
        ),
    ],
)
def test_calls_of_tools_are_trained_and_what_tools_say_is_not(family: str, expected: list[str]) -> None:
    assert trained(family, ASKED, TOOLS) == expected
    assert trained(family, ASKED, TOOLS, "last") == expected[-1:]


@pytest.mark.parametrize("family", ["phi4", "llama3", "vicuna"])
def test_a_template_that_leaves_out_tools_or_calls_is_refused(family: str) -> None:
    with pytest.raises(RowError, match="leaves out the tool weather; set a"):
        trained(family, ASKED, TOOLS)
    with pytest.raises(RowError, match="leaves out the call of weather in turn 2"):
        trained(family, ASKED)


def test_a_template_that_leaves_out_an_answer_is_refused() -> None:
    wants_parts = (
        "{% for m in messages %}[{{ m.role }}]{% for p in m.content %}{{ p.text }}{% endfor %}</s>{% endfor %}"
    )
    tokenizer = families.make("pieces", wants_parts, "<s>", "</s>")
    with pytest.raises(RowError, match=r"leaves out the answer of turn 2 .*list of parts"):
        encode(tokenizer, Chat([{"role": "user", "content": "Rain?"}, {"role": "assistant", "content": "Yes."}]))


# ---- thinking

THOUGHT = [
    {"role": "user", "content": "Rain?"},
    {"role": "assistant", "content": "<think>\nClouds.\n</think>\n\nYes."},
    {"role": "user", "content": "And now?"},
    {"role": "assistant", "content": "<think>\nSun.\n</think>\n\nNo."},
]


def test_thinking_is_trained_where_the_whole_chat_shows_it_and_what_is_left_out_is_said() -> None:
    tokenizer = families.tokenizer("qwen3")
    marker = Marker(tokenizer)
    (row,) = Encoder(tokenizer).encode([marker.mark(Chat(THOUGHT))])
    assert isinstance(row, Encoded)
    assert parts(tokenizer, row) == ["Yes.<|im_end|>", "<think>\nSun.\n</think>\n\nNo.<|im_end|>\n"]
    assert [note.split("(")[0].strip() for note in marker.notes()] == [
        "in 1 trained answers the chat template leaves out the thinking that the data hold"
    ]


def test_thinking_in_a_field_of_its_own_is_trained_too() -> None:
    asked, _, *_ = THOUGHT
    answer = {"role": "assistant", "content": "Yes.", "reasoning_content": "Clouds."}
    assert trained("qwen3", [asked, answer]) == ["<think>\nClouds.\n</think>\n\nYes.<|im_end|>\n"]
    older = {"role": "assistant", "content": "Yes.", "thinking": "Clouds."}
    assert trained("qwen3", [asked, older]) == ["<think>\nClouds.\n</think>\n\nYes.<|im_end|>\n"]


def test_a_prompt_that_no_answer_goes_on_from_is_told() -> None:
    tokenizer = families.tokenizer("deepseek_r1")
    marker = Marker(tokenizer)
    (row,) = Encoder(tokenizer).encode([marker.mark(Chat(THOUGHT))])
    assert isinstance(row, Encoded)
    assert parts(tokenizer, row) == ["\n\nYes.<｜end▁of▁sentence｜>", "\n\nNo.<｜end▁of▁sentence｜>"]
    assert any("asks for an answer with '<think>\\n'" in note for note in marker.notes())


# ---- ends


def test_earlier_ends_that_differ_from_the_last_are_refused_unless_the_last_alone_is_trained() -> None:
    tokenizer = families.make("bytes", families.template("harmony"), None, "<|return|>", HARMONY)
    plain = [{**message, "content": str(message["content"])[-4:]} for message in THOUGHT]
    with pytest.raises(RowError, match=r"turn 2 in a way .* set data\.loss: last, or another model\.chat_template"):
        encode(tokenizer, Chat(plain))
    row = encode(tokenizer, Chat(plain), "last")
    assert parts(tokenizer, row) == ["<|channel|>final<|message|>No.<|return|>".replace("No.", plain[-1]["content"])]


def test_eos_that_opens_the_user_s_turn_is_the_end_of_the_answer_before_it() -> None:
    template = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}"
    template += "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    tokenizer = families.make("bytes", template, None, "<|user|>", ("<|assistant|>",))
    plain = [{**message, "content": f"{number}."} for number, message in enumerate(THOUGHT)]
    assert parts(tokenizer, encode(tokenizer, Chat(plain))) == ["1.<|user|>", "3.<|user|>"]


# ---- {% generation %}

BLOCKS = ["1.<|im_end|>", "3.<|im_end|>\n"]
NUMBERED = [{**message, "content": f"{number}."} for number, message in enumerate(THOUGHT)]


@pytest.mark.parametrize("family", ["generation_inside", "generation_outside"])
def test_blocks_are_trained_with_the_end_of_the_turn(family: str) -> None:
    assert trained(family, NUMBERED) == BLOCKS
    assert trained(family, NUMBERED, loss="last") == BLOCKS[1:]
    tokenizer = families.tokenizer(family)
    only_first = Chat(NUMBERED, trained=(False, True, False, False))
    assert parts(tokenizer, encode(tokenizer, only_first)) == BLOCKS[:1]


def test_blocks_win_over_what_the_turns_show() -> None:
    hidden = families.template("generation_inside").replace("{% generation %}", "(said) {% generation %}")
    tokenizer = families.make("bytes", hidden, None, "<|im_end|>", ("<|im_start|>",))
    assert parts(tokenizer, encode(tokenizer, Chat(NUMBERED))) == BLOCKS
    twice = hidden.replace(
        "{{ message.content + '<|im_end|>' }}", "{{ message.content }}{% endgeneration %}{% generation %}"
    )
    tokenizer = families.make("bytes", twice, None, "<|im_end|>", ("<|im_start|>",))
    assert parts(tokenizer, encode(tokenizer, Chat(NUMBERED)))[-1].startswith("3.")


def test_blocks_inside_a_macro_are_not_gone_by() -> None:
    inside = families.template("generation_inside")
    body = inside.replace("{%- for", "{%- macro said(messages) -%}{%- for")
    body = body.replace("{%- endfor -%}", "{%- endfor -%}{%- endmacro -%}{{ 'head ' + said(messages) }}")
    tokenizer = families.make("bytes", body, None, "<|im_end|>", ("<|im_start|>",))
    assert parts(tokenizer, encode(tokenizer, Chat(NUMBERED))) == BLOCKS


def test_empty_blocks_are_refused() -> None:
    none = families.template("generation_inside").replace("message.role == 'assistant'", "message.role == 'bot'")
    tokenizer = families.make("bytes", none, None, "<|im_end|>", ("<|im_start|>",))
    with pytest.raises(RowError, match="blocks hold nothing"):
        encode(tokenizer, Chat(NUMBERED))
