"""Turns in each of their spellings become what chat templates take, and others say what is wrong with them."""

import json
from typing import Any

import pytest

from job.training.messages import messages, tools
from job.training.rows import RowError

CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Paris", "days": 2}}}


def read(*turns: Any) -> list[dict[str, Any]]:
    return messages(list(turns), "messages")[0]


@pytest.mark.parametrize("role_key", ["role", "from"])
@pytest.mark.parametrize("content_key", ["content", "value", "message", "text"])
def test_role_and_content_have_many_names(role_key: str, content_key: str) -> None:
    assert read({role_key: "human", content_key: "hi"}) == [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("role", "names"),
    [
        ("user", ["user", "human", "Human", "prompter"]),
        ("assistant", ["assistant", "gpt", "model", "bot", "chatgpt", "ChatGPT", "ai"]),
        ("system", ["system", "System"]),
        ("tool", ["tool", "function", "observation", "tool_response"]),
        ("critic", ["critic"]),  # the template may know it
    ],
)
def test_roles_have_many_names(role: str, names: list[str]) -> None:
    assert [read({"role": name, "content": "a"})[0]["role"] for name in names] == [role] * len(names)


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "assistant", "tool_calls": [{"type": "function", "function": {
            "name": "weather", "arguments": json.dumps({"city": "Paris", "days": 2})}}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL["function"]]},
        {"role": "assistant", "content": None, "tool_calls": json.loads(json.dumps([CALL])), "refusal": None},
        {"role": "assistant", "function_call": {"name": "weather", "arguments": '{"city": "Paris", "days": 2}'}},
        {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Paris", "days": 2}}'},
        {"from": "function_call", "value": '[{"name": "weather", "arguments": {"city": "Paris", "days": 2}}]'},
    ],
    ids=["as templates", "arguments as text", "bare", "nulls beside", "old OpenAI", "ShareGPT", "ShareGPT list"],
)  # fmt: skip
def test_calls_of_tools_reach_the_template_with_arguments_as_an_object(turn: dict[str, Any]) -> None:
    assert read(turn) == [{"role": "assistant", "content": None, "tool_calls": [CALL]}]


def test_names_and_ids_of_calls_are_kept() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "now", "arguments": ""}}
    said = read(
        {"role": "assistant", "content": "", "tool_calls": [call], "reasoning_content": "hm"},
        {"role": "tool", "tool_call_id": "c1", "name": "now", "content": "12:00"},
    )
    made = {"id": "c1", "type": "function", "function": {"name": "now", "arguments": {}}}
    assert said == [
        {"role": "assistant", "content": "", "tool_calls": [made], "reasoning_content": "hm"},
        {"role": "tool", "content": "12:00", "tool_call_id": "c1", "name": "now"},
    ]


def test_parts_of_text_are_joined() -> None:
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}, "!"]
    assert read({"role": "user", "content": parts}) == [{"role": "user", "content": "Hello!"}]


def test_weights_say_which_turns_may_be_trained() -> None:
    def trained(*weights: Any) -> Any:
        turns = [{"role": "assistant", "content": "a"} | ({} if weight == "no" else {"weight": weight})
                 for weight in weights]  # fmt: skip
        return messages(turns, "messages")[1]

    assert trained("no", "no") is trained(None, "no") is None
    assert trained(0, 1, "no", 1.0, 0.0, None) == (False, True, True, True, False, True)
    assert "weight" not in read({"role": "user", "content": "a", "weight": 0})[0]


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([], "`messages` is empty, not a list of turns"),
        ("hello", "`messages` is text, not a list"),
        ({"role": "user"}, "`messages` is an object, not a list"),
        (["hello"], r"messages\[0\] is text, not an object"),
        ([{"content": "a"}], r"messages\[0\] has no role \(it has: content\)"),
        ([{"role": "user"}], r"messages\[0\] has no text content \(it has: role\)"),
        ([{"role": "user", "content": [1]}], "a list that holds a number, not text"),
        ([{"role": "user", "content": []}], "its content is empty, not text"),
        ([{"role": "user", "content": 3}], "its content is a number, not text"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}],
         r"messages\[0\]: its content has a part of type image_url; it must be text"),
        ([{"role": "user", "content": "a\ud800"}], r"messages\[0\] holds half of a surrogate pair at character 2"),
        ([{"role": "user", "content": "a", "weight": 0.5}], r"messages\[0\]: its weight is 0.5; write the number"),
        ([{"role": "user", "content": "a", "weight": "0"}], "its weight is the text '0'; write the number"),
        ([{"role": "assistant", "tool_calls": {"a": 1}}], "tool_calls is an object, not a list"),
        ([{"role": "assistant", "tool_calls": [{"function": {}}]}], "a call is an object with name and arguments"),
        ([{"role": "assistant", "tool_calls": [{"name": "f", "arguments": "{"}]}], "f are text that is no JSON object"),
        ([{"from": "function_call", "value": "look it up"}], "a call is an object with name and arguments"),
        ([{"role": "assistant", "tool_calls": [{"name": "f", "arguments": {"a": "\ud800"}}]}], "half of a surrogate"),
    ],
)  # fmt: skip
def test_other_turns_say_what_is_wrong(turns: Any, reason: str) -> None:
    with pytest.raises(RowError, match=reason):
        messages(turns, "messages")


def test_no_tools_are_none() -> None:
    assert tools(None) is tools("") is tools([]) is tools("[]") is None
