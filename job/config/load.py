"""From a config file and `--set`s to a RunConfig, or to every mistake at once."""

import os
from collections.abc import Sequence
from pathlib import Path

from job.config.build import build
from job.config.schema import RunConfig
from job.config.source import Source


def load_config(path: Path, sets: Sequence[str] = ()) -> RunConfig:
    """The config in the YAML file at `path`, changed by `sets` (each `a.b=value`), `${NAME}` from the environment.

    Raises ConfigError whose message has one line per mistake: `FILE:LINE: dotted.path: what is wrong; what to do`.
    """
    source = Source.read(path)
    for setting in sets:
        source.override(setting)
    return build(source.tree, source.label, source.mistakes, os.environ)
