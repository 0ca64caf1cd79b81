"""From a config file and `--set`s to a RunConfig, or to every mistake at once."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from job.config.build import build
from job.config.schema import RunConfig
from job.config.source import Source


def load_config(path: Path, sets: Sequence[str] = (), variables: Mapping[str, str] = os.environ) -> RunConfig:
    """The config in the YAML file at `path`, changed by `sets` (each `a.b=value`), `${NAME}` from `variables`.

    Raises ConfigError whose message has one line per mistake: `FILE:LINE: dotted.path: what is wrong; what to do`.
    """
    return _built(Source.read(path), sets, variables)


def load_text(text: str, name: str, sets: Sequence[str] = (), variables: Mapping[str, str] = os.environ) -> RunConfig:
    """The same of a text that `name` holds, as a variable does where a file cannot be had."""
    return _built(Source.parse(text, name), sets, variables)


def _built(source: Source, sets: Sequence[str], variables: Mapping[str, str]) -> RunConfig:
    for setting in sets:
        source.override(setting)
    return build(source.tree, source.label, source.mistakes, variables)


def with_sets(config: RunConfig, sets: Sequence[str], variables: Mapping[str, str] = os.environ) -> RunConfig:
    """A config that was read before, changed by `sets`. Raises ConfigError as `load_config` does.

    Variables are expanded as in a file; what was expanded when the config was read holds none any more.
    """
    source = Source("config")
    source.tree = config.to_dict()
    for setting in sets:
        source.override(setting)
    return build(source.tree, source.label, source.mistakes, variables if sets else None)
