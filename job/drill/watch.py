"""Sees from outside where a run is: its events, its folders, its processes. A phase is hit while its process is held.

Looking and striking are two moments; in between the phase may pass. So the process is stopped, looked at again, and
struck only if it is still there; else it goes on and the next chance is waited for.
"""

import contextlib
import os
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from job.drill.plan import CHECKPOINT_STEPS, STRIKE_STEP, Blow, Phase
from job.drill.processes import child_running, entries, held
from job.drill.striker import Notes, Standing, Striker
from job.machine import home
from job.rundir import EventReader, RunDir

POLL_SECONDS = 0.001
IDLE_SECONDS = 0.01  # once the blow has fallen
UPLOADING = (Phase.MID_UPLOAD, Phase.BEFORE_RECORD, Phase.AFTER_RECORD)


class Watch:
    """A thread that lives as long as the block. Made before the run makes its folder."""

    def __init__(self, striker: Striker, standing: Standing, notes: Notes) -> None:
        self._striker, self._standing, self._notes = striker, standing, notes
        self._before = set(_folders())
        self._run: RunDir | None = None
        self._reader: EventReader | None = None
        self._events: list[dict[str, Any]] = []  # of this launch
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="watch")
        standing.snapshot = self._newest_snapshot

    def __enter__(self) -> "Watch":
        if self._striker.waits_for(Phase.PULL):
            strike_when_something_arrives(self._striker)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._over.is_set():
            self._look()
            if self._run is not None:
                self._try(self._run)
            self._over.wait(POLL_SECONDS if self._striker.waits_for(*Phase) else IDLE_SECONDS)

    # ---- what is seen

    def _look(self) -> None:
        if self._run is None or not self._run.path.exists():
            found = next((folder for folder in _folders() if folder not in self._before), None)
            self._run, self._reader = (RunDir(found), None) if found else (None, None)
        if self._run is None:
            return
        if not self._run.events.exists():  # the next launch begins another
            self._reader, self._events, self._standing.rank = None, [], None
            return
        self._reader = self._reader or EventReader(self._run.events)
        for event in self._reader.read():
            self._events.append(event)
            if event["kind"] == "training":
                self._standing.rank = child_running("job.train")
            if event["kind"] == "step":
                self._standing.step = event["step"]
            if event["kind"] in ("training", "step", "finishing"):
                self._notes.write(event["kind"], step=event.get("step", self._standing.step))

    def _newest_snapshot(self) -> int:
        with contextlib.suppress(OSError):
            return max((step for step, _ in self._run.whole_snapshots()), default=0) if self._run else 0
        return 0

    # ---- phases

    def _try(self, run: RunDir) -> None:
        if self._striker.waits_for(*UPLOADING) and run.snapshot(STRIKE_STEP).exists():
            with held(self._standing.rank):  # until the upload is where the blow is to fall
                while not self._striker.wait(IDLE_SECONDS) and not self._over.is_set():
                    continue
            return
        if not self._near(run):
            return
        preparing = self._striker.waits_for(Phase.PREPARE)
        with held(child_running("job.prepare") if preparing else self._standing.rank) as still:
            self._look()
            if still and (phase := self._phase(run)) is not None:
                self._striker.reached(phase)

    def _near(self, run: RunDir) -> bool:
        """Whether it is worth to hold the process and look. What passes in a moment is approached in small steps, the
        process held between them: on a busy machine it would have passed before anybody looked."""
        if self._striker.waits_for(Phase.MID_SNAPSHOT):
            return self._standing.step >= STRIKE_STEP - 1
        if self._striker.waits_for(Phase.FINAL):
            return any(event["kind"] == "finishing" for event in self._events)
        return self._phase(run) is not None

    def _phase(self, run: RunDir) -> Phase | None:
        """The phase that is waited for, where the run is in it."""
        waits, case, step = self._striker.waits_for, self._striker.case, self._standing.step
        kinds = [event["kind"] for event in self._events if event["kind"] != "alive"]
        if waits(Phase.PREPARE):
            return Phase.PREPARE if _hidden(run.path, ".prepared.") else None
        if not kinds:
            return None
        if waits(Phase.FIRST_STEP):
            return Phase.FIRST_STEP if "training" in kinds and "step" not in kinds else None
        if waits(Phase.STEP):
            between = STRIKE_STEP < step < STRIKE_STEP + CHECKPOINT_STEPS
            return Phase.STEP if between and kinds[-1] == "step" else None
        if waits(Phase.EVALUATION):
            evaluated = any(event["kind"] == "evaluation" and event["step"] == step for event in self._events)
            return Phase.EVALUATION if step == STRIKE_STEP and not evaluated else None
        if waits(Phase.MID_SNAPSHOT):
            return Phase.MID_SNAPSHOT if step >= STRIKE_STEP and _hidden(run.snapshots, ".step-") else None
        if waits(Phase.FINAL) and case is not None and case.blow == Blow.KILL_RANK:  # others see it in the store
            return Phase.FINAL if _hidden(run.path, ".final.") else None
        return None


def strike_when_something_arrives(striker: Striker) -> None:
    """By the interpreter's audit events: a file or a link is being put among the inputs, with others to come."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("os.symlink", "os.link") and "/inputs/" in os.fsdecode(arguments[1]):
            striker.reached(Phase.PULL)

    sys.addaudithook(hook)


def _folders() -> list[Path]:
    root = home() / "runs"
    return [entry for entry in root.iterdir() if entry.is_dir()] if root.is_dir() else []


def _hidden(folder: Path, prefix: str) -> bool:
    return any(entry.name.startswith(prefix) for entry in entries(folder))
