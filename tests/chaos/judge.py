"""Whether a run that was interrupted is as good as one that was left alone.

Every commit verifies, the result is bit-identical, no row was trained twice or skipped on the way to it, exit 0 comes
exactly with the result, and nothing is left behind.
"""

import hashlib
import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from job.errors import ExitCode
from job.storage.checkpoints import commit_keys, download_files, read_commit, step_of
from job.storage.records import RESULT, Result
from job.storage.store import NotFound, ObjectStore

Rows = dict[int, list[int]]


@dataclass
class Launch:
    """One start of the ranks, as rank 0 told it in the ledger."""

    attempt: int
    resume: int
    rows: Rows = field(default_factory=dict)  # by step

    @property
    def last(self) -> int:
        return max(self.rows, default=self.resume)


def launches(ledger: Path) -> list[Launch]:
    """In their order. Raises AssertionError where a launch's steps are not those after its resume step, each once."""
    found: dict[int, Launch] = {}
    drawn: dict[int, list[int]] = {}
    lines = ledger.read_text(encoding="utf-8").splitlines() if ledger.exists() else []
    for told in map(json.loads, lines):
        pid = told["pid"]
        if told["kind"] == "launch":
            found[pid] = Launch(told["attempt"], told["resume"])
        elif told["kind"] == "rows":
            drawn[pid] = told["ids"]
        else:
            launch, step = found[pid], told["step"]
            assert step == launch.last + 1, f"step {step} follows step {launch.last} in attempt {launch.attempt}"
            launch.rows[step] = drawn[pid]
    return list(found.values())


def trajectory(told: Sequence[Launch]) -> Rows:
    """The rows of the steps that led to the result: each launch's up to where the next one went on."""
    whole: Rows = {}
    for at, launch in enumerate(told):
        assert launch.resume == len(whole), f"attempt {launch.attempt} begins at {launch.resume}, after {len(whole)}"
        end = told[at + 1].resume if at + 1 < len(told) else launch.last
        assert launch.resume <= end <= launch.last, (
            f"attempt {launch.attempt} took steps {launch.resume} to {launch.last}, the next launch goes on from {end}"
        )
        whole |= {step: launch.rows[step] for step in range(launch.resume + 1, end + 1)}
    return whole


def newest_step(store: ObjectStore) -> int:
    return next((step_of(key) for key in commit_keys(store)), 0)


def finished(store: ObjectStore) -> Result | None:
    try:
        return Result.parse(store.get(RESULT), RESULT)
    except NotFound:
        return None


def judge_end(code: int, killed: bool, store: ObjectStore, home: Path) -> None:
    """One attempt is over; `killed`: its supervisor was."""
    result = finished(store)
    if killed:
        assert code == -9, f"a killed supervisor left with {code}"
    else:
        assert (code == ExitCode.DONE) == (result is not None), f"exit {code}, and result.json is {result}"
    left = [entry.name for entry in (home / "runs").glob("*/")]
    assert len(left) <= int(killed), f"local run folders left: {left}"


def judge_commits(store: ObjectStore, of_attempts: Container[int] | None = None) -> None:
    """Every commit is whole; of the given attempts where some are."""
    keys = [key for key in commit_keys(store) if of_attempts is None or read_commit(store, key).attempt in of_attempts]
    assert keys, "no commit"
    for key in keys:
        commit = read_commit(store, key)
        assert commit.step == step_of(key)
        assert {file.name for file in commit.files} == {"trainable.safetensors", "optimizer.safetensors", "state.json"}
        for file in commit.files:
            stored = store.get(f"{commit.folder}/{file.name}")
            assert hashlib.sha256(stored).hexdigest() == file.sha256, f"{key}: {file.name}"
    assert not store.list("damaged/"), "a commit was found damaged"


def tensors(store: ObjectStore, target: Path) -> dict[str, bytes]:
    """The bytes of each tensor file of the result; all its files are verified on the way to `target`."""
    result = finished(store)
    assert result is not None
    download_files(store, result.folder, result.files, target)
    return {path.name: path.read_bytes() for path in sorted(target.glob("*.safetensors"))}


def judge_events(store: ObjectStore, told: Sequence[Launch], steps: int, whole: bool) -> None:
    """The stored events tell the same story. `whole`: no supervisor was killed, so none of them is missing."""
    resumed: dict[int, int] = {}
    for launch in told:
        resumed.setdefault(launch.attempt, launch.resume)
    seen: list[int] = []
    for attempt in sorted(resumed):
        seen = [step for step in seen if step <= resumed[attempt]]
        for event in _events(store, attempt):
            if event["kind"] == "restart":
                seen = [step for step in seen if step <= event["step"]]
            if event["kind"] == "step":
                seen.append(event["step"])
    assert seen == sorted(set(seen)), f"steps are told twice or out of order: {seen}"
    if whole:
        assert seen == list(range(1, steps + 1)), f"steps are missing: {seen}"


def _events(store: ObjectStore, attempt: int) -> list[Mapping[str, Any]]:
    segments = [store.get(entry.key) for entry in store.list(f"events/{attempt:04d}-")]
    return [json.loads(line) for segment in segments for line in segment.splitlines()]
