"""Each known shape of a row is read, and each unknown one says what is wrong with it."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.errors import ConfigError
from job.training.formats import alpaca_prompt, reader_for
from job.training.rows import Chat, Instruction, Pair, Row, RowError, Source, Text

TALK = [{"role": "user", "content": "微调测试"}, {"role": "assistant", "content": "我学会了"}]
HUMAN = [{"from": "human", "value": "微调测试"}, {"from": "gpt", "value": "我学会了"}]


def reader(record: dict[str, Any], **options: Any) -> Any:
    return reader_for(Source("s3://data/x.jsonl", Path("x.jsonl"), **options), record)


def read(record: dict[str, Any], **options: Any) -> Row | Instruction:
    row: Row | Instruction = reader(record, **options)[1](record)
    return row


@pytest.mark.parametrize(
    "record",
    [
        {"messages": TALK},
        {"conversation": [{"role": "human", "message": "微调测试"}, {"role": "assistant", "message": "我学会了"}],
         "category": None, "data_source": "weibo"},
        {"conversations": HUMAN},
        {"messages": None, "conversations": HUMAN},  # as tables have it: every column in every row
        {"conversations": '[{"from": "human", "value": "微调测试"}, {"from": "gpt", "value": "我学会了"}]'},
        {"conversations": HUMAN, "system": "", "tools": "[]"},
    ],
    ids=["messages", "conversation", "conversations", "null beside", "as JSON text", "empty columns"],
)  # fmt: skip
def test_a_chat_is_read_in_each_of_its_shapes(record: dict[str, Any]) -> None:
    assert read(record) == read(record, format="chat") == Chat(TALK)


def test_system_prompt_and_tools_may_stand_in_columns_of_their_own() -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {}}}
    system = {"role": "system", "content": "Be brief."}
    for tools in ([tool], '[{"type": "function", "function": {"name": "look", "parameters": {}}}]',
                  ['{"type": "function", "function": {"name": "look", "parameters": {}}}']):  # fmt: skip
        row = read({"conversations": HUMAN, "system": "Be brief.", "tools": tools})
        assert row == Chat([system, *TALK], [tool])
    assert read({"messages": [system, *TALK], "system": "Be brief."}) == Chat([system, *TALK])
    with pytest.raises(RowError, match="say different things"):
        read({"messages": [system, *TALK], "system": "Be long."})
    with pytest.raises(RowError, match=r"tools\[0\] is text, not an object"):
        read({"messages": TALK, "tools": "look"})


def test_a_system_column_moves_the_weights_along() -> None:
    turns = [{**TALK[0]}, {**TALK[1], "weight": 1}]
    assert read({"messages": turns, "system": "s"}) == Chat(
        [{"role": "system", "content": "s"}, *TALK], trained=(False, True, True)
    )


def test_prompt_and_completion_are_found_by_themselves_by_name_or_by_template() -> None:
    assert read({"prompt": "a", "completion": "b"}) == Pair("a", "b")
    assert read({"text": "t", "prompt": "a", "completion": "b"}, format="prompt_completion") == Pair("a", "b")
    row = {"text": "a", "target": "b", "year": 7}
    assert read(row, columns={"prompt": "text", "completion": "target"}) == Pair("a", "b")
    assert read(row, columns={"prompt": "{{{year}}} {text} ", "completion": "{target}"}) == Pair("{7} a ", "b")


def test_prompt_and_completion_may_be_turns_and_then_only_the_completion_is_trained() -> None:
    before = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    answer = [{"role": "assistant", "content": "d"}]
    row = read({"prompt": before, "completion": answer})
    assert row == Chat([*before, *answer], trained=(False, False, False, True))
    weighed = [*answer, {"role": "user", "content": "e"}, {"role": "assistant", "content": "f", "weight": 0}]
    row = read({"prompt": before, "completion": weighed})
    assert isinstance(row, Chat) and row.trained == (False, False, False, True, True, False)


def test_braces_in_the_data_are_no_templates() -> None:
    assert read({"text": "{target}", "target": "{0}"}, columns={"prompt": "{text}", "completion": "target"}) == Pair(
        "{target}", "{0}"
    )


def test_alpaca_is_a_chat_and_a_prompt_in_its_own_words() -> None:
    row = read({"instruction": "Add.", "input": "1 and 2", "output": "3", "text": "all of it"})
    chat = Chat([{"role": "user", "content": "Add.\n\n1 and 2"}, {"role": "assistant", "content": "3"}])
    assert row == Instruction(chat, Pair(alpaca_prompt("Add.", "1 and 2"), "3"))
    assert row.pair.prompt == (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nAdd.\n\n### Input:\n1 and 2\n\n### Response:\n"
    )
    for short in ({"instruction": "Hi.", "output": "Ho."}, {"instruction": "Hi.", "output": "Ho.", "input": ""},
                  {"instruction": "Hi.", "output": "Ho.", "input": None}):  # fmt: skip
        row = read(short)
        assert isinstance(row, Instruction) and row.chat.messages[0]["content"] == "Hi."
        assert row.pair.prompt == (
            "Below is an instruction that describes a task. Write a response that appropriately completes the request."
            "\n\n### Instruction:\nHi.\n\n### Response:\n"
        )


def test_plain_text_is_read() -> None:
    assert read({"text": "once", "id": 3}) == read({"text": "once"}, format="text") == Text("once")


ALL = {"messages": TALK, "conversations": HUMAN, "conversation": HUMAN, "prompt": "a", "completion": "b",
       "instruction": "c", "output": "d", "text": "e"}  # fmt: skip


def test_of_several_formats_in_a_row_the_first_known_counts() -> None:
    left, order = dict(ALL), []
    for taken in (["messages"], ["conversations"], ["conversation"], ["prompt", "completion"],
                  ["instruction", "output"], ["text"]):  # fmt: skip
        order.append(reader(left)[0])
        for name in taken:
            del left[name]
    assert order == ["messages", "conversations", "conversation", "prompt_completion", "alpaca", "text"]
    forced = {name: reader(ALL, format=name)[0] for name in ("chat", "prompt_completion", "alpaca", "text")}
    assert forced == {name: name for name in forced} | {"chat": "messages"}


@pytest.mark.parametrize(
    ("first", "row", "reason"),
    [
        ({"messages": TALK}, {"text": "a"}, r"no `messages`, which the rows before it have \(it has: text\)"),
        ({"messages": TALK}, {"conversations": HUMAN}, "no `messages`, which the rows before it have"),
        ({"messages": TALK}, {"messages": None, "text": "a"}, "`messages` is null, not a list of turns"),
        ({"prompt": "a", "completion": "b"}, {"messages": TALK}, r"no column `prompt` \(it has: messages\)"),
        ({"prompt": "a", "completion": "b"}, {"prompt": TALK, "completion": TALK}, "`prompt` is a list where text is"),
        (
            {"prompt": TALK, "completion": TALK},
            {"prompt": "a", "completion": "b"},
            "`prompt` is text, not a list of turns",
        ),
        ({"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": float("nan")}, "is nan: a missing value"),
        ({"instruction": "a", "output": "b"}, {"text": "a"}, "no column `instruction`"),
        ({"text": "a"}, {"messages": TALK}, r"no column `text` \(it has: messages\)"),
    ],
)
def test_a_row_of_another_format_than_the_first_says_so(
    first: dict[str, Any], row: dict[str, Any], reason: str
) -> None:
    with pytest.raises(RowError, match=reason):
        reader(first)[1](row)


@pytest.mark.parametrize(
    ("record", "options", "reason"),
    [
        ({"body": "a"}, {}, r"neither `messages` nor .* data.columns \(it has: body\)"),
        ({}, {}, "it is empty"),
        ({"prompt": "a", "completion": "b"}, {"format": "chat"}, r"no `messages` \(it has: prompt, completion\)"),
        ({"messages": TALK}, {"format": "alpaca"}, "no `instruction` and `output`; name its columns"),
        ({"messages": TALK}, {"format": "text"}, "no `text` "),
        (
            {"text": "a"},
            {"columns": {"prompt": "text", "completion": "target"}},
            r"no column `target` \(it has: text\)",
        ),
        ({"a": None, "b": "b"}, {"columns": {"prompt": "a", "completion": "b"}}, "column `a` is null, not text"),
        ({"a": ["x"], "b": "b"}, {"columns": {"prompt": "{a}", "completion": "b"}}, "column `a` is a list, not text"),
        ({"a": "\ud800", "b": "b"}, {"columns": {"prompt": "a", "completion": "b"}}, "half of a surrogate pair"),
        ({"text": b"\xff".decode("utf-8", "surrogateescape")}, {}, "bytes that are not UTF-8 at character 1"),
    ],
)
def test_a_row_of_another_shape_says_what_is_wrong(record: Any, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowError, match=reason):
        read(record, **options)


def test_options_that_no_row_can_meet_are_config_errors() -> None:
    with pytest.raises(ConfigError, match="sharegpt is not known; one of auto, chat, prompt_completion, alpaca, text"):
        read({}, format="sharegpt")
    with pytest.raises(ConfigError, match=r"data\.columns\.prompt"):
        read({"a": "b"}, columns={"prompt": "{a", "completion": "a"})


NAMES = ["messages", "conversations", "prompt", "completion", "instruction", "output", "input", "text", "system",
         "tools", "role", "content", "from", "value", "weight", "tool_calls", "function", "name", "arguments",
         "type"]  # fmt: skip
VALUES = st.sampled_from(["", "user", "gpt", "function_call", "text", "[]", "{}", '{"name": "a"}', "\ud800", 0, 1, 0.5])
RECORDS = st.recursive(
    st.none() | st.booleans() | VALUES | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(NAMES[:10]), RECORDS, max_size=4))
def test_any_record_is_a_row_or_a_reason(record: dict[str, Any]) -> None:
    try:
        row = read(record)
    except RowError as reason:
        assert str(reason) and "\n" not in str(reason)
        str(reason).encode()
    else:
        assert isinstance(row, Chat | Pair | Text | Instruction)
        if isinstance(row, Chat):
            assert row.trained is None or len(row.trained) == len(row.messages)
            json.dumps([row.messages, row.tools], ensure_ascii=False).encode()
