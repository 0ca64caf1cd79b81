"""The one folder between a supervisor and its ranks: its paths, the stop flag, events, snapshot names."""

import json
import os
import shutil
import signal
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from job.errors import no_space

STEP_PREFIX = "step-"
ALLOW_CODE = "SFT_JOB_ALLOW_CODE"  # 1: the user's own code may run here
STACKS_SIGNAL = signal.SIGQUIT  # asks a rank for the stacks of its threads; stop signals never reach a rank


def write_atomically(path: Path, text: str) -> None:
    """Readers see the old file or the whole new one. Raises: HardwareError where the disk is full."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise no_space(error, path.parent) or error from error
    partial.replace(path)


@dataclass(frozen=True)
class RunDir:
    """Paths below one attempt's folder on one node. The supervisor makes and deletes it; ranks write into it."""

    path: Path

    @property
    def spec(self) -> Path:
        return self.path / "spec.json"

    @property
    def request(self) -> Path:
        return self.path / "prepare.json"

    @property
    def base(self) -> Path:
        """The base model: config and weights."""
        return self.path / "inputs" / "base"

    @property
    def init(self) -> Path:
        """The adapter or the weights to start from, where `model.init` names some and no commit is there."""
        return self.path / "inputs" / "init"

    @property
    def tokenizer(self) -> Path:
        return self.path / "inputs" / "tokenizer"

    @property
    def data(self) -> Path:
        return self.path / "inputs" / "data"

    @property
    def prepared(self) -> Path:
        """Prepared rows: train-*.arrow, perhaps eval-*.arrow, summary.json."""
        return self.path / "prepared"

    @property
    def hooks(self) -> Path:
        """The user's own module, where the run has one: beside the rows that it may have made, and stored with them."""
        return self.prepared / "hooks.py"

    @property
    def resume(self) -> Path:
        """The files of the commit that this attempt goes on from."""
        return self.path / "resume"

    @property
    def snapshots(self) -> Path:
        return self.path / "snapshots"

    @property
    def final(self) -> Path:
        return self.path / "final"

    @property
    def best(self) -> Path:
        """The trainable tensors of the best evaluation so far, where `best.final` asks for them."""
        return self.path / "best"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def stop_flag(self) -> Path:
        return self.path / "stop"

    @property
    def checkpoint_every(self) -> Path:
        """Where the supervisor says how often a checkpoint is due, once it has measured what one costs."""
        return self.path / "checkpoint-every"

    def stacks(self, rank: int) -> Path:
        """Where a rank writes the stacks of its threads when it is asked to."""
        return self.path / f"stacks-{rank}.txt"

    def error(self, rank: int) -> Path:
        return self.path / f"error-{rank}.json"

    def log(self, name: str) -> Path:
        return self.path / f"{name}.log"

    def make(self) -> "RunDir":
        for folder in (self.path, self.base.parent, self.snapshots):
            folder.mkdir(parents=True, exist_ok=True)
        return self

    def clear_launch(self) -> None:
        """Forget all that earlier ranks of this attempt left, but their logs and the inputs."""
        for pattern in ("error-*.json", "stacks-*.txt", "stop", "events.jsonl", "spec.json"):
            for file in self.path.glob(pattern):
                file.unlink()
        for folder in (self.snapshots, self.final, self.best, self.path / "trainer"):
            shutil.rmtree(folder, ignore_errors=True)
        self.snapshots.mkdir()

    # ---- the checkpoint interval

    def set_checkpoint_seconds(self, seconds: float) -> None:
        write_atomically(self.checkpoint_every, repr(seconds))

    def checkpoint_seconds(self) -> float | None:
        try:
            return float(self.checkpoint_every.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    # ---- the stop flag

    def request_stop(self, reason: str) -> None:
        write_atomically(self.stop_flag, reason)

    def stop_requested(self) -> str | None:
        """The reason of the stop request, or None."""
        try:
            return self.stop_flag.read_text(encoding="utf-8") or "stop"
        except FileNotFoundError:
            return None

    # ---- snapshots: written under a hidden name, renamed into place when whole

    def snapshot(self, step: int) -> Path:
        return self.snapshots / f"{STEP_PREFIX}{step:08d}"

    def whole_snapshots(self) -> list[tuple[int, Path]]:
        """(step, folder) of every whole snapshot, oldest first."""
        found = (entry for entry in self.snapshots.iterdir() if entry.name.startswith(STEP_PREFIX))
        return sorted((int(entry.name.removeprefix(STEP_PREFIX)), entry) for entry in found)

    # ---- errors: each process leaves the cause of its own end

    def write_error(self, rank: int, code: int, message: str) -> None:
        write_atomically(self.error(rank), json.dumps({"code": code, "message": message}))

    def read_error(self, rank: int) -> tuple[int, str] | None:
        """(exit code, one line) as the process left it, or None."""
        try:
            found = json.loads(self.error(rank).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return found["code"], found["message"]


class EventWriter:
    """Appends one JSON line per event; the supervisor reads the file while it grows."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self._lock = threading.Lock()

    def write(self, kind: str, **fields: Any) -> None:
        line = json.dumps({"kind": kind, **fields}, ensure_ascii=False, allow_nan=True)
        with self._lock:  # the snapshot's thread writes too
            self._file.write(line + "\n")

    def close(self) -> None:
        self._file.close()


class EventReader:
    """Reads the whole lines that were added since the last call."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0

    def read(self) -> list[dict[str, Any]]:
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                chunk = file.read()
        except FileNotFoundError:
            return []
        whole = chunk[: chunk.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [json.loads(line) for line in whole.splitlines()]


@dataclass(frozen=True)
class Prepare:
    """What `job.prepare` is asked to do."""

    config: dict[str, Any]
    train: list[dict[str, Any]]  # {"uri": as given, "path": local file, and the source's own options}
    eval: list[dict[str, Any]]

    def write(self, run: RunDir) -> None:
        write_atomically(run.request, json.dumps(asdict(self)))

    @staticmethod
    def read(run: RunDir) -> "Prepare":
        return Prepare(**json.loads(run.request.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Spec:
    """What the ranks of one attempt are asked to do."""

    config: dict[str, Any]
    attempt: int
    nonce: str
    base_source: str  # the base as the result names it, its revision pinned
    resume_step: int | None  # None: a fresh start
    evaluations: list[dict[str, Any]] = field(default_factory=list)  # so far: {"step": n, "eval_loss": x, ...}
    launch: int = 1  # of the attempt's ranks, from 1
    wait_seconds: float = 600.0  # for ranks on other nodes

    def write(self, run: RunDir) -> None:
        write_atomically(run.spec, json.dumps(asdict(self)))

    @staticmethod
    def read(run: RunDir) -> "Spec":
        return Spec(**json.loads(run.spec.read_text(encoding="utf-8")))
