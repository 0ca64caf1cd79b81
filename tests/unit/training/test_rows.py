"""Each known shape of a row is read, and each unknown one says what is wrong with it."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.errors import ConfigError
from job.training.rows import Chat, Pair, Row, RowError, Source, lines, parse, reader_for

TALK = [{"role": "user", "content": "微调测试"}, {"role": "assistant", "content": "我学会了"}]


def read(record: dict[str, Any], **options: Any) -> Row:
    return reader_for(Source("s3://data/x.jsonl", Path("x.jsonl"), **options), record)[1](record)


@pytest.mark.parametrize(
    "record",
    [
        {"messages": TALK},
        {"conversation": [{"role": "human", "message": "微调测试"}, {"role": "assistant", "message": "我学会了"}],
         "category": None, "data_source": "weibo"},
        {"conversations": [{"from": "human", "value": "微调测试"}, {"from": "gpt", "value": "我学会了"}]},
    ],
    ids=["messages", "conversation", "conversations"],
)  # fmt: skip
def test_a_chat_is_read_in_each_of_its_shapes(record: dict[str, Any]) -> None:
    assert read(record) == read(record, format="chat") == Chat(TALK)


def test_prompt_and_completion_are_found_by_themselves_by_name_or_by_template() -> None:
    assert read({"prompt": "a", "completion": "b"}) == Pair("a", "b")
    row = {"text": "a", "target": "b", "year": 7}
    assert read(row, columns={"prompt": "text", "completion": "target"}) == Pair("a", "b")
    assert read(row, columns={"prompt": "{{{year}}} {text} ", "completion": "{target}"}) == Pair("{7} a ", "b")


def test_braces_in_the_data_are_no_templates() -> None:
    assert read({"text": "{target}", "target": "{0}"}, columns={"prompt": "{text}", "completion": "target"}) == Pair(
        "{target}", "{0}"
    )


@pytest.mark.parametrize(
    ("record", "options", "reason"),
    [
        ({"text": "a"}, {}, r"neither `messages` nor .* data.columns \(it has: text\)"),
        ({"prompt": "a", "completion": "b"}, {"format": "chat"}, "no `messages`"),
        (
            {"text": "a"},
            {"columns": {"prompt": "text", "completion": "target"}},
            r"no column `target` \(it has: text\)",
        ),
        ({"a": None, "b": "b"}, {"columns": {"prompt": "a", "completion": "b"}}, "column `a` is null, not text"),
        ({"a": ["x"], "b": "b"}, {"columns": {"prompt": "{a}", "completion": "b"}}, "column `a` is a list, not text"),
        ({"a": "\ud800", "b": "b"}, {"columns": {"prompt": "a", "completion": "b"}}, "half of a surrogate pair"),
        ({"messages": []}, {}, "`messages` is empty, not a list of turns"),
        ({"messages": "hello"}, {}, "`messages` is a string, not a list"),
        ({"messages": ["hello"]}, {}, r"messages\[0\] is a string, not an object"),
        ({"messages": [{"content": "a"}]}, {}, r"messages\[0\] has no role \(it has: content\)"),
        ({"messages": [{"role": "user"}]}, {}, r"messages\[0\] has no text content"),
        ({"messages": [{"role": "user", "content": [1]}]}, {}, "its content is a list, not text"),
    ],
)
def test_a_row_of_another_shape_says_what_is_wrong(record: Any, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowError, match=reason):
        read(record, **options)


def test_options_that_no_row_can_meet_are_config_errors() -> None:
    with pytest.raises(ConfigError, match="alpaca is not known"):
        read({}, format="alpaca")
    with pytest.raises(ConfigError, match=r"data\.columns\.prompt"):
        read({"a": "b"}, columns={"prompt": "{a", "completion": "a"})


def test_blank_lines_byte_order_mark_and_crlf_are_no_part_of_a_row(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b'{"a": 1}\r\n\r\n  \n{"a": 2}')
    assert [(number, parse(line)) for number, line in lines(Source("x.jsonl", path))] == [(1, {"a": 1}), (4, {"a": 2})]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a": ', r"not JSON \(.*character 7\)"),
        (b"[1]", "it is a list, not an object"),
        (b'{"a": "\xff"}', r"not UTF-8 text \(byte 7"),
        (b"[" * 200_000, "cannot be read|not JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "cannot be read"),
    ],
    ids=["cut", "list", "latin-1", "deep", "long number"],
)
def test_a_line_that_is_no_json_object_says_so(line: bytes, reason: str) -> None:
    with pytest.raises(RowError, match=reason):
        parse(line)


RECORDS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["messages", "prompt", "completion", "role", "content", "from"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@given(st.binary(max_size=40) | RECORDS.map(lambda record: json.dumps(record).encode()))
def test_any_bytes_are_a_row_or_a_reason(line: bytes) -> None:
    try:
        record = parse(line)
        row = read(record)
    except RowError as reason:
        assert str(reason) and "\n" not in str(reason)
    else:
        assert isinstance(row, Chat | Pair)
