"""The table of an array: line N of a file has the options of `sft-job run` for task N."""

import shlex
from collections.abc import Callable
from pathlib import Path

from job.config import RunConfig
from job.errors import ConfigError


def tasks(file: Path) -> list[list[str]]:
    """The words of each line. Raises: ConfigError."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--sets {file} cannot be read: {error}") from error
    found = []
    for number, line in enumerate(lines, 1):
        try:
            words = shlex.split(line)
        except ValueError as error:
            raise ConfigError(f"{file}:{number}: a quote is not closed") from error
        if not words:
            raise ConfigError(f"{file}:{number}: the line is empty, but it is task {number}'s")
        found.append(words)
    if not found:
        raise ConfigError(f"{file} is empty: give one line of options for each task, like --set run=runs/a")
    return found


def refuse_bad_tasks(file: Path, rows: list[list[str]], of_task: Callable[[int, tuple[str, ...]], RunConfig]) -> None:
    """Raises: ConfigError for a line whose config is wrong, and for two tasks with one run folder."""
    runs: dict[str, int] = {}
    for number, words in enumerate(rows, 1):
        try:
            run = of_task(number, sets_of(words)).run
        except ConfigError as error:
            raise ConfigError(f"{file}:{number}: {error}") from error
        if (other := runs.setdefault(run, number)) != number:
            raise ConfigError(f"{file}: lines {other} and {number} have the same run, {run}: one of them would be busy")


def sets_of(words: list[str]) -> tuple[str, ...]:
    """The values of --set among the words."""
    return tuple(
        word.removeprefix("--set=")
        for last, word in zip(["", *words], words, strict=False)
        if last == "--set" or word.startswith("--set=")
    )
