"""Which blows fall in which phases, and the tiny job that they fall on: values only."""

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from job.errors import ConfigError, ExitCode

STEPS, CHECKPOINT_STEPS, EVALUATION_STEPS, BATCH_ROWS = 32, 8, 16, 16
STRIKE_STEP = 16  # the blow falls around the second checkpoint: one commit stands, and more are to come
CHAT_REPEATS = 8  # preparing the data takes long enough to be hit in
ADAPTER_RANK = 64  # writing a snapshot, too
GRACE = "60s"  # also a slow store takes a last checkpoint in this time, so that nothing may be lost at a stop


class Phase(StrEnum):
    """In the order of a run."""

    PULL = "pull"
    PREPARE = "prepare"
    FIRST_STEP = "first-step"
    STEP = "step"
    EVALUATION = "evaluation"
    MID_SNAPSHOT = "mid-snapshot"
    MID_UPLOAD = "mid-upload"
    BEFORE_RECORD = "before-record"
    AFTER_RECORD = "after-record"
    FINAL = "final"


class Blow(StrEnum):
    """A signal, to the supervisor where nothing else is said."""

    TERM = "TERM"
    USR1 = "USR1"
    KILL = "KILL"
    KILL_RANK = "KILL-rank"

    @property
    def signal(self) -> signal.Signals:
        return {Blow.TERM: signal.SIGTERM, Blow.USR1: signal.SIGUSR1}.get(self, signal.SIGKILL)

    @property
    def asks(self) -> bool:
        """Whether it asks for a stop, so that there is time for a last checkpoint."""
        return self in (Blow.TERM, Blow.USR1)


@dataclass(frozen=True)
class Case:
    """One experiment."""

    phase: Phase
    blow: Blow

    @property
    def name(self) -> str:
        return f"{self.phase}:{self.blow}"

    @property
    def applies(self) -> bool:
        """There is no rank yet while inputs are pulled and prepared."""
        return not (self.blow == Blow.KILL_RANK and self.phase in (Phase.PULL, Phase.PREPARE))

    @property
    def first_codes(self) -> set[int]:
        """How the start that was hit may leave.

        Ranks begin again in place, but for those that never took a step. A stop that comes while the result is being
        published may be too late to stop anything.
        """
        if self.blow == Blow.KILL:
            return {-signal.SIGKILL}
        if self.blow == Blow.KILL_RANK:
            return {ExitCode.CRASHED} if self.phase == Phase.FIRST_STEP else {ExitCode.DONE}
        return {ExitCode.STOPPED, ExitCode.DONE} if self.phase == Phase.FINAL else {ExitCode.STOPPED}


ALL = tuple(case for phase in Phase for blow in Blow if (case := Case(phase, blow)).applies)
QUICK = (  # with the reference twelve runs: each phase, each blow, and KILL wherever the store is written
    Case(Phase.PULL, Blow.TERM),
    Case(Phase.PREPARE, Blow.USR1),
    Case(Phase.FIRST_STEP, Blow.KILL),
    Case(Phase.STEP, Blow.TERM),
    Case(Phase.STEP, Blow.KILL_RANK),
    Case(Phase.EVALUATION, Blow.USR1),
    Case(Phase.MID_SNAPSHOT, Blow.KILL_RANK),
    Case(Phase.MID_UPLOAD, Blow.KILL),
    Case(Phase.BEFORE_RECORD, Blow.KILL),
    Case(Phase.AFTER_RECORD, Blow.KILL),
    Case(Phase.FINAL, Blow.KILL),
)


def chosen(quick: bool, only: Sequence[str]) -> tuple[Case, ...]:
    """`only`: PHASE:SIGNAL, or PHASE for all its signals. Raises: ConfigError."""
    if not only:
        return QUICK if quick else ALL
    if quick:
        raise ConfigError("--quick chooses the experiments itself; leave it out, or leave out --only")
    found = [case for text in only for case in _named(text)]
    return tuple(case for case in ALL if case in found)


def _named(text: str) -> list[Case]:
    phase, _, blow = re.sub("[ _]", "-", text.strip()).partition(":")
    found = [case for case in ALL if case.phase == phase.lower() and blow.upper() in ("", case.blow.upper())]
    if found:
        return found
    if phase.lower() not in set(Phase):
        raise ConfigError(f"--only {text}: there is no such phase; there are {', '.join(Phase)}")
    there = [case.blow for case in ALL if case.phase == phase.lower()]
    raise ConfigError(f"--only {text}: in {phase.lower()} there are {', '.join(there)}")


def run_config(run: str, base: str, chat: str, storage: dict[str, Any]) -> dict[str, Any]:
    """The tiny job, as a RUN.yaml has it. On one process of the CPU, where the same step gives the same bits."""
    return {
        "run": run,
        "model": {"base": base},
        "data": {"train": [chat], "eval": 0.1, "max_length": 64},
        "lora": {"r": ADAPTER_RANK, "alpha": ADAPTER_RANK, "dropout": 0.1},
        "train": {
            "max_steps": STEPS,
            "global_batch_size": BATCH_ROWS,
            "learning_rate": 1e-3,
            "eval_steps": EVALUATION_STEPS,
            "logging_steps": CHECKPOINT_STEPS,
        },
        "samples": {"prompts": ["Who are you?"], "max_new_tokens": 32},
        "checkpoint": {"every": f"{CHECKPOINT_STEPS} steps", "keep": STEPS},
        "parallel": {"device": "cpu", "nproc_per_node": 1},
        "grace": GRACE,
        "track": [],
        "storage": storage,
    }
