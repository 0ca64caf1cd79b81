"""A config file of the fewest lines that are valid, and ways to change it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from job.config import RunConfig, load_config
from job.errors import ConfigError

MINIMAL = """\
run: s3://runs/chat
model: {base: hf://org/base@main}
data: {train: [s3://data/chat-*.jsonl]}
lora: {}
"""


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunConfig]:
    """load(text, *sets): the config of this text, read from a file named run.yaml."""
    monkeypatch.chdir(tmp_path)

    def loaded(text: str = MINIMAL, *sets: str) -> RunConfig:
        Path("run.yaml").write_text(text, encoding="utf-8")
        return load_config(Path("run.yaml"), sets)

    return loaded


@pytest.fixture
def refusal(load: Callable[..., RunConfig]) -> Callable[..., list[str]]:
    """refusal(text, *sets): the lines of the error that this text ends in."""

    def refused(text: str = MINIMAL, *sets: str) -> list[str]:
        with pytest.raises(ConfigError) as error:
            load(text, *sets)
        return str(error.value).split("\n")

    return refused
