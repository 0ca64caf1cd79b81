"""YAML that every reader reads as the same values: YAML 1.1's, as kubectl is, and 1.2's."""

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from job.deploy.manifest import document, documents

AMBIGUOUS = ["y", "n", "no", "Yes", "ON", "off", "true", "null", "~", "", "2", "1e3", "0x1F", "0o7", "1_000", "1:30"]
AWKWARD = [
    "2001-01-01",
    ".5",
    "-",
    "- a",
    "a: b",
    "a #b",
    "#a",
    "*a",
    "&a",
    "!a",
    "@a",
    "%a",
    "{a",
    "[a",
    "|",
    ">",
    "'",
]
SPACED = [
    " a",
    "a ",
    "\ta",
    "a\n",
    "\na",
    "a\n\n",
    "a\nb",
    "a\nb\n",
    "a\n b\n",
    " a\nb",
    "a \nb",
    "a\r\nb",
    "\u2028",
    "\x85",
]
FOREIGN = [
    "微调测试",
    "é",
    "🙂",
    "\x00",
    "\x7f",
    "\ufeff",
    '"',
    "\\",
    "$(HOME)",
    "${HOME}",
    "=",
    "<<",
    "inf",
    ".nan",
    "-.inf",
]
TEXTS = [*AMBIGUOUS, *AWKWARD, *SPACED, *FOREIGN]


def read_back(text: str) -> list[list[Any]]:
    newer = YAML(typ="safe", pure=True)
    return [list(yaml.safe_load_all(text)), list(newer.load_all(text))]


@pytest.mark.parametrize("text", TEXTS)
def test_text_stays_text_as_a_value_a_key_and_an_item(text: str) -> None:
    value = {"a": text, "b": [text, {"c": text}], "d": {text: "x"}, "e": {"f": [text]}}
    assert read_back(document(value)) == [[value], [value]]


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("aby1.: -#", min_size=1, max_size=6), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from("abcd"), values, min_size=1))
def test_any_value_is_read_back_as_it_was(value: dict[str, Any]) -> None:
    assert yaml.safe_load(document(value)) == value


def test_documents_are_told_apart_and_json_reads_the_scalars() -> None:
    assert read_back(documents([{"a": 1}, {"b": [True, None, 1.5]}])) == [[{"a": 1}, {"b": [True, None, 1.5]}]] * 2
    assert json.loads(document({"a": "no"}).removeprefix("a: ")) == "no"


def test_a_config_is_shown_line_by_line() -> None:
    assert document({"run.yaml": "a: 1\nb:\n  - c\n"}) == "run.yaml: |\n  a: 1\n  b:\n    - c\n"


@pytest.mark.parametrize("word", ["y", "Y", "n", "N", "yes", "no", "on", "Off", "true", "null", "NaN", "inf"])
def test_what_some_reader_takes_for_no_text_is_in_quotes(word: str) -> None:
    """YAML 1.1's own list, which kubectl's reader follows further than Python's."""
    assert document({"a": word, word: ["b"]}) == f'a: "{word}"\n"{word}": [b]\n'
