"""The user's own module beside the run: what it may define, and when it may run at all.

    def row(row: dict) -> dict | list[dict] | None   a row of the data as it is to be read; None leaves it out
    def callbacks(config: dict) -> list              transformers' TrainerCallbacks; they look on, they do not steer
    def compute_metrics(predictions, labels) -> dict figures of an evaluation, see `evaluation.py`
    def state() -> JSON, def restore(state) -> None  what the callbacks know; it rides in each commit

The module's text lies beside the prepared rows and counts in their fingerprint: every attempt runs the same code.
"""

import importlib.util
import json
import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from job.errors import ConfigError, DataError
from job.rundir import ALLOW_CODE, RunDir
from job.training.rows import RowError

NAMES = ("row", "callbacks", "compute_metrics", "state", "restore")
Tokens = Sequence[Any]


@dataclass(frozen=True)
class Hooks:
    """What a module defines; None where it does not."""

    name: str = ""  # as the user wrote it
    row: Callable[[dict[str, Any]], Any] | None = None
    callbacks: Callable[[dict[str, Any]], list[Any]] | None = None
    compute_metrics: Callable[[list[Tokens], list[Tokens]], Mapping[str, float]] | None = None
    state: Callable[[], Any] | None = None
    restore: Callable[[Any], None] | None = None

    def rows(self, record: dict[str, Any]) -> list[dict[str, Any]]:
        """What the user's `row` makes of one record. Raises RowError with what the code raised, and where."""
        if self.row is None:
            return [record]
        try:
            made = self.row(record)
        except (Exception, SystemExit) as error:
            raise RowError(f"hooks row() failed: {_said(error)}") from error
        made = [] if made is None else made if isinstance(made, list) else [made]
        if not all(isinstance(each, dict) for each in made):
            odd = next(each for each in made if not isinstance(each, dict))
            raise RowError(f"hooks row() gave {type(odd).__name__}; it must give a dict, a list of them, or None")
        return made

    def begun(self, config: dict[str, Any], state: Any) -> list[Any]:
        """The user's callbacks, once they know again what was saved. Raises ConfigError with what the code raised."""
        made: list[Any] = []
        doing = "callbacks"
        try:
            if self.callbacks is not None:
                made = list(self.callbacks(config))
            doing = "restore"
            if self.restore is not None and state is not None:
                self.restore(state)
        except (Exception, SystemExit) as error:
            raise ConfigError(f"{self.name}: {doing}() failed: {_said(error)}") from error
        return made

    def metrics(self, predictions: list[Tokens], labels: list[Tokens]) -> dict[str, float]:
        """Figures named `eval_...`. Raises ConfigError with what the code raised, or where it gave no numbers."""
        if self.compute_metrics is None:
            return {}
        try:
            made = {str(name): float(value) for name, value in self.compute_metrics(predictions, labels).items()}
        except (Exception, SystemExit) as error:
            raise ConfigError(f"{self.name}: compute_metrics() failed: {_said(error)}") from error
        return {name if name.startswith("eval_") else f"eval_{name}": value for name, value in made.items()}

    def saved(self) -> Any:
        """The state as JSON holds it. Raises ConfigError."""
        if self.state is None:
            return None
        try:
            return json.loads(json.dumps(self.state()))
        except (Exception, SystemExit) as error:
            raise ConfigError(f"{self.name}: state() gave nothing that JSON holds: {_said(error)}") from error


def load_hooks(path: Path, name: str) -> Hooks:
    """The module in `path`, which the user calls `name`.

    Raises: ConfigError where code is not allowed here, the module cannot be imported or defines nothing of ours.
    """
    if os.environ.get(ALLOW_CODE) != "1":
        raise ConfigError(f"hooks: {name} is code of your own, which is off here; set {ALLOW_CODE}=1 to allow it")
    module = _imported(path, name)
    found = {each: getattr(module, each) for each in NAMES if callable(getattr(module, each, None))}
    if not found:
        raise ConfigError(f"hooks: {name} defines none of {', '.join(NAMES)}")
    if ("state" in found) != ("restore" in found):
        raise ConfigError(f"hooks: {name} defines only one of state and restore; what is saved must be taken back")
    return Hooks(name, **found)


def hooks_of(run: RunDir, name: str | None) -> Hooks:
    """The run's own copy of what the user calls `name`. Raises: ConfigError; DataError where it is missing."""
    if name is None:
        return Hooks()
    if not run.hooks.is_file():
        raise DataError(f"the prepared rows lack {run.hooks.name}; begin anew in another run folder")
    return load_hooks(run.hooks, name)


def _imported(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("sft_job_hooks", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"hooks: {name} cannot be imported: {_said(error)}") from error
    return module


def _said(error: BaseException) -> str:
    """In one line, with the line of the user's file."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(".py")]
    line = error.lineno if isinstance(error, SyntaxError) else frames[-1].lineno if frames else None
    at = f" (line {line})" if line is not None else ""
    text = str(error.msg) if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {' '.join(text.split()) or 'no message'}{at}"
