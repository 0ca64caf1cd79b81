"""What a .json file holds is known by its content, and read value by value."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.errors import DataError
from job.training import json_text
from job.training.json_files import shape_of, values
from job.training.json_text import JsonText
from job.training.rows import Source

ROW, OTHER = {"text": "a"}, {"text": "b"}
TALK = [{"role": "user", "content": "a"}]


def read(tmp_path: Path, content: Any, split: str | None = None) -> list[Any]:
    path = tmp_path / "x.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    source = Source("x.json", path, split=split)
    return [value for _, value in values(source, shape_of(source))]


@pytest.mark.parametrize(
    "content",
    [
        [ROW, OTHER],
        {"data": [ROW, OTHER]},
        {"data": [ROW, OTHER], "test": [{"no": 1}]},
        {"about": {"data": 1}, "rows": [ROW, OTHER], "tags": ["x"]},
        {"test": [{"no": 1}], "train": [ROW, OTHER]},
        {"examples": [ROW, OTHER], "version": 1},
        json.dumps(ROW) + "\n" + json.dumps(OTHER, indent=2),
        json.dumps(ROW) + json.dumps(OTHER),
    ],
)
def test_rows_are_found_where_they_stand(tmp_path: Path, content: Any) -> None:
    assert read(tmp_path, content) == [ROW, OTHER]


@pytest.mark.parametrize(
    "row", [{"messages": TALK}, {"prompt": TALK, "completion": TALK}, ROW, {"tools": [{}], "x": 1}]
)
def test_one_object_may_be_the_one_row(tmp_path: Path, row: Any) -> None:
    assert read(tmp_path, row) == [row]


def test_a_split_is_chosen_by_its_usual_names(tmp_path: Path) -> None:
    content = {"train": [ROW], "dev": [OTHER], "test_hard": [ROW, OTHER]}
    assert read(tmp_path, content, "train") == [ROW]
    assert read(tmp_path, content, "validation") == [OTHER]
    assert read(tmp_path, content, "test_hard") == [ROW, OTHER]
    with pytest.raises(DataError, match=r"x\.json has no split tests \(it has: train, dev, test_hard\)"):
        read(tmp_path, content, "tests")
    with pytest.raises(DataError, match="has no splits, so no train; leave split out"):
        read(tmp_path, [ROW], "train")


def test_several_lists_without_a_usual_name_are_asked_about(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"several lists; choose one with split \(it has: easy, hard\)"):
        read(tmp_path, {"easy": [ROW], "hard": [OTHER]})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('[{"a": 1}, {"a": 2', "after row 1: Expecting ',' delimiter"),
        ('[{"a": 1} {"a": 2}]', "after row 1: ',' should stand where '{' does"),
        ('[{"a": 1}, ]', "after row 1: ']' stands right behind a comma"),
        ('[{"a": 1}] x', "after row 1: something stands behind the list"),
        ('[{"a": "\n"}]', "after row 0: Invalid control character"),
        ('{"data": [{"a": 1}', "after row 0: ',' should stand where the file ends"),
        ("{'a': 1}", "after row 0: Expecting value"),
        ("[" + "[" * 200_000, "after row 0: it is nested too deep"),
        (f"[{'9' * 5000}]", "after row 0: Exceeds the limit"),
    ],
)
def test_what_is_no_json_names_the_last_good_row(tmp_path: Path, content: str, reason: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, content)
    assert str(caught.value).startswith(f"x.json: not JSON {reason}")


def test_a_mistake_is_found_where_it_is_and_not_at_the_end_of_the_file(tmp_path: Path) -> None:
    file = io.BytesIO(b'[{"a" 1}, ' + b'{"a": 1}, ' * 1_000_000)
    text = JsonText(file)
    text.take("[")
    with pytest.raises(ValueError, match="Expecting ':' delimiter"):
        text.value()
    assert file.tell() < 1_000_000


def test_a_value_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_text, "VALUE_CHARS", 100_000)
    file = io.BytesIO(b'"' + b"x" * 1_000_000)
    with pytest.raises(ValueError, match="one value has more than 100000 characters"):
        JsonText(file).value()
    assert file.tell() < 300_000


@pytest.mark.parametrize("number", ["1.25", "-10e+6", "1E-3", "12345678901234567890"])
def test_a_number_is_whole_wherever_a_chunk_ends(monkeypatch: pytest.MonkeyPatch, number: str) -> None:
    monkeypatch.setattr(json_text, "CHUNK_BYTES", 32)
    for before in range(32):
        data = f'["{"x" * before}", {number}, {number}]'.encode()
        assert list(JsonText(io.BytesIO(data)).items())[1:] == [json.loads(number)] * 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(JSON, max_size=6), st.integers(32, 64), st.booleans(), st.sampled_from([None, 1]))
def test_no_chunk_border_changes_a_value(items: list[Any], chunk: int, escaped: bool, indent: int | None) -> None:
    data = json.dumps(items, ensure_ascii=escaped, indent=indent).encode("utf-8", "surrogateescape")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_text, "CHUNK_BYTES", chunk)
        assert list(JsonText(io.BytesIO(data)).items()) == items
