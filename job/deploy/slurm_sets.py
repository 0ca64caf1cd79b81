"""The table of an array: line N of a file has the options of `sft-job run` for task N.

The job reads its line with xargs, which knows quotes and nothing else. Whatever xargs and other readers would take
differently (backslashes, line ends of Windows, marks that no editor shows) is refused here.
"""

import shlex
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path

from job.config import RunConfig
from job.errors import ConfigError

FLAGS = ("--take-over", "--try-again")
MARK = "\ufeff"
SEVERAL = " mistakes in the config:"  # a line of its own, before them
Sets = tuple[str, ...]


def lines_of(file: Path) -> list[Sets]:
    """The values of --set in each line. Raises: ConfigError, with the line that it is about."""
    if not file.is_file():
        raise ConfigError(f"--sets {file}: there is no such file; the job reads it too, so it has to stay where it is")
    try:
        text = file.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--sets {file} cannot be read: {error}") from error
    if not text.strip():
        raise ConfigError(f"{file} is empty: give one line of options for each task, like --set run=runs/a")
    found = []
    for number, line in enumerate(text.rstrip(" \t\n").split("\n"), 1):
        try:
            found.append(_sets(_words(line, number)))
        except ValueError as error:
            raise ConfigError(f"{file}:{number}: {error}") from error
    return found


def _words(line: str, number: int) -> list[str]:
    """Raises: ValueError for what the job would read differently, or not at all."""
    if line.startswith(MARK):
        raise ValueError("the file begins with a byte order mark; save it without one")
    if line.endswith("\r"):
        raise ValueError("the line ends as on Windows; save the file with plain line ends (LF)")
    if strange := next((sign for sign in line if sign != "\t" and unicodedata.category(sign) == "Cc"), None):
        raise ValueError(f"the line holds the control character {strange!r}; take it out")
    if "\\" in line:
        raise ValueError("a backslash stands for nothing here; put what it was to protect into quotes")
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise ValueError("a quote is not closed") from error
    if not words:
        raise ValueError(f"the line is empty, but it is task {number}'s")
    return words


def _sets(words: list[str]) -> Sets:
    """Raises: ValueError for what `sft-job run` would not take."""
    found, rest = [], iter(words)
    for word in rest:
        if word == "--set":
            if (value := next(rest, None)) is None:
                raise ValueError("--set is the last word; PATH=VALUE comes after it, like --set run=runs/a")
            found.append(value)
        elif word.startswith("--set="):
            found.append(word.removeprefix("--set="))
        elif word not in FLAGS:
            raise ValueError(f"{word!r} is none of --set PATH=VALUE, {', '.join(FLAGS)}, and nothing else may be here")
    return tuple(found)


def configs_of(
    file: Path, lines: list[Sets], numbers: Iterable[int], of_task: Callable[[int, Sets], RunConfig]
) -> list[RunConfig]:
    """Of each task. Raises: ConfigError for a line whose config is wrong, and for two tasks with one run folder.

    What is wrong without the line too is told without it.
    """
    configs: dict[int, RunConfig] = {}
    runs: dict[str, int] = {}
    for number in numbers:
        try:
            configs[number] = of_task(number, lines[number - 1])
        except ConfigError as error:
            before = _mistakes(of_task, number)
            place = f"{file}:{number}: "
            told = str(error).splitlines()
            theirs = ("" if line in before or line.endswith(SEVERAL) else place for line in told)
            raise ConfigError("\n".join(map("".join, zip(theirs, told, strict=True)))) from error
        run = configs[number].run
        if (other := runs.setdefault(run, number)) != number:
            raise ConfigError(f"{file}:{number}: line {other} has the same run, {run}: one of them would be busy")
    return [*configs.values()]


def _mistakes(of_task: Callable[[int, Sets], RunConfig], number: int) -> list[str]:
    """Of a task that has no line."""
    try:
        of_task(number, ())
    except ConfigError as error:
        return str(error).splitlines()
    return []
