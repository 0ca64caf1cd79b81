"""Whatever a file holds, the answer is a config or a ConfigError: never a traceback."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from job.config import RunConfig, load_config
from job.config.marks import fields
from job.errors import ConfigError

NAMES = sorted({field.name for field in fields(RunConfig)})
LEAVES: st.SearchStrategy[Any] = st.sampled_from(
    [
        None,
        True,
        0,
        -1,
        3,
        0.5,
        1e300,
        float("nan"),
        "",
        "auto",
        "{",
        "s3://",
        "s3://b/c",
        "15m",
        "${",
        [],
        {},
        [None],
        [[]],
    ]
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), TREES, max_size=8))
def test_any_tree_gives_a_config_or_one_error(tree: dict[str, Any]) -> None:
    whole: dict[str, Any] = {"run": "s3://r", "model": {"base": "b"}, "data": {"train": "d"}, "lora": None, **tree}
    try:
        config = RunConfig.from_dict(whole)
    except ConfigError as error:
        lines = str(error).split("\n")
        assert all(line.startswith("config: ") and line.count(": ") >= 2 for line in lines[1:] or lines)
    else:
        assert RunConfig.from_dict(config.to_dict()) == config


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("ab:-[]{},\n '\"#&*!|>%@`?~<.0\t\r\x00é"), max_size=40))
def test_any_text_gives_an_error_that_names_the_file(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.yaml")
        path.write_bytes(text.encode())
        with pytest.raises(ConfigError, match=r"run\.yaml"):
            load_config(path)
